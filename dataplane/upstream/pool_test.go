package upstream

import (
	"slices"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/balance"
)

func perHost(n, pending uint32) *api.Cluster {
	c := cluster(99, pending, "10.0.0.1:1")
	c.CircuitBreakers.PerHost = &n
	return c
}

// visitor is one that opens a connection and says what it was told.
type visitor struct {
	Connection
	told []string
}

func (u *Cluster) visit(t *testing.T, worker int) *visitor {
	t.Helper()
	p, err := u.Pick(worker, &balance.Asked{})
	if err != nil {
		t.Fatal(err)
	}
	c := &visitor{Connection: p.Connection}
	if c.Waits() {
		c.Await(func() { c.told = append(c.told, "ready") }, func(why string) { c.told = append(c.told, "failed: "+why) })
	}
	return c
}

func (c *visitor) is(t *testing.T, told ...string) {
	t.Helper()
	if !slices.Equal(c.told, told) {
		t.Errorf("was told %q, want %q", c.told, told)
	}
}

func TestAHostThatIsFullHasOthersWaitInTurn(t *testing.T) {
	u := New(perHost(1, 9), stats.New(), Watch{})
	defer u.Close()
	one, two, three := u.visit(t, 0), u.visit(t, 0), u.visit(t, 0)
	if one.Waits() || !two.Waits() || !three.Waits() || u.Stats.Overflow.Value() != 2 {
		t.Fatalf("wait: %t %t %t, overflow %d", one.Waits(), two.Waits(), three.Waits(), u.Stats.Overflow.Value())
	}
	one.Connected(0)
	if got := u.figures(); got != "cx 1/1 pending 2 open 0/0" {
		t.Error(got)
	}
	one.Ended(time.Second, false)
	two.is(t, "ready")
	three.is(t)
	if two.Waits() || u.Hosts()[0].Status().RqPendingActive != 2 {
		t.Error("who is served waits on")
	}
	two.Connected(0)
	two.Ended(time.Second, false)
	three.is(t, "ready")
	three.GivenUp()
	if got := u.figures(); got != "cx 0/3 pending 0 open 0/0" || u.Stats.Cancelled.Value() != 1 {
		t.Errorf("%s, cancelled %d", got, u.Stats.Cancelled.Value())
	}
	if h := u.Hosts()[0].Status(); h.CxActive != 0 || h.RqPendingActive != 0 || h.CxConnectFail != 0 {
		t.Errorf("host %+v", h)
	}
}

func TestALimitOfNoneLetsOneIn(t *testing.T) {
	u := New(perHost(0, 9), stats.New(), Watch{})
	defer u.Close()
	if one, two := u.visit(t, 0), u.visit(t, 0); one.Waits() || !two.Waits() || u.Stats.Overflow.Value() != 2 {
		t.Errorf("wait: %t %t, overflow %d", one.Waits(), two.Waits(), u.Stats.Overflow.Value())
	}
}

func TestWorkersDoNotWaitForEachOther(t *testing.T) {
	u := New(perHost(1, 9), stats.New(), Watch{})
	defer u.Close()
	one, other := u.visit(t, 0), u.visit(t, 7)
	if one.Waits() || other.Waits() || u.Stats.Overflow.Value() != 1 {
		t.Error("another worker's first connection waits, or does not count as beyond the limit")
	}
	late := u.visit(t, 7)
	one.GivenUp()
	late.is(t)
	other.GivenUp()
	late.is(t, "ready")
}

func TestThoseThatWaitFailWithTheConnectionTheyWaitFor(t *testing.T) {
	u := New(perHost(1, 9), stats.New(), Watch{})
	defer u.Close()
	one, two, three := u.visit(t, 0), u.visit(t, 0), u.visit(t, 0)
	one.Failed(false, "refused")
	two.is(t, "failed: refused")
	three.is(t, "failed: refused")
	s := u.Stats
	if got := u.figures(); got != "cx 0/1 pending 0 open 0/0" || s.PendingFailureEject.Value() != 3 || s.ConnectFail.Value() != 1 {
		t.Errorf("%s, ejected %d, failed %d", got, s.PendingFailureEject.Value(), s.ConnectFail.Value())
	}
}

func TestWhoWaitsNoMoreIsNotServed(t *testing.T) {
	u := New(perHost(1, 2), stats.New(), Watch{})
	defer u.Close()
	one := u.visit(t, 0)
	one.Connected(0)
	two, three := u.visit(t, 0), u.visit(t, 0)
	if _, err := u.Pick(0, &balance.Asked{}); err != ErrPendingOverflow {
		t.Errorf("a third that would wait: %v", err)
	}
	two.GivenUp()
	one.Ended(0, false)
	two.is(t)
	three.is(t, "ready")
}

func TestAnotherConfigurationCountsAnew(t *testing.T) {
	u := New(cluster(1, 9, "10.0.0.1:1"), stats.New(), Watch{})
	defer u.Close()
	one := u.visit(t, 0)
	if _, err := u.Pick(0, &balance.Asked{}); err != ErrConnectionOverflow {
		t.Errorf("a second: %v", err)
	}
	u.Update(cluster(1, 9, "10.0.0.1:1", "10.0.0.2:1")) // other endpoints are the same configuration
	if _, err := u.Pick(0, &balance.Asked{}); err != ErrConnectionOverflow {
		t.Errorf("a second after other endpoints: %v", err)
	}
	next := cluster(1, 9, "10.0.0.1:1")
	next.ConnectTimeout *= 2
	u.Update(next)
	two := u.visit(t, 0)
	one.Connected(0)
	one.Ended(0, false)
	if _, err := u.Pick(0, &balance.Asked{}); err != ErrConnectionOverflow {
		t.Errorf("the end of an older connection counts for the new configuration: %v", err)
	}
	two.GivenUp()
	if got := u.figures(); got != "cx 0/2 pending 0 open 0/0" {
		t.Error(got)
	}
}

func TestAnAggregatesMemberHasOthersWait(t *testing.T) {
	store := stats.New()
	member, agg := New(cluster(1, 9, "10.0.0.1:1"), store, Watch{}), New(cluster(1, 9), store, Watch{})
	defer member.Close()
	defer agg.Close()
	pick := func() Picked {
		t.Helper()
		p, err := agg.ChooseAmong([]*Cluster{member}, 0, &balance.Asked{}, "").Open()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	one := pick()
	if two := pick(); one.Waits() || !two.Waits() {
		t.Errorf("wait: %t %t", one.Waits(), two.Waits())
	}
	agg.Update(cluster(0, 9))
	if _, err := agg.ChooseAmong([]*Cluster{member}, 0, &balance.Asked{}, "").Open(); err != ErrConnectionOverflow {
		t.Errorf("an aggregate that allows none: %v", err)
	}
}

func TestRetriesOfABudget(t *testing.T) {
	c := cluster(99, 99, "10.0.0.1:1")
	c.CircuitBreakers.MaxRetries = 9
	c.CircuitBreakers.Budget = &api.RetryBudget{Percent: 50, Least: 2}
	u := New(c, stats.New(), Watch{})
	defer u.Close()
	if n := u.MaxRetries(); n != 2 {
		t.Errorf("%d retries of no requests, want 2", n)
	}
	for range 10 {
		u.visit(t, 0)
	}
	if n := u.MaxRetries(); n != 5 {
		t.Errorf("%d retries of ten requests, want 5", n)
	}
}
