package dataplane

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/test/pki"
)

// identities are an authority, and a server and a client that it vouches for.
type identities struct {
	ca             *pki.CA
	server, client pki.Leaf
}

func newIdentities(t *testing.T) identities {
	ca := pki.New(t, "ca")
	return identities{ca: ca, server: ca.Issue([]string{"server.example", "spiffe://td/server"}), client: ca.Issue([]string{"spiffe://td/client", "client.example"})}
}

func certificate(l pki.Leaf) *api.TLSCertificate {
	return &api.TLSCertificate{Chain: l.PEM, Key: l.Key, ChainPath: "<inline>"}
}

func params(least, most uint16) api.TLSParams {
	return api.TLSParams{MinVersion: least, MaxVersion: most, Curves: []uint16{29, 23}, Ciphers: []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
}

func (i identities) down(leaves ...pki.Leaf) *api.DownstreamTLS {
	d := &api.DownstreamTLS{TLSContext: api.TLSContext{Params: params(tls.VersionTLS12, tls.VersionTLS13)}}
	for _, l := range append([]pki.Leaf{i.server}[:min(1, max(0, 1-len(leaves)))], leaves...) {
		d.Certificates = append(d.Certificates, certificate(l))
	}
	return d
}

// mutual asks clients for a certificate of the authority.
func (i identities) mutual(names ...api.SubjectAltName) *api.DownstreamTLS {
	d := i.down()
	d.RequireClientCertificate = true
	d.Validation = &api.TLSValidation{TrustedCA: i.ca.PEM, Names: names}
	return d
}

func (i identities) up() *api.UpstreamTLS {
	return &api.UpstreamTLS{SNI: "server.example", TLSContext: api.TLSContext{Params: params(tls.VersionTLS12, tls.VersionTLS13), Validation: &api.TLSValidation{TrustedCA: i.ca.PEM}}}
}

func (i identities) clientConfig(t *testing.T, leaves ...pki.Leaf) *tls.Config {
	c := &tls.Config{RootCAs: i.ca.Pool(), ServerName: "server.example"}
	for _, l := range leaves {
		c.Certificates = append(c.Certificates, l.TLS(t))
	}
	return c
}

func secured(l *api.Listener, d *api.DownstreamTLS) *api.Listener {
	l.FilterChains[0].TLS = d
	return l
}

// originates makes the world's cluster speak TLS to its hosts.
func (w *world) originates(name string, u *api.UpstreamTLS, changes ...func(*api.Cluster)) {
	c := *w.snap.Clusters.Get(name)
	c.Socket.TLS = u
	for _, f := range changes {
		f(&c)
	}
	w.snap.Clusters = w.snap.Clusters.With(&c)
}

func (w *world) serve(l ...*api.Listener) {
	w.t.Helper()
	if r := w.apply(l...); r.Refused != nil {
		w.t.Fatal(r.Refused)
	}
}

// dialTLS connects; the handshake is done by the first use.
func dialTLS(t *testing.T, addr string, c *tls.Config) *tls.Conn { return tls.Client(dial(t, addr), c) }

func exchange(c io.ReadWriter, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != text {
		return errors.New("got " + string(b))
	}
	return nil
}

// handler serves one connection of a host, and then closes it.
type handler func(net.Conn)

// host listens, with TLS if c is not nil.
func host(t *testing.T, c *tls.Config, h handler) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { ln.Close(); all.Wait() })
	all.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(20 * time.Second))
				if c == nil {
					h(conn)
					return
				}
				h(tls.Server(conn, c))
			})
		}
	})
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

func (i identities) hostConfig(t *testing.T) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{i.server.TLS(t)}}
}

// echoes sends back what comes, and ends when the client has.
func echoes(c net.Conn) {
	io.Copy(c, c)
	if t, ok := c.(*tls.Conn); ok {
		t.CloseWrite()
		return
	}
	c.(*net.TCPConn).CloseWrite()
}

// sides are the ways in which a pair may have TLS.
func sides() map[string][2]bool {
	return map[string][2]bool{"downstream": {true, false}, "upstream": {false, true}, "both": {true, true}}
}

// between builds client - sluice - host with TLS on these sides.
func (w *world) between(i identities, with [2]bool, h handler) (connect func() net.Conn) {
	w.t.Helper()
	var c *tls.Config
	if with[1] {
		c = i.hostConfig(w.t)
	}
	w.cluster("c", host(w.t, c, h))
	if with[1] {
		w.originates("c", i.up())
	}
	l := tcpListener("l", free(w.t), "c")
	if with[0] {
		secured(l, i.down())
	}
	w.serve(l)
	addr := l.Addresses[0].Addr.String()
	return func() net.Conn {
		c := dial(w.t, addr)
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if with[0] {
			return tls.Client(c, i.clientConfig(w.t))
		}
		return c
	}
}

func TestTLSCarriesBytesExactlyBothWays(t *testing.T) {
	for name, with := range sides() {
		t.Run(name, func(t *testing.T) {
			i, w := newIdentities(t), newWorldOf(t, "off")
			size := 8 << 20
			if with == [2]bool{true, true} {
				size = 64 << 20
			}
			send := func(seed uint64, to io.Writer) []byte {
				h, r, b := sha256.New(), rand.NewChaCha8([32]byte{byte(seed)}), make([]byte, 100_003)
				for left := size; left > 0; left -= len(b) {
					b = b[:min(len(b), left)]
					r.Read(b)
					h.Write(b)
					if _, err := to.Write(b); err != nil {
						t.Errorf("write: %v", err)
						break
					}
				}
				return h.Sum(nil)
			}
			var sent, got []byte
			done := make(chan struct{})
			connect := w.between(i, with, func(c net.Conn) {
				defer close(done)
				var both sync.WaitGroup
				both.Go(func() { sent = send(1, c); endWrite(c) })
				h := sha256.New()
				if _, err := io.Copy(h, c); err != nil {
					t.Errorf("host read: %v", err)
				}
				got = h.Sum(nil)
				both.Wait()
			})
			c := connect()
			var mine []byte
			var both sync.WaitGroup
			both.Go(func() { mine = send(2, c); endWrite(c) })
			h := sha256.New()
			n, err := io.Copy(h, c)
			both.Wait()
			<-done
			if err != nil || n != int64(size) || !bytes.Equal(h.Sum(nil), sent) || !bytes.Equal(got, mine) {
				t.Errorf("%d bytes, %v; equal %v, %v", n, err, bytes.Equal(h.Sum(nil), sent), bytes.Equal(got, mine))
			}
		})
	}
}

func endWrite(c net.Conn) error {
	if t, ok := c.(*tls.Conn); ok {
		return t.CloseWrite()
	}
	return c.(*net.TCPConn).CloseWrite()
}

func under(c net.Conn) *net.TCPConn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn().(*net.TCPConn)
	}
	return c.(*net.TCPConn)
}

func TestTLSKeepsHalfClosesApart(t *testing.T) {
	for name, with := range sides() {
		t.Run(name+", the client ends first", func(t *testing.T) {
			w := newWorldOf(t, "off")
			c := w.between(newIdentities(t), with, func(c net.Conn) {
				b, err := io.ReadAll(c)
				if err != nil {
					t.Errorf("host read %v", err)
				}
				io.WriteString(c, "after "+string(b))
				endWrite(c)
			})()
			io.WriteString(c, "the end")
			if err := endWrite(c); err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(c); string(b) != "after the end" || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
		})
		t.Run(name+", the host ends first", func(t *testing.T) {
			w := newWorldOf(t, "off")
			said := make(chan string, 1)
			c := w.between(newIdentities(t), with, func(c net.Conn) {
				io.WriteString(c, "banner")
				endWrite(c)
				b, err := io.ReadAll(c)
				if err != nil {
					t.Errorf("host read %v", err)
				}
				said <- string(b)
			})()
			if b, err := io.ReadAll(c); string(b) != "banner" || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
			io.WriteString(c, "last words")
			endWrite(c)
			if got := <-said; got != "last words" {
				t.Errorf("the host read %q", got)
			}
		})
	}
}

// As in Envoy a FIN without close_notify ends the stream, if it comes between two
// records; within one it cuts bytes off, and is a reset (Envoy hands on a FIN).
func TestTLSTruncation(t *testing.T) {
	for name, tt := range map[string]struct {
		cut  string
		want error
	}{"between records": {"", nil}, "within a record": {"\x17\x03\x03\x01\x00abc", syscall.ECONNRESET}} {
		t.Run(name, func(t *testing.T) {
			w := newWorldOf(t, "off")
			end := make(chan error, 1)
			c := w.between(newIdentities(t), [2]bool{true, false}, func(c net.Conn) {
				_, err := io.Copy(io.Discard, c)
				end <- err
			})()
			io.WriteString(c, "hello")
			io.WriteString(under(c), tt.cut)
			under(c).CloseWrite()
			if err := <-end; !errors.Is(err, tt.want) {
				t.Errorf("the host read %v, want %v", err, tt.want)
			}
		})
	}
}

func TestTLSHandsResetsOn(t *testing.T) {
	for name, with := range sides() {
		t.Run(name+", of the client", func(t *testing.T) {
			w := newWorldOf(t, "off")
			end := make(chan error, 1)
			c := w.between(newIdentities(t), with, func(c net.Conn) {
				b := make([]byte, 5)
				io.ReadFull(c, b)
				c.Write(b)
				_, err := io.Copy(io.Discard, c)
				end <- err
			})()
			if err := exchange(c, "hello"); err != nil {
				t.Fatal(err)
			}
			under(c).SetLinger(0)
			under(c).Close()
			if err := <-end; !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the host read %v, want a reset", err)
			}
		})
		t.Run(name+", of the host", func(t *testing.T) {
			w := newWorldOf(t, "off")
			c := w.between(newIdentities(t), with, func(c net.Conn) {
				b := make([]byte, 5)
				io.ReadFull(c, b)
				c.Write(b)
				under(c).SetLinger(0)
				under(c).Close()
			})()
			if err := exchange(c, "hello"); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the client read %v, want a reset", err)
			}
		})
	}
}

func TestTLSPathIsTold(t *testing.T) {
	w := newWorldOf(t, "off")
	c := w.between(newIdentities(t), [2]bool{true, false}, echoes)()
	if err := exchange(c, "hello"); err != nil {
		t.Fatal(err)
	}
	all := w.plane.Connections()
	if len(all) != 1 {
		t.Fatalf("%d connections", len(all))
	}
	for _, d := range []api.DirectionStatus{all[0].Request, all[0].Response} {
		if d.Path.String() != "relay/tls" || d.Reason != "TLS" || d.Bytes != 5 {
			t.Errorf("%+v", d)
		}
	}
}
