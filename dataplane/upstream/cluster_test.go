package upstream

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/balance"
)

func cluster(connections, pending uint32, hosts ...string) *api.Cluster {
	l := api.Locality{}
	for _, h := range hosts {
		l.Endpoints = append(l.Endpoints, api.Endpoint{Addr: netip.MustParseAddrPort(h), Weight: 1})
	}
	return &api.Cluster{
		Name: "c", ConnectTimeout: time.Second, PanicThreshold: 50,
		CircuitBreakers: api.CircuitBreakers{MaxConnections: connections, MaxPendingRequests: pending},
		Assignment:      &api.Assignment{OverprovisioningFactor: 140, Localities: []api.Locality{l}},
	}
}

func (u *Cluster) figures() string {
	s := u.Stats
	return fmt.Sprintf("cx %d/%d pending %d open %d/%d", s.Active.Value(), s.Total.Value(), s.PendingActive.Value(), s.cxOpen.Value(), s.pendingOpen.Value())
}

func pick(t *testing.T, u *Cluster) *Connection {
	t.Helper()
	c, err := u.Pick(0, &balance.Asked{})
	if err != nil {
		t.Fatal(err)
	}
	return &c.Connection
}

func TestBreakersOpenAndCloseAgain(t *testing.T) {
	u := New(cluster(3, 2, "10.0.0.1:1"), stats.New(), Watch{})
	defer u.Close()
	a, b := pick(t, u), pick(t, u)
	if got := u.figures(); got != "cx 2/2 pending 2 open 0/1" {
		t.Errorf("two being opened: %s", got)
	}
	if _, err := u.Pick(0, &balance.Asked{}); !errors.Is(err, ErrPendingOverflow) || u.Stats.PendingOverflow.Value() != 1 {
		t.Errorf("a third being opened: %v", err)
	}
	a.Connected(time.Millisecond)
	c := pick(t, u)
	if got := u.figures(); got != "cx 3/3 pending 2 open 1/1" {
		t.Errorf("one open, two being opened: %s", got)
	}
	if _, err := u.Pick(0, &balance.Asked{}); !errors.Is(err, ErrConnectionOverflow) || u.Stats.Overflow.Value() != 1 {
		t.Errorf("a fourth: %v", err)
	}
	b.Failed(true, "")
	c.Failed(false, "")
	a.Ended(time.Second, true)
	a.Ended(time.Second, true) // counts once
	if got := u.figures(); got != "cx 0/3 pending 0 open 0/0" {
		t.Errorf("all gone: %s", got)
	}
	if s := u.Stats; s.ConnectFail.Value() != 2 || s.ConnectTimeout.Value() != 1 || s.Destroy.Value() != 3 || s.DestroyRemote.Value() != 2 || s.DestroyLocal.Value() != 1 {
		t.Errorf("fail %d timeout %d destroy %d remote %d local %d", s.ConnectFail.Value(), s.ConnectTimeout.Value(), s.Destroy.Value(), s.DestroyRemote.Value(), s.DestroyLocal.Value())
	}
	h := u.Hosts()[0].Status()
	if h.CxActive != 0 || h.CxTotal != 3 || h.CxConnectFail != 2 || h.RqActive != 0 || h.RqTotal != 1 {
		t.Errorf("host %+v", h)
	}
}

func TestPickWithoutHosts(t *testing.T) {
	u := New(cluster(3, 3), stats.New(), Watch{})
	defer u.Close()
	if _, err := u.Pick(0, &balance.Asked{}); !errors.Is(err, ErrNoHealthyHost) || u.Stats.NoneHealthy.Value() != 1 {
		t.Errorf("picked %v", err)
	}
	if got := u.figures(); got != "cx 0/0 pending 0 open 0/0" {
		t.Error(got)
	}
}

func TestUpdateKeepsTheFiguresOfHostsThatStay(t *testing.T) {
	u := New(cluster(9, 9, "10.0.0.1:1", "10.0.0.2:1"), stats.New(), Watch{})
	defer u.Close()
	open := map[netip.AddrPort]*Connection{}
	for range 2 {
		c := pick(t, u)
		c.Connected(0)
		open[c.Host.Addr()] = c
	}
	changes := u.Stats.MembershipChange.Value()
	next := cluster(9, 9, "10.0.0.2:1", "10.0.0.3:1")
	next.Assignment.Localities[0].Endpoints[0].Weight = 7
	u.Update(next)
	for _, h := range u.Hosts() {
		s, want := h.Status(), uint64(0)
		if h.Addr().Addr() == netip.MustParseAddr("10.0.0.2") {
			want = 1
			if s.Endpoint.Weight != 7 {
				t.Errorf("weight %d of the host that stayed, want 7", s.Endpoint.Weight)
			}
		}
		if s.CxActive != want {
			t.Errorf("%v has %d connections, want %d", h.Addr(), s.CxActive, want)
		}
	}
	if got := u.Stats.MembershipChange.Value(); got != changes+1 {
		t.Errorf("%d changes of membership, want %d", got, changes+1)
	}
	u.Update(cluster(9, 9, "10.0.0.3:1", "10.0.0.2:1"))
	if got := u.Stats.MembershipChange.Value(); got != changes+1 {
		t.Error("the same hosts in another order count as a change")
	}
	for _, c := range open { // also of the host that is gone
		c.Bytes(10, 5)
		c.Bytes(2, 0)
		c.Ended(time.Second, false)
	}
	if got := u.figures(); got != "cx 0/2 pending 0 open 0/0" {
		t.Error(got)
	}
	if rx, tx := u.Stats.RxBytes.Value(), u.Stats.TxBytes.Value(); rx != 24 || tx != 10 {
		t.Errorf("%d and %d bytes, want 24 and 10", rx, tx)
	}
}

// Every open connection keeps what it was told when it was made: an update that
// says nothing new must not make another copy for those that come after.
func TestUpdatesThatSayNothingNewLeaveWhatConnectionsAreTold(t *testing.T) {
	u := New(cluster(9, 9, "10.0.0.1:1"), stats.New(), Watch{})
	defer u.Close()
	told, endpoint := u.Told(), u.Hosts()[0].Endpoint()
	u.Update(cluster(9, 9, "10.0.0.1:1", "10.0.0.2:1"))
	if u.Told() != told || u.Hosts()[0].Endpoint() != endpoint {
		t.Error("another copy of the same")
	}
	next := cluster(9, 9, "10.0.0.1:1")
	next.Metadata = api.Metadata{"f": {"k": "v"}}
	next.Assignment.Localities[0].Endpoints[0].Metadata = api.Metadata{"f": {"k": "w"}}
	u.Update(next)
	if got := u.Told().Metadata["f"]["k"]; got != "v" {
		t.Errorf("the cluster's metadata is %v, want v", got)
	}
	if got := u.Hosts()[0].Endpoint().Metadata["f"]["k"]; got != "w" {
		t.Errorf("the endpoint's metadata is %v, want w", got)
	}
}

func TestMarkedHostsAreNotPicked(t *testing.T) {
	u := New(cluster(99, 99, "10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"), stats.New(), Watch{})
	defer u.Close()
	sick := u.Hosts()[1]
	if !u.Mark(sick, api.FailedActiveHC, api.PendingActiveHC) || u.Mark(sick, api.ActiveHCTimeout, 0) {
		t.Error("Mark does not tell what changes the host's health")
	}
	for range 6 {
		if pick(t, u).Host == sick {
			t.Fatal("picked a host that failed its check")
		}
	}
	if n := u.Stats.MembershipHealthy.Value(); n != 2 {
		t.Errorf("%d healthy, want 2", n)
	}
	u.Update(cluster(99, 99, "10.0.0.2:1", "10.0.0.3:1")) // says nothing of active checks
	if got := u.Hosts()[0].Flags(); got != api.FailedActiveHC|api.ActiveHCTimeout {
		t.Errorf("flags after an update: %v", got)
	}
	if !u.Mark(sick, 0, api.FailedActiveHC|api.ActiveHCTimeout) || u.Stats.MembershipHealthy.Value() != 2 {
		t.Error("the host does not come back")
	}
}
