package extauthz

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slow is a service that answers when it is told to.
type slow struct {
	authv3.UnimplementedAuthorizationServer
	asked, given atomic.Int32
	answer       chan struct{}
}

func (s *slow) Check(ctx context.Context, _ *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	s.asked.Add(1)
	select {
	case <-s.answer:
		return &authv3.CheckResponse{}, nil
	case <-ctx.Done():
		s.given.Add(1)
		return nil, ctx.Err()
	}
}

func serve(t *testing.T) (*slow, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, g := &slow{answer: make(chan struct{})}, grpc.NewServer()
	authv3.RegisterAuthorizationServer(g, s)
	done := make(chan struct{})
	go func() { defer close(done); g.Serve(ln) }()
	t.Cleanup(func() { g.Stop(); <-done })
	return s, ln.Addr().String()
}

func newService(t *testing.T, to string, timeout time.Duration) service {
	t.Helper()
	f := New(&api.ExtAuthz{StatPrefix: "p", Service: api.GRPCService{Target: to, Timeout: timeout}}, filter.Context{Stats: stats.New(), Log: slog.New(slog.DiscardHandler), Cluster: func(string) *upstream.Cluster { return nil }})
	t.Cleanup(f.Release)
	return f.service
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestTheAnswerComes(t *testing.T) {
	s, at := serve(t)
	got := make(chan answer, 1)
	newService(t, at, time.Minute).call(&authv3.CheckRequest{}, func(a answer) { got <- a })
	close(s.answer)
	if a := <-got; a.err != nil || codes.Code(a.response.GetStatus().GetCode()) != codes.OK {
		t.Errorf("%+v", a)
	}
}

func TestACallThatIsGivenUpReachesTheService(t *testing.T) {
	s, at := serve(t)
	got := make(chan answer, 1)
	cancel := newService(t, at, time.Minute).call(&authv3.CheckRequest{}, func(a answer) { got <- a })
	await(t, "the service is asked", func() bool { return s.asked.Load() == 1 })
	cancel()
	if a := <-got; a.err == nil {
		t.Error("an answer to a call that was given up")
	}
	await(t, "the service knows", func() bool { return s.given.Load() == 1 })
}

func TestTheTimeoutEndsACall(t *testing.T) {
	_, at := serve(t)
	got := make(chan answer, 1)
	newService(t, at, 20*time.Millisecond).call(&authv3.CheckRequest{}, func(a answer) { got <- a })
	if a := <-got; a.err == nil {
		t.Error("an answer in spite of the timeout")
	}
}

func TestAServiceThatIsClosedIsNotAsked(t *testing.T) {
	s, at := serve(t)
	sv := newService(t, at, time.Minute)
	sv.Close()
	got := make(chan answer, 1)
	sv.call(&authv3.CheckRequest{}, func(a answer) { got <- a })
	if a := <-got; a.err == nil || s.asked.Load() != 0 {
		t.Errorf("%v, asked %d times", a.err, s.asked.Load())
	}
}
