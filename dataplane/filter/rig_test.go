package filter

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/stream"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a worker; what its filters do is written down, on the worker.
type rig struct {
	t    *testing.T
	core *Core
	said []string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	w, err := loop.New(0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go w.Run()
	r := &rig{t: t, core: NewCore(w, func() uint64 { return 1 })}
	t.Cleanup(func() {
		w.Do(func() {
			for s := range r.core.Sockets {
				s.Kill()
			}
			for _, c := range slices.Backward(r.core.Connections) {
				c.Kill()
			}
		})
		w.Close()
	})
	return r
}

func (r *rig) do(f func()) { r.core.Worker.Do(f) }

func (r *rig) say(format string, args ...any) { r.said = append(r.said, fmt.Sprintf(format, args...)) }

// heard takes what was said so far.
func (r *rig) heard() (s string) {
	r.do(func() { s, r.said = strings.Join(r.said, " "), nil })
	return s
}

func (r *rig) expect(want string) {
	r.t.Helper()
	var got []string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if s := r.heard(); s != "" {
			got = append(got, s)
		}
		if strings.Join(got, " ") == want {
			return
		}
	}
	r.t.Fatalf("happened: %q, want %q", strings.Join(got, " "), want)
}

// connection is a client, and the descriptor that the proxy accepted.
func (r *rig) connection() (*net.TCPConn, int) {
	r.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	f, err := s.(*net.TCPConn).File()
	if err != nil {
		r.t.Fatal(err)
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		r.t.Fatal(err)
	}
	f.Close()
	s.Close()
	unix.SetNonblock(fd, true)
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	r.t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn), fd
}

// scripted is a factory of filters that answer as they are told.
type scripted struct {
	r     *rig
	name  string
	watch Watch
	fresh Status // of NewConnection
	data  func(c *Connection, end bool) Status
	conn  *Connection
	gone  int
}

func (s *scripted) New(c *Connection) Filter { s.conn = c; return s }
func (s *scripted) Watch() Watch             { return s.watch }
func (s *scripted) Release()                 { s.gone++ }

func (s *scripted) NewConnection() Status {
	s.r.say("%s:new", s.name)
	if s.fresh == Closed {
		s.conn.Deny(s.name + " said no")
	}
	return s.fresh
}

func (s *scripted) Data(end bool) Status {
	s.r.say("%s:data(%t)", s.name, end)
	if s.data == nil {
		return Continue
	}
	return s.data(s.conn, end)
}

func (s *scripted) Ended() { s.r.say("%s:ended", s.name) }

// last is a terminal filter.
type last struct {
	r    *rig
	conn *Connection
}

func (l *last) New(c *Connection) Filter { l.conn = c; return l }
func (*last) Watch() Watch               { return Nothing }
func (*last) Release()                   {}
func (l *last) NewConnection() Status    { l.r.say("last:new"); return Stop }
func (*last) Data(bool) Status           { return Continue }
func (l *last) Ended()                   { l.r.say("last:ended") }
func (l *last) Resume()                  { l.r.say("last:resume") }
func (*last) Discarded(uint64)           {}
func (l *last) Flush()                   { l.r.say("last:flush") }
func (l *last) Close()                   { l.r.say("last:close"); CloseQuietly(l.conn.FD); l.conn.End() }
func (l *last) Kill()                    { l.r.say("last:kill"); unix.Close(l.conn.FD); l.conn.End() }

// accept takes a connection into a chain of the filters and a terminal one.
func (r *rig) accept(filters ...*scripted) (*net.TCPConn, *Connection, *last) {
	r.t.Helper()
	client, fd := r.connection()
	ch, end := &Chain{Chain: stream.Chain{Name: "chain"}}, &last{r: r}
	for _, f := range filters {
		f.r = r
		ch.Factories = append(ch.Factories, f)
	}
	ch.Factories = append(ch.Factories, end)
	c := &Connection{Core: r.core, FD: fd, Info: stream.New(1, &stream.Listener{}, netip.AddrPort{}, netip.AddrPort{}), Owner: &owner{r: r, limit: 1 << 20}}
	r.do(func() { ch.Accept(c) })
	return client, c, end
}

type owner struct {
	r     *rig
	limit uint32
}

func (*owner) Due() bool            { return false }
func (o *owner) Closed(*Connection) { o.r.say("log") }
func (*owner) Logged() bool         { return false }
func (o *owner) Limit() uint32      { return o.limit }
func (o *owner) Ended(*Connection)  { o.r.say("over") }

// waitFor waits until n bytes wait in a socket.
func waitFor(fd, n int) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		have, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
		if err != nil || have >= n {
			return err
		}
		if time.Now().After(deadline) {
			return os.ErrDeadlineExceeded
		}
	}
}

// looker is a listener filter, and its own factory.
type looker struct {
	r        *rig
	name     string
	disabled bool
	fresh    Status
	wants    int
	until    string // Stop until the bytes end so
	verdict  Status
	consume  int
	seen     []string
}

func (l *looker) New(*Socket) ListenerFilter {
	if l.disabled {
		return nil
	}
	return l
}
func (*looker) Release()                  {}
func (l *looker) Accepted(*Socket) Status { l.r.say("%s:accepted", l.name); return l.fresh }
func (l *looker) Wants() int              { return l.wants }
func (l *looker) Data(s *Socket, b []byte) Status {
	l.seen = append(l.seen, string(b))
	if !strings.HasSuffix(string(b), l.until) {
		return Stop
	}
	if l.consume > 0 && !s.Consume(l.consume) {
		return Closed
	}
	return l.verdict
}

// inspect runs listener filters; the verdict is said.
func (r *rig) inspect(timeout time.Duration, pass bool, filters ...*looker) (*net.TCPConn, *Socket) {
	client, fd := r.connection()
	s := &Socket{Core: r.core, FD: fd, Info: &stream.Info{}}
	var fs []ListenerFactory
	for _, f := range filters {
		f.r = r
		fs = append(fs, f)
	}
	r.do(func() {
		Inspect(s, fs, timeout, pass, func(s *Socket, v Verdict) {
			r.say("%s", [...]string{"accepted", "timeout", "timeout_passed", "remote_close", "refused"}[v])
			if len(r.core.Sockets) != 0 {
				r.say("still known")
			}
			if err := r.core.Worker.Add(s.FD, unix.EPOLLIN, nil); err != nil {
				r.say("still registered")
			}
			CloseQuietly(s.FD)
		})
	})
	return client, s
}
