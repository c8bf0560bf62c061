package ads

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-proxy/sluice/xds/transport"
)

// told keeps the log readable while a control plane is away or refuses us: each
// state is told once, by a warning; what repeats it is for debugging.
type told struct{ state string }

// broke: a stream, or the attempt at one, ended.
func (t *told) broke(log *slog.Logger, err error, wait time.Duration) {
	level, state := slog.LevelWarn, state(err)
	if state == t.state {
		level = slog.LevelDebug
	}
	t.state = state
	log.Log(context.Background(), level, "ads stream closed", "code", code(err).String(), "err", err, "retry_in", wait)
}

// answers: the server sent a response; what broke is over.
func (t *told) answers(log *slog.Logger) {
	if t.state != "" {
		log.Info("ads stream answers again")
	}
	t.state = ""
}

// state is what stays the same of an error when it repeats: no ports, no times.
func state(err error) string {
	if errors.Is(err, transport.ErrTLS) {
		return "TLS"
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return "connect"
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unavailable {
		return s.Code().String() + " " + s.Message()
	}
	return code(err).String()
}
