package resolve

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/test/nameserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shown are addresses with their TTLs, and an error's end.
func shown(all []Address, err error) string {
	var out []string
	for _, a := range all {
		s := a.Addr.String()
		if a.TTL > 0 {
			s += "/" + a.TTL.String()
		}
		out = append(out, s)
	}
	if err != nil {
		out = append(out, err.Error()[strings.LastIndex(err.Error(), ": ")+2:])
	}
	return strings.Join(out, " ")
}

func TestFamiliesOfServers(t *testing.T) {
	s := nameserver.Start(t, "127.0.0.1:0")
	r := New(api.Resolver{Servers: []netip.AddrPort{s.Addr}, NoSearch: true})
	s.Put("both.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("1.0.0.2"), netip.MustParseAddr("1.0.0.1"), netip.MustParseAddr("1.0.0.2"), netip.MustParseAddr("::2")}, TTL: 7})
	s.Set("four.test", "1.0.0.4")
	s.Set("six.test", "::6")
	s.Set("none.test")
	s.Put("broken.test", nameserver.Record{Code: dns.RcodeServerFailure})
	for name, want := range map[string][5]string{ // AUTO, V4_ONLY, V6_ONLY, V4_PREFERRED, ALL
		"both.test":      {"::2/7s", "1.0.0.2/7s 1.0.0.1/7s", "::2/7s", "1.0.0.2/7s 1.0.0.1/7s", "1.0.0.2/7s 1.0.0.1/7s ::2/7s"},
		"four.test":      {"1.0.0.4", "1.0.0.4", "", "1.0.0.4", "1.0.0.4"},
		"six.test":       {"::6", "", "::6", "::6", "::6"},
		"none.test":      {},
		"unknown.test":   {},
		"broken.test":    {"SERVFAIL", "SERVFAIL", "SERVFAIL", "SERVFAIL", "SERVFAIL"},
		"localhost":      {"::1", "127.0.0.1", "::1", "127.0.0.1", "127.0.0.1 ::1"},
		"a.localhost.":   {"::1", "127.0.0.1", "::1", "127.0.0.1", "127.0.0.1 ::1"},
		"1.2.3.4":        {"1.2.3.4", "1.2.3.4", "", "1.2.3.4", "1.2.3.4"},
		"fe80::1":        {"fe80::1", "", "fe80::1", "fe80::1", "fe80::1"},
		"::ffff:1.2.3.4": {"1.2.3.4", "1.2.3.4", "", "1.2.3.4", "1.2.3.4"},
	} {
		for f := range want {
			if got := shown(r.Lookup(t.Context(), name, api.DNSFamily(f))); got != want[f] {
				t.Errorf("%s %s: %q, want %q", name, api.DNSFamily(f), got, want[f])
			}
		}
	}
}

func TestHostsComeBeforeServers(t *testing.T) {
	s := nameserver.Start(t, "127.0.0.1:0")
	s.Set("web.test", "9.9.9.9")
	r := newServers(api.Resolver{Servers: []netip.AddrPort{s.Addr}, NoSearch: true})
	r.hosts = filepath.Join(t.TempDir(), "hosts")
	write(t, r.hosts, "# comment\n10.0.0.1 a Web.test # b\n10.0.0.2\tweb.test\nfd00::1 web.test\nrubbish web.test\n10.0.0.3 b # web.test\n")
	for f, want := range map[api.DNSFamily]string{api.DNSV4Only: "10.0.0.1 10.0.0.2", api.DNSV6Only: "fd00::1"} {
		if got := shown(byFamily{ask: r.addresses}.Lookup(t.Context(), "web.test.", f)); got != want {
			t.Errorf("%s: %q, want %q", f, got, want)
		}
	}
	if n := s.Asked("web.test"); n != 0 {
		t.Errorf("the server was asked %d times", n)
	}
	write(t, r.hosts, "")
	if got := shown(byFamily{ask: r.addresses}.Lookup(t.Context(), "web.test", api.DNSV4Only)); got != "9.9.9.9" {
		t.Errorf("by the server: %q", got)
	}
}

func TestSearchListAndServersOfTheSystem(t *testing.T) {
	s, other := nameserver.Start(t, "127.0.0.1:0"), nameserver.Start(t, "127.0.0.2:0")
	s.Set("web.one.test", "1.1.1.1")
	other.Set("web.two.test", "2.2.2.2")
	r := newServers(api.Resolver{Servers: []netip.AddrPort{s.Addr}})
	r.conf, r.hosts = filepath.Join(t.TempDir(), "resolv.conf"), ""
	write(t, r.conf, "search zero.test one.test\nnameserver 127.0.0.2\n")
	look := func() string { return shown(r.addresses(t.Context(), "web", false)) }
	if got := look(); got != "1.1.1.1" || s.Asked("web.zero.test") != 1 {
		t.Errorf("by the search list: %q", got)
	}
	r.NoSearch = true
	if got := look(); got != "" {
		t.Errorf("without the search list: %q", got)
	}
	r.NoSearch, r.Fallback = false, true
	if got := r.order(&dns.ClientConfig{Servers: []string{"127.0.0.2"}, Port: "53"}); fmt.Sprint(got) != "[127.0.0.2:53]" {
		t.Errorf("own servers are the fallback, and %v are asked", got)
	}
	if got := r.order(&dns.ClientConfig{}); fmt.Sprint(got) != fmt.Sprint([]string{s.Addr.String()}) {
		t.Errorf("there are no others, and %v are asked", got)
	}
	r.Servers, r.Rotate = []netip.AddrPort{s.Addr, other.Addr}, true
	if a, b := r.order(&dns.ClientConfig{}), r.order(&dns.ClientConfig{}); a[0] == b[0] || len(a) != 2 {
		t.Errorf("rotated: %v, %v", a, b)
	}
}

func TestTheNextServerIsAskedAndTCPWhereUDPDoesNotFit(t *testing.T) {
	silent, broken, good := nameserver.Start(t, "127.0.0.1:0"), nameserver.Start(t, "127.0.0.1:0"), nameserver.Start(t, "127.0.0.1:0")
	silent.Put("web.test", nameserver.Record{Silent: true})
	broken.Put("web.test", nameserver.Record{Code: dns.RcodeRefused})
	good.Put("web.test", nameserver.Record{Addrs: []netip.Addr{netip.MustParseAddr("1.0.0.1")}, Cut: true})
	r := newServers(api.Resolver{Servers: []netip.AddrPort{silent.Addr, broken.Addr, good.Addr}, NoSearch: true, Timeout: 20 * time.Millisecond})
	r.hosts = ""
	if got := shown(r.addresses(t.Context(), "web.test", false)); got != "1.0.0.1" || good.Asked("web.test") != 2 {
		t.Errorf("%q after %d questions", got, good.Asked("web.test"))
	}
	r.TCP = true
	if got := shown(r.addresses(t.Context(), "web.test", false)); got != "1.0.0.1" || good.Asked("web.test") != 3 {
		t.Errorf("by TCP: %q after %d questions", got, good.Asked("web.test"))
	}
	r.TCP, r.Tries, r.Servers = false, 2, r.Servers[:1]
	if got := shown(r.addresses(t.Context(), "web.test", false)); !strings.HasSuffix(got, "i/o timeout") || silent.Asked("web.test") != 4 {
		t.Errorf("of a silent server: %q after %d questions", got, silent.Asked("web.test"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.addresses(ctx, "web.test", false); err == nil {
		t.Error("asked although nobody wants to know")
	}
}

func TestSystem(t *testing.T) {
	r := New(api.Resolver{System: true})
	if got := shown(r.Lookup(t.Context(), "localhost", api.DNSV4Only)); got != "127.0.0.1/1m0s" {
		t.Errorf("localhost is %q", got)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
