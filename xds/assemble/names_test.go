package assemble

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
)

// dnsCluster has one locality per list of names.
func dnsCluster(d api.DNS, lists ...string) Resource[api.Cluster] {
	v := &api.Cluster{Name: "c", Discovery: api.StrictDNS, DNS: &d, Assignment: &api.Assignment{}}
	for i, l := range lists {
		loc := api.Locality{Priority: uint32(i)}
		for _, name := range strings.Fields(l) {
			loc.Endpoints = append(loc.Endpoints, api.Endpoint{Name: name, Hostname: name, Addr: netip.AddrPortFrom(netip.Addr{}, 80), Weight: 1})
		}
		v.Assignment.Localities = append(v.Assignment.Localities, loc)
	}
	return Resource[api.Cluster]{Name: "c", Version: "1", Raw: &anypb.Any{Value: []byte(time.Now().String())}, Value: v}
}

func addrs(list string) []netip.Addr {
	var out []netip.Addr
	for _, a := range strings.Fields(list) {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// published are the hosts of c in the next snapshot; "none" if there is none.
func published(m *Model) string {
	s := m.Snapshot()
	if s == nil {
		return "none"
	}
	m.Commit(nil, time.Now())
	c := s.Clusters.Get("c")
	if c == nil {
		return "no cluster"
	}
	var out []string
	for _, l := range c.Assignment.Localities {
		for _, e := range l.Endpoints {
			h := e.Hostname + "=" + e.Addr.String()
			for _, a := range e.Additional {
				h += "+" + a.String()
			}
			if e.Name != "" {
				h += " still a name"
			}
			out = append(out, h)
		}
	}
	return strings.Join(out, " ")
}

func TestNames(t *testing.T) {
	m := New()
	update := func(r Resource[api.Cluster]) *api.Cluster {
		m.UpdateClusters(Update[api.Cluster]{Resources: []Resource[api.Cluster]{r}})
		return r.Value
	}
	want := func(what, hosts string) {
		t.Helper()
		if got := published(m); got != hosts {
			t.Errorf("%s: %s, want %s", what, got, hosts)
		}
	}
	v := update(dnsCluster(api.DNS{}, "a b", "c"))
	if !slices.Equal(Targets(v), []string{"a", "b", "c"}) || m.Warming() != 1 || !m.Names()[v] {
		t.Fatalf("%v, %d warm", Targets(v), m.Warming())
	}
	want("before any answer", "no cluster")
	m.Answer(v, 1, nil, true)
	want("a failure ends the wait", "")
	if !m.Answer(v, 0, addrs("1.1.1.1 1.1.1.2"), false) {
		t.Error("hosts did not change")
	}
	want("an answer", "a=1.1.1.1:80 a=1.1.1.2:80")
	m.Answer(v, 2, addrs("1.1.1.3"), false)
	want("an answer of another priority", "a=1.1.1.1:80 a=1.1.1.2:80 c=1.1.1.3:80")
	for what, changed := range map[string]bool{
		"the same":       m.Answer(v, 0, addrs("1.1.1.1 1.1.1.2"), false),
		"another order":  m.Answer(v, 0, addrs("1.1.1.2 1.1.1.1"), false),
		"a failure":      m.Answer(v, 0, nil, true),
		"of a stranger":  m.Answer(dnsCluster(api.DNS{}, "a").Value, 0, addrs("9.9.9.9"), false),
		"nothing, again": m.Answer(v, 1, nil, false),
	} {
		if changed {
			t.Errorf("%s is a change", what)
		}
	}
	want("nothing new", "none")
	m.Answer(v, 0, nil, false)
	want("the name has no address", "c=1.1.1.3:80")

	next := update(dnsCluster(api.DNS{One: true}, "d"))
	if !m.Names()[v] || !m.Names()[next] {
		t.Error("while the next version warms both are followed")
	}
	m.Answer(v, 0, addrs("1.1.1.4"), false)
	want("the version in force goes on", "a=1.1.1.4:80 c=1.1.1.3:80")
	m.Answer(next, 0, addrs("1.1.1.5 1.1.1.6"), false)
	want("the first address only", "d=1.1.1.5:80+1.1.1.6:80")
	if m.Names()[v] || m.Warming() != 0 {
		t.Error("the version before is followed still")
	}
	m.Answer(next, 0, addrs("1.1.1.6 1.1.1.5"), false)
	want("another first address", "d=1.1.1.6:80+1.1.1.5:80")

	v = update(dnsCluster(api.DNS{WithoutWarming: true}, "e"))
	want("without warming", "")
	if m.Names()[next] {
		t.Error("the version before is followed still")
	}
	m.UpdateClusters(Update[api.Cluster]{Removed: []string{"c"}})
	want("removed", "no cluster")
	if len(m.Names()) > 0 || m.Answer(v, 0, addrs("1.1.1.7"), false) {
		t.Error("a removed cluster is followed still")
	}
}
