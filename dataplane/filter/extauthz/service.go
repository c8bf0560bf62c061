package extauthz

import (
	"context"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/sluice-proxy/sluice/dataplane/grpcservice"
)

// answer is what a call came to.
type answer struct {
	response *authv3.CheckResponse
	err      error
}

// service calls an authorization service. Its methods are safe for concurrent
// use.
type service struct{ *grpcservice.Service }

// call asks in a goroutine of its own; done is called in that, unless cancel was
// called before.
func (s service) call(r *authv3.CheckRequest, done func(answer)) (cancel context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), s.Timeout())
	go func() {
		defer cancel()
		resp, err := s.check(ctx, r)
		done(answer{resp, err})
	}()
	return cancel
}

func (s service) check(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	ctx, conn, err := s.Connection(ctx)
	if err != nil {
		return nil, err
	}
	return authv3.NewAuthorizationClient(conn).Check(ctx, r)
}
