package balance

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/api"
)

func TestXXHashVectors(t *testing.T) {
	for in, want := range map[string]uint64{
		"": 0xef46db3751d8e999, "a": 0xd24ec4f1a98c6e5b, "abc": 0x44bc2cf5ad770999,
		"Nobody inspects the spammish repetition": 0xfbcea83c8a378bf1,
	} {
		if got := XXHash(in, 0); got != want {
			t.Errorf("%q: %x, want %x", in, got, want)
		}
	}
}

func TestTwisterVectors(t *testing.T) {
	var m twister
	m.seed(5489)
	if got := m.next(); got != 3499211612 {
		t.Errorf("first %d", got)
	}
	var last uint32
	for range 9999 {
		last = m.next()
	}
	if last != 4123659995 { // of the standard, for std::mt19937
		t.Errorf("ten thousandth %d", last)
	}
}

func hashed(p api.LBPolicy, n int) (Config, []*testHost) {
	var hs []*testHost
	for i := range n {
		hs = append(hs, &testHost{name: fmt.Sprintf("127.0.0.1:%d", 18001+i), weight: 1})
	}
	return config(p, seeded()), hs
}

func client(i int) *Asked {
	return &Asked{Hash: XXHash(fmt.Sprintf("127.0.%d.%d", i/200, i%200+1), 0), Hashed: true}
}

// The hosts are those that Envoy 1.40 picked for clients 127.0.0.1, 127.0.0.2, …
// with hash_policy source_ip; ports from 18001 on, by their last digit.
func TestClientsGetTheHostsThatEnvoyGivesThem(t *testing.T) {
	for _, tt := range []struct {
		name string
		set  func(*Config, []*testHost)
		want string
	}{
		{"a ring", func(*Config, []*testHost) {}, "345554544111215345115552423153551523342254444411555312454113"},
		{"a ring by weight", func(_ *Config, hs []*testHost) { weigh(hs, 1, 3, 1, 2, 5) }, "445554554355255545145552425553552523342254224451555315454115"},
		{"a ring too small for all", func(c *Config, hs []*testHost) {
			weigh(hs, 1, 3, 1, 2, 5)
			c.Balancing.MinRingSize, c.Balancing.MaxRingSize = 7, 13
		}, "553252423555555412254253424535555455335555532555545445555354"},
		{"a ring by murmur", func(c *Config, hs []*testHost) { c.Balancing.MinRingSize, c.Balancing.Murmur = 100, true }, "525352454555112553354251431555451421345244144221155554512455"},
		{"maglev", func(c *Config, _ []*testHost) { c.Balancing.Policy = api.Maglev }, "253444241333253113111333124453241453124225213323413415255211"},
		{"maglev by weight", func(c *Config, hs []*testHost) {
			weigh(hs, 1, 3, 1, 2, 5)
			c.Balancing.Policy, c.Balancing.TableSize = api.Maglev, 1009
		}, "341435112541534455435514255255225414555225544322555324513222"},
		{"maglev by keys", func(c *Config, hs []*testHost) {
			c.Balancing.Policy = api.Maglev
			for i, h := range hs {
				h.metadata = map[string]any{"hash_key": fmt.Sprintf("k%d", i+1)}
			}
		}, "211212125441313244313311453213451154544151315415355324314324"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, hs := hashed(api.RingHash, 5)
			tt.set(&c, hs)
			o := with(c, hs)
			var got strings.Builder
			for i := range len(tt.want) {
				h, _ := o.ask(client(i))
				got.WriteString(h.name[len(h.name)-1:])
			}
			if got.String() != tt.want {
				t.Errorf("got  %s\nwant %s", got.String(), tt.want)
			}
		})
	}
}

func TestAHostThatGoesMovesItsClientsOnly(t *testing.T) {
	for _, p := range []api.LBPolicy{api.RingHash, api.Maglev} {
		c, hs := hashed(p, 5)
		c.Balancing.MinRingSize = 1000 // 200 places for each
		o := with(c, hs)
		before := map[int]*testHost{}
		for i := range 1000 {
			before[i], _ = o.ask(client(i))
		}
		c.Balancing.MinRingSize = 800
		o.update(c, hs[:4])
		moved := 0
		for i := range 1000 {
			if h, _ := o.ask(client(i)); h != before[i] && before[i] != hs[4] {
				moved++
			}
		}
		// Maglev moves a few of the others.
		if limit := map[api.LBPolicy]int{api.RingHash: 0, api.Maglev: 40}[p]; moved > limit {
			t.Errorf("%v: %d of 1000 clients of other hosts moved", p, moved)
		}
	}
}

func TestTablesAreTakenOverWhenNothingChanged(t *testing.T) {
	for _, p := range []api.LBPolicy{api.RingHash, api.Maglev} {
		c, hs := hashed(p, 5)
		o := with(c, hs)
		was := o.set.whole.levels[0].table
		o.update(c, hs)
		if o.set.whole.levels[0].table != was {
			t.Errorf("%v: made anew for nothing", p)
		}
		hs[0].health = api.HealthUnhealthy
		o.update(c, hs)
		if o.set.whole.levels[0].table == was {
			t.Errorf("%v: a sick host is still in the table", p)
		}
		was, c.Balancing.MinRingSize, c.Balancing.TableSize = o.set.whole.levels[0].table, 100, 101
		o.update(c, hs)
		if o.set.whole.levels[0].table == was {
			t.Errorf("%v: keeps its size", p)
		}
	}
}

func TestBoundedLoadSpillsOver(t *testing.T) {
	c, hs := hashed(api.RingHash, 4)
	c.Balancing.BalanceFactor = 100
	open := uint64(0)
	c.ActiveTotal = func() uint64 { return open }
	o := with(c, hs)
	for range 40 { // all of one client
		h, _ := o.ask(client(7))
		h.active.Add(1)
		open++
	}
	for _, h := range hs {
		if n := h.Active(); n < 7 || n > 12 {
			t.Errorf("%s has %d of 40", h.name, n)
		}
	}
}

func TestBoundedLoadWithEveryHostOver(t *testing.T) {
	c, hs := hashed(api.RingHash, 3)
	c.Balancing.BalanceFactor = 100
	for i, h := range hs {
		h.active.Store(uint32(100 - i))
	}
	o := with(c, hs)
	for i := range 20 {
		if h, _ := o.ask(client(i)); h != hs[2] {
			t.Errorf("client %d got %s, want the least busy", i, h.name)
		}
	}
}

func TestARingOfNoSizeHasNoHost(t *testing.T) {
	c, hs := hashed(api.RingHash, 3)
	c.Balancing.MinRingSize = 0
	if h, ok := with(c, hs).ask(client(1)); ok {
		t.Errorf("picked %v", h)
	}
}

func TestWithoutAHashTheHostIsRandom(t *testing.T) {
	c, hs := hashed(api.Maglev, 3)
	got := map[string]int{}
	o := with(c, hs)
	for range 3000 {
		h, _ := o.pick()
		got[h.name]++
	}
	for _, h := range hs {
		if n := got[h.name]; n < 850 || n > 1150 {
			t.Errorf("%s got %d of 3000", h.name, n)
		}
	}
}

func weigh(hs []*testHost, weights ...uint32) {
	for i, w := range weights {
		hs[i].weight = w
	}
}
