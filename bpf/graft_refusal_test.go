package bpf

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/sluice-proxy/sluice/test/netns"
	"golang.org/x/sys/unix"
)

func TestJoinRefusesWhatCannotBeTranslated(t *testing.T) {
	sysctl := func(t *testing.T, name, value string, of ...*netns.NS) {
		t.Helper()
		for _, ns := range of {
			if err := ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	option := func(level, name, value int) func(*stock) {
		return func(k *stock) {
			fd(k.down, func(fd int) {
				if err := unix.SetsockoptInt(fd, level, name, value); err != nil {
					k.Error(err)
				}
			})
		}
	}
	for _, c := range []struct {
		why   joinRefusal
		later bool
		// before the connections are opened, and after
		site  func(*testing.T, site) site
		stock func(*stock)
	}{
		{why: joinRefusalREFUSAL_TIMESTAMPS, site: func(t *testing.T, s site) site { sysctl(t, "tcp_timestamps", "0", s.client); return s }},
		{why: joinRefusalREFUSAL_SACK, site: func(t *testing.T, s site) site { sysctl(t, "tcp_sack", "0", s.server); return s }},
		{why: joinRefusalREFUSAL_ECN, site: func(t *testing.T, s site) site { sysctl(t, "tcp_ecn", "1", s.client, s.proxy, s.server); return s }},
		{why: joinRefusalREFUSAL_LOCAL, site: func(t *testing.T, s site) site {
			mustIP(t, s.proxy, "route", "add", "local", "10.99.0.0/16", "dev", "lo") // any of them, and none at a device
			s.server, s.behind = s.proxy, "10.99.0.1:0"
			return s
		}},
		{why: joinRefusalREFUSAL_MSS, site: func(t *testing.T, s site) site {
			mustIP(t, s.server, "link", "set", "s", "mtu", "1400")
			return s
		}},
		{why: joinRefusalREFUSAL_MTU, stock: func(k *stock) {
			mustIP(k.T, k.in, "route", "replace", "10.8.2.0/24", "dev", "ps", "src", "10.8.2.1", "mtu", "lock", "1300")
			for range 2 { // the first finds the route, the second its MTU
				send(k.T, k.up, "so that the socket learns of it")
				receive(k.T, k.server, "so that the socket learns of it")
			}
		}},
		{why: joinRefusalREFUSAL_STATE, stock: func(k *stock) { k.client.CloseWrite(); k.down.Read(make([]byte, 1)) }},
		{why: joinRefusalREFUSAL_REPAIR, stock: option(unix.IPPROTO_TCP, unix.TCP_REPAIR, 1)},
		{why: joinRefusalREFUSAL_BOUND, site: func(t *testing.T, _ site) site { return loopbackSite(t, false) }, stock: option(unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, loopback)},
		{why: joinRefusalREFUSAL_URGENT, stock: func(k *stock) {
			fd(k.client, func(fd int) {
				if err := unix.Sendto(fd, []byte("!"), unix.MSG_OOB, nil); err != nil {
					k.Error(err)
				}
			})
			k.await("urgent data", func() (at bool) {
				fd(k.down, func(fd int) {
					p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
					n, _ := unix.Poll(p, 0)
					at = n == 1
				})
				return at
			})
		}},
		{why: joinRefusalREFUSAL_OUT_OF_ORDER, later: true, stock: func(k *stock) {
			seq, ack := positions(k.T, k.client)
			k.raw(k.clientNS, k.client, segmentOf(ends(k.client), seq+10, ack, 0x18, 5, []byte("behind a gap")), 0)
			k.await("the segment", func() (there bool) {
				fd(k.down, func(fd int) {
					info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
					there = err == nil && info.Rcv_ooopack > 0
				})
				return there
			})
		}},
		{why: joinRefusalREFUSAL_NO_SOCKET, stock: func(k *stock) { k.shift = 1 }},
		{why: joinRefusalREFUSAL_TAKEN, later: true, stock: func(k *stock) {
			k.must(k.join())
			k.Cleanup(func() { // the first one is to be given back too
				k.pair.End()
				k.pair.Rest()
			})
			k.held = true
		}},
	} {
		name := refusalNames[c.why]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := vethSite(t, false, true)
			if c.site != nil {
				s = c.site(t, s)
			}
			k := newStock(t, s)
			if c.stock != nil {
				c.stock(k)
			}
			before := k.counters()
			_, err := k.attempt()
			var got Refusal
			if !errors.As(err, &got) || got != Refusal(c.why) || got.Later() != c.later || got.Error() == "" {
				t.Fatalf("join: %v, later %v", err, got.Later())
			}
			k.expect(before, map[string]uint64{"refusal." + name: 1})
			if places, used, _ := k.graft.Sizes(); used != 0 && !k.held || places != 0 && !k.held {
				t.Errorf("%d addresses and %d grafts are left over", places, used)
			}
		})
	}
	// Not provoked: request (user space would have to be wrong), time_unit (a route
	// with tcp_usec_ts), signed, mptcp, no_route, asymmetric, xfrm and
	// ulp (this kernel has no ESP and no TLS). device: the first pair
	// of each device, above. no_ethernet: test/torture's middleboxes were such.
}

func TestJoinRefusesTwoFamilies(t *testing.T) {
	four := Ends{Local: netip.MustParseAddrPort("127.0.0.1:1"), Remote: netip.MustParseAddrPort("127.0.0.1:2")}
	six := Ends{Local: netip.MustParseAddrPort("[::1]:1"), Remote: netip.MustParseAddrPort("[::1]:2")}
	if _, err := new(Graft).Join(0, four, six); !errors.Is(err, refusalFamilies) {
		t.Errorf("join: %v", err)
	}
}

func TestEveryRefusalHasWords(t *testing.T) {
	for i := joinRefusalREFUSAL_NONE + 1; i < joinRefusalREFUSAL_MAX; i++ {
		if refusals[i] == "" || refusalNames[i] == "" {
			t.Errorf("refusal %d has no words", i)
		}
	}
	for i, name := range passageNames {
		if name == "" {
			t.Errorf("passage %d has no name", i)
		}
	}
}

func mustIP(t *testing.T, ns *netns.NS, args ...string) {
	t.Helper()
	if err := ns.IP(args...); err != nil {
		t.Fatal(err)
	}
}

// positions are snd_nxt and rcv_nxt, by TCP_REPAIR.
func positions(t *testing.T, c *net.TCPConn) (sent, received uint32) {
	t.Helper()
	fd(c, func(fd int) {
		set := func(name, value int) {
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, name, value); err != nil {
				t.Error(err)
			}
		}
		set(unix.TCP_REPAIR, 1)
		for queue, into := range map[int]*uint32{1: &received, 2: &sent} {
			set(unix.TCP_REPAIR_QUEUE, queue)
			v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
			if err != nil {
				t.Error(err)
			}
			*into = uint32(v)
		}
		set(unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP)
	})
	return sent, received
}
