package route

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
)

func inward(l *Listener) { l.Direction = api.Inbound }

func inwardCatches(l *Listener) { inward(l); catches(l) }

func inwardFilters(l *Listener) {
	inward(l)
	l.ListenerFilters = []api.ListenerFilter{{OriginalDst: &api.OriginalDst{}}}
}

func also(at string, compat bool, change func(*Listener)) func(*Listener) {
	return func(l *Listener) {
		change(l)
		a := netip.MustParseAddrPort(at)
		l.Addresses, l.Bound = append(l.Addresses, api.BindAddress{Addr: a, IPv4Compat: compat}), append(l.Bound, a)
	}
}

func inboundPolicy(t *testing.T, ports, exclude string) *InboundPolicy {
	t.Helper()
	p, err := ParseInboundPolicy(ports, exclude)
	if err != nil {
		t.Fatal(err)
	}
	return &p
}

// socketsOf gives every bound address a socket, numbered from n.
func socketsOf(ls []Listener, n int) map[netip.AddrPort]bpf.ListeningSocket {
	out := map[netip.AddrPort]bpf.ListeningSocket{}
	for i := range ls {
		for _, at := range ls[i].Bound {
			if at.IsValid() {
				out[at] = bpf.ListeningSocket{FD: n, Cookie: uint64(n)}
				n++
			}
		}
	}
	return out
}

// buildInbound builds for listeners by value.
func buildInbound(ls []Listener, sockets map[netip.AddrPort]bpf.ListeningSocket, p *InboundPolicy) *InboundTable {
	var out []*Listener
	for i := range ls {
		out = append(out, &ls[i])
	}
	return BuildInbound(1, out, sockets, p)
}

func TestWhatComesFromOutside(t *testing.T) {
	both := also("[::]:15006", false, inwardCatches)
	sidecar := []Listener{
		listener("own", "10.1.0.2:9000", nil),
		listener("own local", "127.0.0.1:9001", nil),
		listener("own wide", "0.0.0.0:9002", nil),
		listener("own6", "[::]:9003", func(l *Listener) { l.Addresses[0].IPv4Compat = true }),
		listener("service", "10.1.0.2:80", handed("web")),
		listener("virtualInbound", "0.0.0.0:15006", both),
	}
	only4 := []Listener{listener("in", "127.0.0.1:15006", inwardCatches)}
	tests := []struct {
		name           string
		listeners      []Listener
		ports, exclude string
		to             string
		want           string // listener and target, or why it passes
	}{
		{"any port", sidecar, "all", "", "10.1.0.2:80", "virtualInbound 0.0.0.0:15006"},
		{"IPv6", sidecar, "all", "", "[2001:db8::2]:80", "virtualInbound [::]:15006"},
		{"v4-mapped", sidecar, "all", "", "[::ffff:10.1.0.2]:80", "virtualInbound 0.0.0.0:15006"},
		{"link-local", sidecar, "all", "", "[fe80::1%eth0]:80", "virtualInbound [::]:15006"},
		{"excluded port", sidecar, "all", "22,80-90", "10.1.0.2:80", "inbound 0.0.0.0/0 port 80"},
		{"excluded port, IPv6", sidecar, "all", "22,80-90", "[2001:db8::2]:90", "inbound ::/0 port 90"},
		{"listed port", sidecar, "80,443", "", "10.1.0.2:443", "virtualInbound 0.0.0.0:15006"},
		{"port that is not listed", sidecar, "80,443", "", "10.1.0.2:81", "the port is not captured"},
		{"listed and excluded", sidecar, "80,443", "443", "10.1.0.2:443", "inbound 0.0.0.0/0 port 443"},
		{"the listener itself", sidecar, "all", "", "10.1.0.2:15006", "inbound 0.0.0.0/0 port 15006"},
		{"the listener itself, IPv6", sidecar, "all", "", "[2001:db8::2]:15006", "inbound ::/0 port 15006"},
		{"a socket of ours", sidecar, "all", "", "10.1.0.2:9000", "inbound 10.1.0.2/32 port 9000"},
		{"another address with the port of one", sidecar, "all", "", "10.1.0.3:9000", "virtualInbound 0.0.0.0:15006"},
		{"a socket of ours that is listed", sidecar, "9000", "", "10.1.0.2:9000", "inbound 10.1.0.2/32 port 9000"},
		{"the port of a loopback socket", sidecar, "all", "", "10.1.0.2:9001", "virtualInbound 0.0.0.0:15006"},
		{"a wide socket of ours", sidecar, "all", "", "10.1.0.3:9002", "inbound 0.0.0.0/0 port 9002"},
		{"the same port in the other family", sidecar, "all", "", "[2001:db8::2]:9002", "virtualInbound [::]:15006"},
		{"a socket of both families", sidecar, "all", "", "10.1.0.3:9003", "inbound 0.0.0.0/0 port 9003"},
		{"loopback", sidecar, "all", "", "127.0.0.1:80", "loopback addresses pass"},
		{"no socket of the family", only4, "all", "", "[2001:db8::2]:80", "the port is not captured"},
		{"one socket for both families", []Listener{listener("in", "[::]:15006", func(l *Listener) { inwardCatches(l); l.Addresses[0].IPv4Compat = true })}, "all", "", "10.1.0.2:80", "in [::]:15006"},
		{"the first address of the family", []Listener{listener("in", "127.0.0.1:1", also("10.1.0.2:2", false, inwardCatches))}, "all", "", "10.1.0.2:80", "in 127.0.0.1:1"},
		{"nobody takes it", nil, "all", "", "10.1.0.2:80", NoInboundListener},
		{"outbound does not take it", []Listener{listener("out", "0.0.0.0:15001", func(l *Listener) { catches(l); l.Direction = api.Outbound })}, "all", "", "10.1.0.2:80", NoInboundListener},
		{"an unspecified direction does not", []Listener{listener("l", "0.0.0.0:15001", catches)}, "all", "", "10.1.0.2:80", NoInboundListener},
		{"without a socket of its own", []Listener{listener("in", "0.0.0.0:15006", func(l *Listener) { handed("x")(l); inwardCatches(l) })}, "all", "", "10.1.0.2:80", NoInboundListener},
		{"an ordinary inbound listener does not", []Listener{listener("in", "0.0.0.0:80", inward)}, "all", "", "10.1.0.2:80", NoInboundListener},
		{"the filter is enough", []Listener{listener("in", "0.0.0.0:15006", inwardFilters)}, "all", "", "10.1.0.2:80", "in 0.0.0.0:15006"},
		{"use_original_dst comes first", []Listener{listener("a", "0.0.0.0:1", inwardFilters), listener("b", "0.0.0.0:2", inwardCatches), listener("c", "0.0.0.0:3", inwardCatches)}, "all", "", "10.1.0.2:80", "b 0.0.0.0:2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := buildInbound(tt.listeners, socketsOf(tt.listeners, 10), inboundPolicy(t, tt.ports, tt.exclude)).Find(netip.MustParseAddrPort(tt.to))
			got := d.Reason
			if d.Verdict == "capture" {
				got = d.Route.Listener + " " + d.Route.Target.String()
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// An address that got other sockets needs another table, though it reads alike.
func TestEqualInboundTablesHaveEqualSockets(t *testing.T) {
	ls := []Listener{listener("in", "0.0.0.0:15006", inwardCatches)}
	build := func(ports string, socket int) *InboundTable {
		return buildInbound(ls, socketsOf(ls, socket), inboundPolicy(t, ports, ""))
	}
	if !build("all", 1).Equal(build("all", 1)) {
		t.Error("the same is not equal")
	}
	if build("all", 1).Equal(build("80", 1)) || build("all", 1).Equal(build("all", 2)) {
		t.Error("another port, or socket, is equal")
	}
	reused := socketsOf(ls, 1)
	for at, s := range reused {
		s.Cookie = 99
		reused[at] = s
	}
	if build("all", 1).Equal(buildInbound(ls, reused, inboundPolicy(t, "all", ""))) {
		t.Error("another socket with the same descriptor is equal")
	}
}

func TestInboundPolicy(t *testing.T) {
	got, err := ParseInboundPolicy("80,443,8000-8002", "22")
	want := InboundPolicy{Ports: []uint16{80, 443, 8000, 8001, 8002}, ExcludePorts: []uint16{22}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for flags, want := range map[[2]string]string{
		{"http", ""}:      `read --capture-inbound-ports: "http" is no port`,
		{"listeners", ""}: `read --capture-inbound-ports: "listeners" is no port`,
		{",", ""}:         `read --capture-inbound-ports: ",": neither all nor a port`,
		{"9-8", ""}:       `"9-8" ends before it begins`,
		{"all", "0"}:      `read --capture-inbound-exclude-ports: "0" is no port`,
	} {
		if _, err := ParseInboundPolicy(flags[0], flags[1]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", flags, err, want)
		}
	}
}
