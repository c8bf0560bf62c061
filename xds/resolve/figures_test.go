package resolve

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/test/nameserver"
)

func TestQuestionsAreCounted(t *testing.T) {
	s := nameserver.Start(t, "127.0.0.1:0")
	s.Set("four.test", "1.0.0.4")
	s.Put("broken.test", nameserver.Record{Code: dns.RcodeServerFailure})
	silent, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	store := stats.New()
	f := NewFigures(store)
	good := f.New(api.Resolver{Servers: []netip.AddrPort{s.Addr}, NoSearch: true})
	slow := f.New(api.Resolver{Servers: []netip.AddrPort{silent.LocalAddr().(*net.UDPAddr).AddrPort()}, NoSearch: true, Timeout: time.Millisecond, Tries: 3})
	for _, step := range []struct {
		what   string
		lookup func() ([]Address, error)
		want   [4]uint64 // resolve_total, not_found, get_addr_failure, timeouts
	}{
		{"both families at once", func() ([]Address, error) { return good.Lookup(t.Context(), "four.test", api.DNSAll) }, [4]uint64{1}},
		{"an address needs no question", func() ([]Address, error) { return good.Lookup(t.Context(), "1.2.3.4", api.DNSAll) }, [4]uint64{1}},
		{"one family", func() ([]Address, error) { return good.Lookup(t.Context(), "four.test", api.DNSV4Only) }, [4]uint64{2}},
		{"none of the other", func() ([]Address, error) { return good.Lookup(t.Context(), "four.test", api.DNSAuto) }, [4]uint64{4, 1}},
		{"a refusal", func() ([]Address, error) { return good.Lookup(t.Context(), "broken.test", api.DNSV4Only) }, [4]uint64{5, 1, 1}},
		{"nobody answers, three times", func() ([]Address, error) { return slow.Lookup(context.Background(), "four.test", api.DNSV4Only) }, [4]uint64{6, 1, 1, 3}},
	} {
		step.lookup()
		for i, name := range []string{"resolve_total", "not_found", "get_addr_failure", "timeouts"} {
			if got, _ := store.Lookup("dns.cares." + name); got.Value != step.want[i] {
				t.Errorf("%s: %s is %d, want %d", step.what, name, got.Value, step.want[i])
			}
		}
	}
	if got, ok := store.Lookup("dns.cares.pending_resolutions"); !ok || got.Value != 0 {
		t.Errorf("%d are pending", got.Value)
	}
}
