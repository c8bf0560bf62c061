package dnscache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/loop"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script answers as it is told, and takes its time.
type script struct {
	mu    sync.Mutex
	addrs []string
	ttl   time.Duration
	err   error
	takes time.Duration
	asked []string // with the moment, since the script began
	began time.Time
}

func (s *script) says(err error, addrs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.addrs = err, addrs
}

// lasts and slow set the answers' TTL and how long they take.
func (s *script) lasts(ttl time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ttl = ttl
}

func (s *script) slow(takes time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.takes = takes
}

func (s *script) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *script) Lookup(ctx context.Context, name string, _ api.DNSFamily) ([]api.ResolvedAddress, error) {
	s.mu.Lock()
	s.asked = append(s.asked, fmt.Sprintf("%s %v", name, time.Since(s.began)))
	takes := s.takes
	s.mu.Unlock()
	if takes > 0 {
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []api.ResolvedAddress
	for _, a := range s.addrs {
		out = append(out, api.ResolvedAddress{Addr: netip.MustParseAddr(a), TTL: s.ttl})
	}
	return out, s.err
}

func config() *api.DNSCache {
	return &api.DNSCache{Name: "n", Settings: "n", Refresh: time.Minute, MinRefresh: 5 * time.Second, HostTTL: time.Hour,
		QueryTimeout: 5 * time.Second, MaxHosts: 2, MaxPending: 2}
}

type rig struct {
	*testing.T
	*script
	caches *Caches
	cache  *Cache
	store  *stats.Store
	told   []string // to a watcher; under mu
}

func newRig(t *testing.T, c *api.DNSCache) *rig {
	r := &rig{T: t, script: &script{began: time.Now()}, store: stats.New()}
	r.caches = New(func(*api.Resolver) Resolver { return r.script }, r.store)
	r.cache = r.caches.Use(c)
	end := r.cache.Watch(func(names map[string]*Name) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for key, n := range names {
			if n == nil {
				r.told = append(r.told, key+" gone")
				continue
			}
			r.told = append(r.told, fmt.Sprint(key, " ", n.Addrs))
		}
	})
	t.Cleanup(func() {
		end()
		r.cache.Release()
		r.caches.Close()
	})
	return r
}

func (r *rig) load(name string) Found {
	is, _ := r.cache.Load(name, 80, nil, nil)
	return is
}

func (r *rig) counts(want string) {
	r.Helper()
	f := r.cache.figures
	got := fmt.Sprintf("asked %d ok %d failed %d late %d; added %d gone %d changed %d full %d denied %d; now %d",
		f.attempt.Value(), f.success.Value(), f.failure.Value(), f.timeout.Value(), f.added.Value(), f.removed.Value(), f.changed.Value(), f.overflow.Value(), f.denied.Value(), f.hosts.Value())
	if got != want {
		r.Errorf("got  %s\nwant %s", got, want)
	}
}

func (r *rig) heard(want ...string) {
	r.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.told, want) {
		r.Errorf("the watcher was told %q, want %q", r.told, want)
	}
	r.told = nil
}

// in runs a story whose time is made up.
func in(t *testing.T, c *api.DNSCache, story func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		story(newRig(t, c))
	})
}

func TestANameIsResolvedWhenItIsAskedForAndAgainAfterItsTTL(t *testing.T) {
	in(t, config(), func(r *rig) {
		r.says(nil, "10.0.0.1", "10.0.0.2")
		r.lasts(9 * time.Second)
		if is := r.load("a.test"); is != Loading {
			t.Errorf("a new name is %d", is)
		}
		synctest.Wait()
		if is, _ := r.cache.Load("a.test:80", 7, nil, nil); is != Known {
			t.Errorf("a known name is %d", is)
		}
		r.heard("a.test:80 [10.0.0.1:80 10.0.0.2:80]")
		r.says(nil, "10.0.0.3")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r.heard("a.test:80 [10.0.0.3:80]")
		r.lasts(time.Second) // less than the least
		time.Sleep(9 * time.Second)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		r.heard()
		if want := []string{"a.test 0s", "a.test 9s", "a.test 18s", "a.test 23s"}; !slices.Equal(r.questions(), want) {
			t.Errorf("asked %q, want %q", r.questions(), want)
		}
		r.counts("asked 4 ok 4 failed 0 late 0; added 1 gone 0 changed 2 full 0 denied 0; now 1")
	})
}

func TestANameKeepsItsAddressWhenItIsGoneOrFails(t *testing.T) {
	in(t, config(), func(r *rig) {
		r.says(nil, "10.0.0.1")
		r.load("a.test")
		synctest.Wait()
		r.says(nil)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		r.says(errors.New("no"))
		time.Sleep(time.Minute) // the refresh rate
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		r.heard("a.test:80 [10.0.0.1:80]")
		r.counts("asked 4 ok 2 failed 2 late 0; added 1 gone 0 changed 1 full 0 denied 0; now 1")
	})
}

func TestANameWithoutAddressesIsKnownToHaveNone(t *testing.T) {
	in(t, config(), func(r *rig) {
		r.load("a.test")
		synctest.Wait()
		if is := r.load("a.test"); is != Known {
			t.Errorf("it is %d", is)
		}
		r.heard()
		r.says(nil, "10.0.0.1")
		time.Sleep(time.Minute)
		synctest.Wait()
		r.heard("a.test:80 [10.0.0.1:80]")
	})
}

func TestFailuresAreBackedOff(t *testing.T) {
	c := config()
	c.Failure, c.MinRefresh = &api.Backoff{Base: 2 * time.Second, Max: 8 * time.Second}, time.Second
	in(t, c, func(r *rig) {
		r.says(errors.New("no"))
		r.load("a.test")
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		if n := len(r.questions()); n != 1 {
			t.Errorf("asked %d times before the least wait was over", n)
		}
		time.Sleep(14 * time.Second) // 1 to 2 s, 1 to 4 s, 1 to 8 s: at least three more
		synctest.Wait()
		if n := len(r.questions()); n < 4 {
			t.Errorf("asked %d times", n)
		}
		r.says(nil, "10.0.0.1")
		time.Sleep(8 * time.Second)
		synctest.Wait()
		r.heard("a.test:80 [10.0.0.1:80]")
	})
}

func TestAFailureMayBeLeftToTheNextConnection(t *testing.T) {
	c := config()
	c.NoRefreshOnFailure, c.Failure = true, &api.Backoff{Base: 1, Max: 1}
	in(t, c, func(r *rig) {
		r.says(errors.New("no"))
		r.load("a.test")
		time.Sleep(time.Hour)
		synctest.Wait()
		r.counts("asked 1 ok 0 failed 1 late 0; added 1 gone 0 changed 0 full 0 denied 0; now 1")
		r.says(nil, "10.0.0.1")
		if is := r.load("a.test"); is != Loading {
			t.Errorf("a name that failed is %d", is)
		}
		synctest.Wait()
		r.heard("a.test:80 [10.0.0.1:80]")
		r.counts("asked 2 ok 1 failed 1 late 0; added 2 gone 1 changed 1 full 0 denied 0; now 1")
	})
}

func TestALookupHasItsTime(t *testing.T) {
	in(t, config(), func(r *rig) {
		r.slow(time.Minute)
		r.load("a.test")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		r.counts("asked 1 ok 0 failed 1 late 1; added 1 gone 0 changed 0 full 0 denied 0; now 1")
	})
	c := config()
	c.QueryTimeout = 0
	in(t, c, func(r *rig) {
		r.slow(time.Minute)
		r.says(nil, "10.0.0.1")
		r.load("a.test")
		time.Sleep(time.Minute)
		synctest.Wait()
		r.counts("asked 1 ok 1 failed 0 late 0; added 1 gone 0 changed 1 full 0 denied 0; now 1")
	})
}

func TestANameThatNobodyWantsGoes(t *testing.T) {
	c := config()
	c.HostTTL = 12 * time.Second
	in(t, c, func(r *rig) {
		r.says(nil, "10.0.0.1")
		r.load("a.test")
		synctest.Wait()
		r.cache.mu.Lock()
		n := r.cache.names["a.test:80"].name
		r.cache.mu.Unlock()
		time.Sleep(11 * time.Second)
		n.Touch()
		time.Sleep(9 * time.Second) // looked at after 20 s: it was touched after 11 s
		synctest.Wait()
		r.heard("a.test:80 [10.0.0.1:80]")
		time.Sleep(6 * time.Second)
		synctest.Wait()
		r.heard("a.test:80 gone")
		r.counts("asked 5 ok 5 failed 0 late 0; added 1 gone 1 changed 1 full 0 denied 0; now 0")
	})
}

func TestACacheThatIsFullTakesNoMore(t *testing.T) {
	in(t, config(), func(r *rig) {
		r.says(nil, "10.0.0.1")
		r.load("a.test")
		r.load("b.test")
		if is := r.load("b.test"); is != Full { // it is not known yet: as in Envoy
			t.Errorf("a name that is being resolved is %d", is)
		}
		synctest.Wait()
		if a, c := r.load("a.test"), r.load("c.test"); a != Known || c != Full {
			t.Errorf("a known name is %d, another %d", a, c)
		}
		r.counts("asked 2 ok 2 failed 0 late 0; added 2 gone 0 changed 2 full 2 denied 0; now 2")
	})
}

func TestAddressesMayBeDenied(t *testing.T) {
	c := config()
	c.Denied = &api.AddressMatcher{Ranges: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}
	in(t, c, func(r *rig) {
		r.says(nil, "10.0.0.1", "10.0.1.1")
		r.load("a.test")
		synctest.Wait()
		r.heard("a.test:80 [10.0.1.1:80]")
		r.says(nil, "10.0.0.1")
		r.load("b.test")
		synctest.Wait()
		r.heard()
		r.counts("asked 2 ok 2 failed 0 late 0; added 2 gone 0 changed 1 full 0 denied 2; now 2")
	})
}

func TestNamesMayBeKnownBefore(t *testing.T) {
	c := config()
	c.Known = []api.NamedPort{{Name: "a.test", Port: 80}, {Name: "a.test", Port: 81}, {Name: "a.test", Port: 80}}
	in(t, c, func(r *rig) {
		synctest.Wait()
		r.counts("asked 2 ok 2 failed 0 late 0; added 2 gone 0 changed 0 full 0 denied 0; now 2")
	})
}

func TestOnlySoManyMayWait(t *testing.T) {
	in(t, config(), func(r *rig) {
		c := r.cache
		one, two, three := c.Enter(), c.Enter(), c.Enter()
		if !one || !two || three {
			t.Errorf("may wait: %t, %t, %t", one, two, three)
		}
		if f := c.figures; f.open.Value() != 1 || f.remaining.Value() != 0 || f.pendingOverflow.Value() != 1 {
			t.Errorf("open %d, remaining %d, overflow %d", f.open.Value(), f.remaining.Value(), f.pendingOverflow.Value())
		}
		c.Leave()
		if f := c.figures; f.open.Value() != 0 || f.remaining.Value() != 1 || !c.Enter() {
			t.Errorf("open %d, remaining %d", f.open.Value(), f.remaining.Value())
		}
	})
}

func TestCachesAreSharedAndStayAsLongAsOneIsUsed(t *testing.T) {
	in(t, config(), func(r *rig) {
		if other := r.caches.Use(config()); other != r.cache {
			t.Error("a second cache of the same settings")
		}
		another := config()
		another.Settings, another.Name = "m", "m"
		m := r.caches.Use(another)
		r.cache.Release()
		m.Release()
		if r.caches.Use(another) != m {
			t.Error("a cache is gone while others are used")
		}
		m.Release()
	})
}

func TestWhoWaitsIsToldOnItsWorker(t *testing.T) {
	r := newRig(t, config())
	w, err := loop.New(0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go w.Run()
	defer w.Close()
	r.says(nil, "10.0.0.1")
	r.slow(50 * time.Millisecond)
	told := make(chan int, 3)
	var cancel func()
	w.Do(func() {
		r.cache.Load("a.test", 80, w, func() { told <- 1 })
		_, cancel = r.cache.Load("a.test", 80, w, func() { t.Error("told after it gave up") })
		cancel()
		r.cache.Load("a.test", 80, w, func() { told <- 2 })
	})
	if sum := <-told + <-told; sum != 3 {
		t.Errorf("told %d", sum)
	}
}

// The news may be on its way to the worker when the wait is given up there.
func TestWhoHasGivenUpIsNotToldLate(t *testing.T) {
	r := newRig(t, config())
	w, err := loop.New(0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go w.Run()
	defer w.Close()
	w.Do(func() {
		_, cancel := r.cache.Load("a.test", 80, w, func() { t.Error("told after it gave up") })
		for r.load("a.test") != Known {
			time.Sleep(time.Millisecond)
		}
		cancel()
	})
	w.Do(func() {}) // what was posted before has run
}

func TestKeys(t *testing.T) {
	for _, tt := range []struct {
		name, key, host string
	}{
		{"", "", ""},
		{"a.test", "a.test:80", "a.test"},
		{"a.test:7", "a.test:7", "a.test"},
		{"10.0.0.1", "10.0.0.1:80", "10.0.0.1"},
		{"[::1]", "[::1]:80", "::1"},
		{"[::1]:7", "[::1]:7", "::1"},
		{"a.test:x", "a.test:x:80", "a.test:x"},
	} {
		key := Key(tt.name, 80)
		if host, _, _ := split(key); key != tt.key || host != tt.host {
			t.Errorf("%q: key %q, host %q", tt.name, key, host)
		}
	}
}
