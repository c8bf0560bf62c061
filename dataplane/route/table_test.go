package route

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/sluice-proxy/sluice/api"
)

func TestMain(m *testing.M) {
	if args := os.Getenv(clientEnv); args != "" {
		clientMain(args)
		return
	}
	goleak.VerifyTestMain(m)
}

func listener(name, at string, change func(*Listener)) Listener {
	a := netip.MustParseAddrPort(at)
	l := Listener{Listener: &api.Listener{Name: name, Addresses: []api.BindAddress{{Addr: a}}}, Bound: []netip.AddrPort{a}}
	if change != nil {
		change(&l)
	}
	return l
}

func catches(l *Listener) { l.UseOriginalDst = true }

func handed(cluster string) func(*Listener) {
	return func(l *Listener) {
		l.HandedOnly, l.Bound = true, make([]netip.AddrPort, 1)
		l.FilterChains = []*api.FilterChain{{Filters: []api.Filter{{TCPProxy: &api.TCPProxy{Cluster: cluster}}}}}
	}
}

func policy(t *testing.T, ports, excludePorts, exclude string) *Policy {
	t.Helper()
	p, err := ParsePolicy(ports, excludePorts, exclude)
	if err != nil {
		t.Fatal(err)
	}
	return &p
}

func TestDestinations(t *testing.T) {
	both := func(l *Listener) {
		catches(l)
		l.Addresses = append(l.Addresses, api.BindAddress{Addr: netip.MustParseAddrPort("[::]:15001")})
		l.Bound = append(l.Bound, netip.MustParseAddrPort("[::]:15001"))
	}
	sidecar := []Listener{
		listener("all", "0.0.0.0:15001", both),
		listener("bound", "10.0.0.9:80", nil),
		listener("db", "10.0.0.1:5432", handed("db")),
		listener("web", "0.0.0.0:80", handed("web")),
		listener("web6", "[::]:80", handed("web6")),
	}
	only4 := []Listener{listener("all", "0.0.0.0:15001", catches)}
	tests := []struct {
		name                         string
		listeners                    []Listener
		ports, excludePorts, exclude string
		to                           string
		want                         string // listener, target and cluster, or why it passes
	}{
		{"exact address", sidecar, "all", "", "", "10.0.0.1:5432", "db 127.0.0.1:15001 db"},
		{"another port of it", sidecar, "all", "", "", "10.0.0.1:5433", "all 127.0.0.1:15001 "},
		{"IPv4 wildcard", sidecar, "all", "", "", "10.0.0.1:80", "web 127.0.0.1:15001 web"},
		{"IPv6 wildcard", sidecar, "all", "", "", "[2001:db8::1]:80", "web6 [::1]:15001 web6"},
		{"v4-mapped", sidecar, "all", "", "", "[::ffff:10.0.0.1]:5432", "db 127.0.0.1:15001 db"},
		{"a bound listener's address has no route of its own", sidecar, "listeners", "", "", "10.0.0.9:81", "no route"},
		{"anything", sidecar, "all", "", "", "[2001:db8::1]:9", "all [::1]:15001 "},
		{"loopback", sidecar, "all", "", "", "127.0.0.1:80", "127.0.0.0/8 is excluded"},
		{"IPv6 loopback", sidecar, "all", "", "", "[::1]:80", "::1/128 is excluded"},
		{"multicast", sidecar, "all", "", "", "239.1.2.3:80", "224.0.0.0/4 is excluded"},
		{"link-local", sidecar, "all", "", "", "[fe80::1]:80", "fe80::/10 is excluded"},
		{"excluded prefix beats a listener", sidecar, "all", "", "10.0.0.0/8", "10.0.0.1:5432", "10.0.0.0/8 is excluded"},
		{"excluded address", sidecar, "all", "", "10.0.0.1", "10.0.0.1:5432", "10.0.0.1/32 is excluded"},
		{"excluded port beats a listener", sidecar, "all", "5000-5432", "", "10.0.0.1:5432", "route 0.0.0.0/0 port 5432"},
		{"listed port", sidecar, "80,443", "", "", "10.0.0.1:443", "all 127.0.0.1:15001 "},
		{"listed port with a listener", sidecar, "80,443", "", "", "10.0.0.1:80", "web 127.0.0.1:15001 web"},
		{"a listener of a port that is not listed", sidecar, "80,443", "", "", "10.0.0.1:5432", "no route"},
		{"listeners only: theirs", sidecar, "listeners", "", "", "10.0.0.1:5432", "db 127.0.0.1:15001 db"},
		{"listeners only: no other", sidecar, "listeners", "", "", "10.0.0.2:5432", "no route"},
		{"no socket of the family", only4, "all", "", "", "[2001:db8::1]:80", "no route"},
		{"nobody takes it", []Listener{listener("db", "10.0.0.1:5432", handed("db"))}, "all", "", "", "10.0.0.1:5432", NoListener},
		{"inbound does not take it", []Listener{listener("in", "0.0.0.0:15006", func(l *Listener) { catches(l); l.Direction = api.Inbound })}, "all", "", "", "10.0.0.1:1", NoListener},
		{"the outbound one takes it", []Listener{listener("a", "127.0.0.1:1", catches), listener("b", "127.0.0.1:2", func(l *Listener) { catches(l); l.Direction = api.Outbound })}, "all", "", "", "10.0.0.1:1", "b 127.0.0.1:2 "},
		{"an IPv6 socket that takes IPv4", []Listener{listener("all", "[::]:15001", func(l *Listener) { catches(l); l.Addresses[0].IPv4Compat = true })}, "all", "", "", "10.0.0.1:1", "all 127.0.0.1:15001 "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := NewWanted(policy(t, tt.ports, tt.excludePorts, tt.exclude))
			for i := range tt.listeners {
				w.Set(&tt.listeners[i])
			}
			d := w.Build(1).Find(netip.MustParseAddrPort(tt.to))
			got := d.Reason
			if d.Verdict == "capture" {
				got = d.Route.Listener + " " + d.Route.Target.String() + " " + d.Route.Cluster
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestPolicy(t *testing.T) {
	got, err := ParsePolicy("80,443,8000-8002", "22", "10.0.0.1/8, ::1")
	want := Policy{Ports: []uint16{80, 443, 8000, 8001, 8002}, ExcludePorts: []uint16{22}, Exclude: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for flags, want := range map[[3]string]string{
		{"http", "", ""}: `read --capture-ports: "http" is no port`, {"0", "", ""}: `"0" is no port`, {"70000", "", ""}: `"70000" is no port`,
		{"9-8", "", ""}: "ends before it begins", {"all", "x", ""}: "read --capture-exclude-ports:", {"all", "", "fe80::1%eth0"}: "neither a prefix nor an address",
		{"all", "", "::ffff:10.0.0.0/104"}: "write it as IPv4",
	} {
		if _, err := ParsePolicy(flags[0], flags[1], flags[2]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", flags, err, want)
		}
	}
}
