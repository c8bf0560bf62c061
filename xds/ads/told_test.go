package ads

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-proxy/sluice/xds/transport"
)

func TestAStateIsToldOnce(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	refused := func(port int) error {
		return fmt.Errorf("connect: %w", &net.OpError{Op: "dial", Err: errors.New("refused"), Addr: &net.TCPAddr{Port: port}})
	}
	unknown := status.Error(codes.Unauthenticated, "authentication failed")
	var told told
	for i, step := range []struct {
		err    error
		warned bool
	}{
		{refused(1), true}, {refused(2), false}, {unknown, true}, {unknown, false}, {status.Error(codes.Unauthenticated, "another"), true},
		{fmt.Errorf("x: %w: y", transport.ErrTLS), true}, {fmt.Errorf("x: %w: z", transport.ErrTLS), false}, {refused(1), true},
		{nil, false}, {refused(1), true}, {status.Error(codes.Unavailable, "reset on port 5"), true}, {status.Error(codes.Unavailable, "reset on port 6"), false},
	} {
		out.Reset()
		if step.err == nil {
			told.answers(log)
			continue
		}
		told.broke(log, step.err, 0)
		if got := strings.Contains(out.String(), "level=WARN"); got != step.warned {
			t.Errorf("step %d (%v): warned %v", i, step.err, got)
		}
	}
}
