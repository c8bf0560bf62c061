package bpf

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/test/netns"
	"golang.org/x/sys/unix"
)

// stock is a grafted pair without a proxy around it: client and server, and the
// two sockets between them, which nobody reads.
type stock struct {
	*testing.T
	graft          *Graft
	in, clientNS   *netns.NS // of the proxy
	held           bool      // something stays grafted
	shift          uint16    // of the port that Join is told
	client, server *net.TCPConn
	down, up       *net.TCPConn // the proxy's
	pair           Grafted
}

// site is where client, proxy and server are.
type site struct {
	client, proxy, server *netns.NS
	front, behind         string // addresses to listen at
}

func loopbackSite(t *testing.T, v6 bool) site {
	ns := netns.ForTest(t)
	at := "127.0.0.1:0"
	if v6 {
		at = "[::1]:0"
	}
	return site{ns, ns, ns, at, at}
}

// vethSite is three namespaces in a row.
func vethSite(t *testing.T, v6, offload bool) site {
	s := site{client: netns.ForTest(t), proxy: netns.ForTest(t), server: netns.ForTest(t)}
	end := func(ns *netns.NS, name string, link, host int) netns.End {
		return netns.End{NS: ns, Name: name, Addrs: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.8.%d.%d/24", link, host)),
			netip.MustParsePrefix(fmt.Sprintf("fd08:%d::%d/64", link, host)),
		}}
	}
	for _, ends := range [][2]netns.End{
		{end(s.client, "c", 1, 1), end(s.proxy, "pc", 1, 2)},
		{end(s.proxy, "ps", 2, 1), end(s.server, "s", 2, 2)},
	} {
		if err := netns.Connect(ends[0], ends[1], 0); err != nil {
			t.Fatal(err)
		}
		for _, e := range ends {
			if err := e.Offload(offload); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.front, s.behind = "10.8.1.2:0", "10.8.2.2:0"
	if v6 {
		s.front, s.behind = "[fd08:1::2]:0", "[fd08:2::2]:0"
	}
	return s
}

// sidecarSite has the client in another namespace, and the server beside the proxy.
func sidecarSite(t *testing.T, v6 bool) site {
	s := vethSite(t, v6, true)
	s.server, s.behind = s.proxy, "10.8.2.1:0"
	if v6 {
		s.behind = "[fd08:2::1]:0"
	}
	return s
}

func newStock(t *testing.T, s site) *stock {
	t.Helper()
	k := &stock{T: t, in: s.proxy, clientNS: s.client}
	k.client, k.down = connect(t, s.client, s.proxy, s.front)
	k.up, k.server = connectSmall(t, s.proxy, s.server, s.behind, segment(k.down))
	k.must(s.proxy.Do(func() (err error) {
		k.graft, err = LoadGraft(1, nil)
		return err
	}))
	t.Cleanup(func() {
		if k.pair.Taken() {
			k.pair.End()
		}
		for _, c := range []*net.TCPConn{k.client, k.server, k.down, k.up} {
			c.SetLinger(0)
			c.Close()
		}
		if k.pair.Taken() {
			k.pair.Rest()
		}
		if err := k.graft.Close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

func (k *stock) must(err error) {
	k.Helper()
	if err != nil {
		k.Fatal(err)
	}
}

// segment is what the other connection's segments are bounded by.
func segment(c *net.TCPConn) (n int) {
	raw, _ := c.SyscallConn()
	raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil && info.Advmss < 32768 {
			n = int(info.Advmss)
		}
	})
	return n
}

func connect(t *testing.T, from, to *netns.NS, at string) (dialed, accepted *net.TCPConn) {
	t.Helper()
	return connectSmall(t, from, to, at, 0)
}

// connectSmall bounds the segments (TCP_MAXSEG) unless segment is 0.
func connectSmall(t *testing.T, from, to *netns.NS, at string, segment int) (dialed, accepted *net.TCPConn) {
	t.Helper()
	ln, err := to.Listen(t.Context(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var c net.Conn
	if err := from.Do(func() (err error) {
		d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
			if segment == 0 {
				return nil
			}
			return raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, segment) })
		}}
		c, err = d.Dial("tcp", ln.Addr().String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []net.Conn{c, a} {
		x.SetDeadline(time.Now().Add(20 * time.Second))
		x.(*net.TCPConn).SetKeepAlive(false)
	}
	return c.(*net.TCPConn), a.(*net.TCPConn)
}

func ends(c *net.TCPConn) Ends {
	return Ends{c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()}
}

// join grafts the pair; its error is Join's.
func (k *stock) join() (err error) {
	k.pair, err = k.attempt()
	return err
}

func (k *stock) attempt() (p Grafted, err error) {
	k.Helper()
	up := ends(k.up)
	up.Remote = netip.AddrPortFrom(up.Remote.Addr(), up.Remote.Port()+k.shift)
	err = k.in.Do(func() (err error) {
		p, err = k.graft.Join(0, ends(k.down), up)
		return err
	})
	return p, err
}

// activate waits for the grace period and freezes the pair.
func (k *stock) activate() {
	k.Helper()
	k.await("the grace period", k.pair.Settled)
	if !k.pair.Activate() {
		k.Fatalf("a pair that drains would not freeze: state %d", k.pair.State())
	}
}

func (k *stock) await(what string, f func() bool) {
	k.Helper()
	for deadline := time.Now().Add(5 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			c, _ := k.graft.Counters()
			k.Fatalf("%s never came; %v", what, c)
		}
	}
}

// relay moves one message by hand, as the proxy does before the graft.
func (k *stock) relay(from, in, out, to *net.TCPConn, text string) {
	k.Helper()
	send(k.T, from, text)
	receive(k.T, in, text)
	send(k.T, out, text)
	receive(k.T, to, text)
}

func send(t *testing.T, c *net.TCPConn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c *net.TCPConn, text string) {
	t.Helper()
	b := make([]byte, len(text))
	if n, err := io.ReadFull(c, b); err != nil || string(b) != text {
		t.Fatalf("read %q, %v, want %q", b[:n], err, text)
	}
}

func (k *stock) counters() map[string]uint64 {
	k.Helper()
	c, err := k.graft.Counters()
	k.must(err)
	return c
}

// exchange sends a message each way, which only the programs can carry.
func (k *stock) exchange(text string) {
	k.Helper()
	send(k.T, k.client, text)
	receive(k.T, k.server, text)
	send(k.T, k.server, text)
	receive(k.T, k.client, text)
}

// sites are where a graft has to do its work.
var sites = map[string]func(*testing.T) site{
	"loopback v4":          func(t *testing.T) site { return loopbackSite(t, false) },
	"loopback v6":          func(t *testing.T) site { return loopbackSite(t, true) },
	"veth v4":              func(t *testing.T) site { return vethSite(t, false, true) },
	"veth v6":              func(t *testing.T) site { return vethSite(t, true, true) },
	"veth v4, no offloads": func(t *testing.T) site { return vethSite(t, false, false) },
	"veth v6, no offloads": func(t *testing.T) site { return vethSite(t, true, false) },
	"sidecar v4":           func(t *testing.T) site { return sidecarSite(t, false) },
	"sidecar v6":           func(t *testing.T) site { return sidecarSite(t, true) },
	"sidecar v4, server at 127.0.0.1": func(t *testing.T) site {
		s := sidecarSite(t, false)
		s.behind = "127.0.0.1:0"
		return s
	},
	"sidecar v4, strict reverse paths": func(t *testing.T) site {
		s := sidecarSite(t, false)
		for _, device := range []string{"all", "lo", "pc", "ps"} {
			if err := s.proxy.Do(func() error {
				return os.WriteFile("/proc/sys/net/ipv4/conf/"+device+"/rp_filter", []byte("1"), 0)
			}); err != nil {
				t.Fatal(err)
			}
		}
		return s
	},
}

func TestGraftedPairNeedsNoProxy(t *testing.T) {
	for name, at := range sites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newStock(t, at(t))
			k.relay(k.client, k.down, k.up, k.server, "hello")
			k.relay(k.server, k.up, k.down, k.client, "and back again")
			before := k.counters()
			k.must(k.join())
			k.exchange("while it drains")
			k.activate()
			for range 100 {
				k.exchange("ping")
			}
			k.must(k.client.CloseWrite())
			if n, err := k.server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("server: %d, %v", n, err)
			}
			send(t, k.server, "after the other's end")
			receive(t, k.client, "after the other's end")
			k.must(k.server.CloseWrite())
			if n, err := k.client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("client: %d, %v", n, err)
			}
			k.await("the end", func() bool { return k.pair.State() == GraftClosed })
			if got, want := k.pair.Bytes(0), uint64(len("while it drains")+400); got != want {
				t.Errorf("%d request bytes, want %d", got, want)
			}
			site, _, _ := strings.Cut(name, " ")
			for _, way := range waysOf[site] {
				k.expect(before, map[string]uint64{way: 100})
			}
		})
	}
}

// waysOf are the ends that translated packets come to, by the kind of site.
var waysOf = map[string][]string{
	"loopback": {"passage.local"},
	"veth":     {"passage.neighbour", "passage.marked"},
	"sidecar":  {"passage.loopback", "passage.neighbour", "passage.marked"},
}

// endSites are those whose packets come to their ends by different ways.
var endSites = []string{"loopback v4", "veth v6", "sidecar v4", "sidecar v6", "sidecar v4, server at 127.0.0.1"}

// An end that closed first is remembered without a socket (FIN_WAIT2 and TIME_WAIT
// of nobody), and has to answer all the same.
func TestEndWithoutASocketAnswers(t *testing.T) {
	for _, name := range endSites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newStock(t, sites[name](t))
			k.must(k.join())
			k.exchange("ping")
			k.activate()
			k.must(k.server.Close())
			if n, err := k.client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("client: %d, %v", n, err)
			}
			// With that the socket is gone.
			k.await("the acknowledgement of its end", func() bool { _, acknowledged := k.pair.Finished(1); return acknowledged })
			k.must(k.client.CloseWrite())
			k.await("the end", func() bool { return k.pair.State() == GraftClosed })
		})
	}
}

// The proxy's socket may send a byte again whose receiver has gone, for the graft's
// two ends have finished with each other: it is no reset of anything.
func TestResetAfterBothEndsIsAnAcknowledgement(t *testing.T) {
	for _, name := range endSites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newStock(t, sites[name](t))
			k.must(k.join())
			k.exchange("ping")
			k.must(k.client.CloseWrite())
			if n, err := k.server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("server: %d, %v", n, err)
			}
			k.must(k.server.Close())
			if n, err := k.client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("client: %d, %v", n, err)
			}
			k.await("both acknowledgements", func() bool {
				_, request := k.pair.Finished(0)
				_, response := k.pair.Finished(1)
				return request && response
			})
			send(t, k.up, "again")
			k.await("the acknowledgement", func() bool {
				q := 1
				fd(k.up, func(fd int) { q, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQ) })
				return q == 0
			})
			send(t, k.up, "it has not failed")
		})
	}
}
