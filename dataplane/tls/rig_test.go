package tls

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/test/pki"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of these tests.
const patience = 10 * time.Second

// rig is a worker, and the two sides of a TLS: ours on it, a peer of the library's.
type rig struct {
	t       *testing.T
	w       *loop.Worker
	limiter *Limiter
	store   *stats.Store
	ca      *pki.CA
	leaf    pki.Leaf
	// down and up are the configurations of our side.
	down api.DownstreamTLS
	up   api.UpstreamTLS
	peer tls.Config
}

func newRig(t *testing.T) *rig {
	t.Helper()
	w, err := loop.New(0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go w.Run()
	r := &rig{t: t, w: w, limiter: NewLimiter(2), store: stats.New(), ca: pki.New(t, "ca")}
	t.Cleanup(func() { w.Close(); r.limiter.Wait() })
	r.leaf = r.ca.Issue([]string{"server.example"})
	context := api.TLSContext{Params: api.TLSParams{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13, Curves: []uint16{29, 23},
		Ciphers: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}}
	r.up = api.UpstreamTLS{TLSContext: context, SNI: "server.example"}
	r.down = api.DownstreamTLS{TLSContext: context}
	r.down.Certificates = []*api.TLSCertificate{{Chain: r.leaf.PEM, Key: r.leaf.Key}}
	r.peer = tls.Config{RootCAs: r.ca.Pool(), ServerName: "server.example", Certificates: []tls.Certificate{r.leaf.TLS(t)}}
	return r
}

// sockets are two ends of one stream: a descriptor of ours, and the peer's.
func (r *rig) sockets() (int, *net.UnixConn) {
	r.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[1]), "peer")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		r.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(patience))
	r.t.Cleanup(func() { c.Close() })
	return fds[0], c.(*net.UnixConn)
}

// tcp are sockets that can be reset.
func (r *rig) tcp() (int, *net.TCPConn) {
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
	c.SetDeadline(time.Now().Add(patience))
	r.t.Cleanup(func() { c.Close() })
	ours, err := ln.Accept()
	if err != nil {
		r.t.Fatal(err)
	}
	defer ours.Close()
	f, err := ours.(*net.TCPConn).File()
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	unix.SetNonblock(fd, true)
	return fd, c.(*net.TCPConn)
}

// begun is a handshake of ours, and how often its end was told.
type begun struct {
	*Handshake
	r    *rig
	fd   int
	told chan error
}

// begin starts one as a server, or as a client. Its descriptor is closed with the test
// unless the test has.
func (r *rig) begin(server bool, fd int) *begun {
	r.t.Helper()
	b := &begun{r: r, fd: fd, told: make(chan error, 2)}
	done := func(err error) { b.told <- err }
	var err error
	if server {
		var s *Server
		if s, err = NewServer(&r.down, nil, NewServerStats(r.store, "l"), r.limiter); err != nil {
			r.t.Fatal(err)
		}
		r.w.Do(func() { b.Handshake, _, err = s.Accept(r.w, fd, netip.AddrPort{}, netip.AddrPort{}, done) })
	} else {
		var c *Client
		if c, err = NewClient(&r.up, nil, NewClientStats(r.store, "c"), r.limiter); err != nil {
			r.t.Fatal(err)
		}
		r.w.Do(func() {
			if err = r.w.Add(fd, handshakeEvents, nothing{}); err == nil {
				r.w.Park(fd)
				b.Handshake, err = c.Connect(r.w, fd, netip.AddrPort{}, "", Wish{}, done)
			}
		})
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { r.w.Do(b.Cancel); unix.Close(b.fd) })
	return b
}

type nothing struct{}

func (nothing) Ready(uint32) {}

// end waits for the handshake's.
func (b *begun) end() error {
	b.r.t.Helper()
	select {
	case err := <-b.told:
		return err
	case <-time.After(patience):
		b.r.t.Fatal("the end of the handshake was never told")
		return nil
	}
}

// peerOf is the library's side.
func (r *rig) peerOf(server bool, c net.Conn) *tls.Conn {
	if server {
		return tls.Client(c, &r.peer)
	}
	return tls.Server(c, &r.peer)
}

// established shakes hands over these sockets.
func (r *rig) established(server bool, fd int, c net.Conn) (*Conn, *tls.Conn) {
	r.t.Helper()
	b, p := r.begin(server, fd), r.peerOf(server, c)
	shook := make(chan error, 1)
	go func() { shook <- p.Handshake() }()
	if err := errors.Join(<-shook, b.end()); err != nil {
		r.t.Fatal(err)
	}
	return b.Conn, p
}

// both runs a test for either side of ours.
func both(t *testing.T, f func(t *testing.T, r *rig, server bool)) {
	for name, server := range map[string]bool{"server": true, "client": false} {
		for version, v := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
			t.Run(name+" "+version, func(t *testing.T) {
				r := newRig(t)
				r.peer.MaxVersion = v
				f(t, r, server)
			})
		}
	}
}

func (r *rig) value(name string) uint64 {
	s, _ := r.store.Lookup(name)
	return s.Value
}
