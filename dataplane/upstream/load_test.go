package upstream

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
)

func TestLoadIsTakenByLocality(t *testing.T) {
	at := func(zone string, priority uint32, hosts ...string) api.Locality {
		l := api.Locality{Zone: zone, Priority: priority}
		for _, h := range hosts {
			l.Endpoints = append(l.Endpoints, api.Endpoint{Addr: netip.MustParseAddrPort(h), Weight: 1})
		}
		return l
	}
	c := cluster(100, 100)
	c.ServiceName = "s"
	c.Assignment.Localities = []api.Locality{at("z", 1, "10.0.0.9:1"), at("b", 0, "10.0.0.1:1", "10.0.0.2:1"), at("home", 0, "10.0.0.3:1"), at("a", 0, "10.0.0.4:1"), at("none", 0, "10.0.0.5:1")}
	u := NewNear(c, stats.New(), Watch{}, Near{Home: api.Place{Zone: "home"}}, nil)
	defer u.Close()
	open := map[string]*Connection{}
	for _, h := range u.Hosts() {
		if h.Place().Zone == "none" {
			continue
		}
		p, err := Choice{Host: h, view: u.view.Load()}.Open()
		if err != nil {
			t.Fatal(err)
		}
		p.Connected(time.Millisecond)
		open[h.Address()] = &p.Connection
	}
	open["10.0.0.1:1"].Ended(time.Second, true)
	host := func(addr string, begun, open uint64) api.HostLoad {
		return api.HostLoad{Addr: netip.MustParseAddrPort(addr), Load: api.Load{Begun: begun, Open: open}}
	}
	zone := func(zone string, priority uint32, l api.Load, hosts ...api.HostLoad) api.LocalityLoad {
		return api.LocalityLoad{Place: api.Place{Zone: zone}, Priority: priority, Load: l, Hosts: hosts}
	}
	same := func(when string, want ...api.LocalityLoad) {
		t.Helper()
		if d := cmp.Diff(api.ClusterLoad{ServiceName: "s", Localities: want}, u.TakeLoad(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
			t.Errorf("%s (-want +got):\n%s", when, d)
		}
	}
	same("at first",
		zone("home", 0, api.Load{Begun: 1, Open: 1}, host("10.0.0.3:1", 1, 1)),
		zone("a", 0, api.Load{Begun: 1, Open: 1}, host("10.0.0.4:1", 1, 1)),
		zone("b", 0, api.Load{Begun: 2, Open: 1}, host("10.0.0.1:1", 1, 0), host("10.0.0.2:1", 1, 1)),
		zone("z", 1, api.Load{Begun: 1, Open: 1}, host("10.0.0.9:1", 1, 1)))
	for _, addr := range []string{"10.0.0.3:1", "10.0.0.4:1", "10.0.0.9:1"} {
		open[addr].Ended(time.Second, true)
	}
	same("what goes on is told again", zone("b", 0, api.Load{Open: 1}, host("10.0.0.2:1", 0, 1)))
	open["10.0.0.2:1"].Ended(time.Second, true)
	same("nothing is left")
}
