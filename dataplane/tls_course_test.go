package dataplane

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// The handshake and tcp_proxy's connect go on at the same time, as in Envoy; what
// the mode says of the handshake is heeded.
func TestTLSAndTheConnect(t *testing.T) {
	i, w := newIdentities(t), newWorldOf(t, "off")
	w.cluster("now", banner(t, "a"))
	w.cluster("later", banner(t, "a"))
	now := secured(tcpListener("now", free(t), "now"), i.down())
	later := secured(tcpListener("later", free(t), "later"), i.down())
	later.FilterChains[0].Filters[0].TCPProxy.ConnectMode = api.ConnectOnTLSHandshake
	later.FilterChains[0].TransportSocketConnectTimeout = 100 * time.Millisecond
	later.StatPrefix = "later"
	lines := logged(t, later, "%DOWNSTREAM_LOCAL_CLOSE_REASON% %CONNECTION_TERMINATION_DETAILS% %UPSTREAM_HOST%")
	w.serve(later, now)
	dial(t, now.Addresses[0].Addr.String())
	w.await("cluster.now.upstream_rq_active", 1)
	c := dial(t, later.Addresses[0].Addr.String())
	io.WriteString(c, "\x16\x03\x01") // so that there is a goroutine to be ended
	if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	if got := lines(1)[0]; got != "transport_socket_timeout transport socket timeout was reached -" {
		t.Errorf("logged %s", got)
	}
	w.await("listener.later.downstream_cx_transport_socket_connect_timeout", 1)
	if n := w.counter("cluster.later.upstream_cx_total"); n != 0 {
		t.Errorf("%d connects before the handshake", n)
	}
	if got := readLine(t, dialTLS(t, later.Addresses[0].Addr.String(), i.clientConfig(t))); got != "a" {
		t.Errorf("read %s", got)
	}
}

// What a host says while the client's handshake goes on is not lost.
func TestTLSKeepsWhatTheHostSaysMeanwhile(t *testing.T) {
	i, w := newIdentities(t), newWorldOf(t, "off")
	said := make(chan struct{})
	w.cluster("c", host(t, nil, func(c net.Conn) { io.WriteString(c, "a\n"); close(said); io.Copy(io.Discard, c) }))
	l := secured(tcpListener("l", free(t), "c"), i.down())
	w.serve(l)
	c := dialTLS(t, l.Addresses[0].Addr.String(), i.clientConfig(t))
	<-said
	w.await("cluster.c.upstream_rq_active", 1)
	w.plane.Flush() // every worker has had its events
	if got := readLine(t, c); got != "a" {
		t.Errorf("read %s", got)
	}
}

// A reader that stops for a while gets everything in the end, also what waited as
// ciphertext.
func TestTLSASlowReaderGetsItAll(t *testing.T) {
	for name, with := range sides() {
		t.Run(name, func(t *testing.T) {
			const size = 24 << 20
			w := newWorldOf(t, "off")
			c := w.between(newIdentities(t), with, func(c net.Conn) {
				c.Write(make([]byte, size))
				io.Copy(io.Discard, c)
			})()
			io.ReadFull(c, make([]byte, 1))
			for last := uint64(0); ; { // until it stands still
				time.Sleep(30 * time.Millisecond)
				now := w.plane.Connections()[0].Response.Bytes
				if now == last {
					break
				}
				last = now
			}
			if n, err := io.CopyN(io.Discard, c, size-1); err != nil {
				t.Errorf("read %d bytes, then %v", n, err)
			}
		})
	}
}

// With ON_DOWNSTREAM_DATA bytes have to be the client's, not the handshake's.
func TestTLSAndTheConnectOnData(t *testing.T) {
	i, w := newIdentities(t), newWorldOf(t, "off")
	w.cluster("c", host(t, nil, echoes))
	l := secured(tcpListener("l", free(t), "c"), i.down())
	l.FilterChains[0].Filters[0].TCPProxy.ConnectMode = api.ConnectOnData
	w.serve(l)
	c := dialTLS(t, l.Addresses[0].Addr.String(), i.clientConfig(t))
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	w.await("listener."+l.StatName()+".ssl.handshake", 1)
	if n := w.counter("cluster.c.upstream_cx_total"); n != 0 {
		t.Errorf("%d connects without a byte", n)
	}
	if err := exchange(c, "hello"); err != nil {
		t.Error(err)
	}
}

// A client that does not read makes the host wait: what is taken from it is bounded.
func TestTLSIsBoundedByASlowReader(t *testing.T) {
	for name, with := range sides() {
		t.Run(name, func(t *testing.T) {
			w := newWorldOf(t, "off")
			wrote := make(chan int, 1)
			c := w.between(newIdentities(t), with, func(c net.Conn) {
				c.SetDeadline(time.Now().Add(400 * time.Millisecond))
				total, b := 0, make([]byte, 64<<10)
				for {
					n, err := c.Write(b)
					if total += n; err != nil {
						break
					}
				}
				wrote <- total
			})()
			io.ReadFull(c, make([]byte, 1))
			// Four sockets' buffers of up to 6 MiB, and ours.
			if n := <-wrote; n > 32<<20 {
				t.Errorf("%d bytes were taken", n)
			}
			all := w.plane.Connections()
			if len(all) == 0 {
				return
			}
			if kept := all[0].Response.Bytes; kept > 32<<20 {
				t.Errorf("%d bytes were read", kept)
			}
		})
	}
}

// Handshakes that come to nothing, and that come to something, leave nothing.
func TestTLSHandshakesLeaveNothing(t *testing.T) {
	i, w := newIdentities(t), newWorldOf(t, "off")
	w.cluster("c", host(t, nil, echoes))
	l := secured(tcpListener("l", free(t), "c"), i.mutual())
	l.StatPrefix = "s"
	w.serve(l)
	addr := l.Addresses[0].Addr.String()
	exchangeOnce := func() {
		c := dialTLS(t, addr, i.clientConfig(t, i.client))
		if err := exchange(c, "hello"); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	exchangeOnce()
	w.await("listener.s.downstream_cx_active", 0)
	goroutines, fds := runtime.NumGoroutine(), descriptors(t)
	n := 1000
	if testing.Short() {
		n = 100
	}
	for k := range n {
		switch k % 4 {
		case 0:
			exchangeOnce()
		case 1: // no certificate
			c := dialTLS(t, addr, i.clientConfig(t))
			c.Handshake()
			c.Read(make([]byte, 1))
			c.Close()
		case 2: // breaks off in the hello
			c := dial(t, addr)
			io.WriteString(c, "\x16\x03\x01\x02\x00\x01")
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		case 3: // goes away in order
			c := dial(t, addr)
			io.WriteString(c, "\x16\x03\x01")
			c.Close()
		}
	}
	w.await("listener.s.downstream_cx_active", 0)
	w.await("cluster.c.upstream_cx_active", 0)
	// io.Copy of the hosts keeps some pipes.
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if runtime.NumGoroutine() <= goroutines+2 && descriptors(t) <= fds+16 {
			return
		}
	}
	t.Errorf("%d goroutines and %d descriptors, before it were %d and %d", runtime.NumGoroutine(), descriptors(t), goroutines, fds)
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// Timers, drain and the other filters work with TLS as without.
func TestTLSEndsByTheClock(t *testing.T) {
	for name, with := range sides() {
		t.Run(name, func(t *testing.T) {
			i, w := newIdentities(t), newWorldOf(t, "off")
			var c *tls.Config
			if with[1] {
				c = i.hostConfig(t)
			}
			w.cluster("c", host(t, c, echoes))
			if with[1] {
				w.originates("c", i.up())
			}
			l := tcpListener("l", free(t), "c")
			l.FilterChains[0].Filters[0].TCPProxy.IdleTimeout = 150 * time.Millisecond
			cfg := i.clientConfig(t)
			if with[0] {
				secured(l, i.down())
			}
			w.serve(l)
			var conn net.Conn = dial(t, l.Addresses[0].Addr.String())
			if with[0] {
				conn = tls.Client(conn, cfg)
			}
			if err := exchange(conn, "hello"); err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(conn); len(b) > 0 || err != nil {
				t.Errorf("read %q, %v, want the end", b, err)
			}
			w.await("tcp.l.idle_timeout", 1)
		})
	}
}

func TestTLSOfTheOtherTerminalFilters(t *testing.T) {
	i, w := newIdentities(t), newWorldOf(t, "off")
	e := secured(tcpListener("echo", free(t), "c"), i.down())
	e.FilterChains[0].Filters = []api.Filter{{Echo: &api.Echo{}}}
	d := secured(tcpListener("direct", free(t), "c"), i.down())
	d.FilterChains[0].Filters = []api.Filter{{DirectResponse: &api.DirectResponse{Body: strings.Repeat("body ", 100_000)}}}
	w.serve(d, e)
	c := dialTLS(t, e.Addresses[0].Addr.String(), i.clientConfig(t))
	for _, size := range []int{1, 100, 300_000} {
		errs := make(chan error, 1)
		text := strings.Repeat("x", size)
		go func() { _, err := io.WriteString(c, text); errs <- err }()
		b := make([]byte, size)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != text || <-errs != nil {
			t.Fatalf("%d bytes came back otherwise: %v", size, err)
		}
	}
	c.CloseWrite()
	if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	b, err := io.ReadAll(dialTLS(t, d.Addresses[0].Addr.String(), i.clientConfig(t)))
	if err != nil || string(b) != d.FilterChains[0].Filters[0].DirectResponse.Body {
		t.Errorf("read %d bytes, %v", len(b), err)
	}
}

// A host that resets its connection while the client shakes hands takes the client
// along at once, as in Envoy; one that ends its stream waits for it.
func TestTLSHostBreaksDuringTheHandshake(t *testing.T) {
	i, w := newIdentities(t), newWorldOf(t, "off")
	reset := make(chan struct{})
	w.cluster("c", host(t, nil, func(c net.Conn) {
		<-reset
		under(c).SetLinger(0)
	}))
	l := secured(tcpListener("l", free(t), "c"), i.down())
	lines := logged(t, l, "%RESPONSE_FLAGS% %DOWNSTREAM_DETECTED_CLOSE_TYPE% %UPSTREAM_DETECTED_CLOSE_TYPE% %BYTES_SENT%")
	w.serve(l)
	c := dial(t, l.Addresses[0].Addr.String())
	io.WriteString(c, "\x16\x03\x01")
	w.await("cluster.c.upstream_rq_active", 1)
	close(reset)
	if b, err := io.ReadAll(c); len(b) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read %q, %v, want a reset", b, err)
	}
	if got := lines(1)[0]; got != "UR LocalReset RemoteReset 0" {
		t.Errorf("logged %s", got)
	}
	w.await("cluster.c.upstream_cx_destroy_remote_with_active_rq", 1)
	w.await("cluster.c.upstream_cx_active", 0)
	w.await("tcp.l.downstream_cx_total", 1)
}

// What is given up while a client shakes hands gives the host's connection back.
func TestTLSClientGoesDuringTheHandshake(t *testing.T) {
	for name, end := range map[string]func(c *net.TCPConn, w *world){
		"by FIN":     func(c *net.TCPConn, _ *world) { c.Close() },
		"by RST":     func(c *net.TCPConn, _ *world) { c.SetLinger(0); c.Close() },
		"by a drain": func(_ *net.TCPConn, w *world) { w.serve() },
	} {
		t.Run(name, func(t *testing.T) {
			i, w := newIdentities(t), draining(t, DrainOptions{Time: 100 * time.Millisecond})
			ended := make(chan error, 1)
			w.cluster("c", host(t, nil, func(c net.Conn) { _, err := c.Read(make([]byte, 1)); ended <- err }))
			l := secured(tcpListener("l", free(t), "c"), i.down())
			l.StatPrefix = "s"
			w.serve(l)
			c := dial(t, l.Addresses[0].Addr.String()).(*net.TCPConn)
			io.WriteString(c, "\x16\x03\x01")
			w.await("cluster.c.upstream_rq_active", 1)
			end(c, w)
			if err := <-ended; err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the host read %v", err)
			}
			w.await("cluster.c.upstream_cx_active", 0)
			if n := w.counter("listener.s.ssl.connection_error"); n != 0 {
				t.Errorf("%d connection errors", n)
			}
		})
	}
}

// A key log that cannot be written costs no connection.
func TestTLSKeyLogThatCannotBeWritten(t *testing.T) {
	i, w := newIdentities(t), newWorldOf(t, "off")
	w.cluster("c", host(t, nil, echoes))
	l := secured(tcpListener("l", free(t), "c"), i.down())
	l.FilterChains[0].TLS.KeyLog = &api.TLSKeyLog{Path: t.TempDir()}
	w.serve(l)
	if err := exchange(dialTLS(t, l.Addresses[0].Addr.String(), i.clientConfig(t)), "hello"); err != nil {
		t.Error(err)
	}
}
