package balance

import (
	"math"
	"slices"

	"github.com/sluice-proxy/sluice/api"
)

// table finds the host of a hash, by a ring or by Maglev's table.
type table interface {
	// at is an index of shares, or -1 if the table is empty.
	at(hash uint64) int
	shares() []share
	report(*Stats)
}

// share is a host with its part of the whole, of 1, and what it is hashed by.
type share struct {
	host   Host
	weight float64
	key    string
}

// newTable makes the table of a level's hosts: the healthy ones, or all while it
// panics; degraded ones are never hashed to. It is was if nothing has changed.
func newTable(c *Config, l *level, was table) table {
	all := l.shares(c)
	b := c.Balancing
	if was != nil && slices.Equal(was.shares(), all) {
		switch t := was.(type) {
		case *ring:
			if b.Policy == api.RingHash && t.minSize == b.MinRingSize && t.maxSize == b.MaxRingSize && t.murmur == b.Murmur {
				return was
			}
		case *maglev:
			if b.Policy == api.Maglev && t.size == b.TableSize {
				return was
			}
		}
	}
	if b.Policy == api.Maglev {
		return newMaglev(all, b.TableSize)
	}
	return newRing(all, b.MinRingSize, b.MaxRingSize, b.Murmur)
}

// shares normalizes weights, by localities if these have weights and they are
// asked for (thread_aware_lb_impl.cc, normalizeWeights).
func (l *level) shares(c *Config) []share {
	weighted := false
	for i := range l.localities {
		weighted = weighted || l.localities[i].weight > 0
	}
	if !c.Balancing.LocalityWeighted || len(l.localities) == 0 {
		hosts := l.healthy.hosts
		if l.panic {
			hosts = l.all.hosts
		}
		return normalize(nil, hosts, 1, c)
	}
	if !weighted {
		return nil
	}
	sum := uint64(0)
	for i := range l.localities {
		sum += uint64(l.localities[i].weight)
	}
	var out []share
	for i := range l.localities {
		loc := &l.localities[i]
		hosts := loc.healthy.hosts
		if l.panic {
			hosts = loc.all
		}
		if loc.weight > 0 {
			out = normalize(out, hosts, float64(loc.weight)/float64(sum), c)
		}
	}
	return out
}

func normalize(out []share, hosts []Host, of float64, c *Config) []share {
	sum := uint64(0)
	for _, h := range hosts {
		sum += uint64(c.weight(h))
	}
	for _, h := range hosts {
		out = append(out, share{h, float64(c.weight(h)) * of / float64(sum), c.hashKey(h)})
	}
	return out
}

// hashKey is what a host is hashed by.
func (c *Config) hashKey(h Host) string {
	if key, _ := h.Metadata()[lbFilter]["hash_key"].(string); key != "" {
		return key
	}
	if c.Balancing.HashByName {
		return h.Hostname()
	}
	return h.Address()
}

// lbFilter is the filter name that metadata for balancers stand under.
const lbFilter = "envoy.lb"

// pickHashed picks by the connection's hash; without one it is a random number,
// as in Envoy.
func (g *group) pickHashed(p *Picker, a *Asked) Host {
	c := &g.set.config
	hash := a.Hash
	if !a.Hashed {
		hash = c.Rand()
	}
	l, _ := g.draw(hash)
	if l.panic {
		c.Stats.HealthyPanic.Inc()
	}
	all := l.table.shares()
	i := l.table.at(hash)
	if i < 0 {
		return nil
	}
	if c.Balancing.BalanceFactor > 0 {
		i = p.bounded(c, all, i, hash)
	}
	return all[i].host
}

// bounded is i, or if that has more than its bound of the open connections,
// another: the hosts are tried in an order that hangs on the hash only, and if
// all are over, the least of them is taken
// (BoundedLoadHashingLoadBalancer::chooseHost).
func (p *Picker) bounded(c *Config, all []share, i int, hash uint64) int {
	active := uint32(c.ActiveTotal())
	load := func(s *share) float64 {
		total := ((active+1)*c.Balancing.BalanceFactor + 99) / 100
		slots := max(uint32(math.Ceil(float64(total)*s.weight)), 1)
		return float64(s.host.Active()) / float64(slots)
	}
	least, at := load(&all[i]), i
	if least <= 1 {
		return i
	}
	n := len(all)
	p.order = slices.Grow(p.order[:0], n)[:n]
	for j := range p.order {
		p.order[j] = uint32(j)
	}
	p.random.seed(uint32(hash))
	for j := range n {
		k := j + int(p.random.under(uint32(n-j)))
		p.order[j], p.order[k] = p.order[k], p.order[j]
		other := int(p.order[j])
		if other == i {
			continue
		}
		switch f := load(&all[other]); {
		case f <= 1:
			return other
		case f < least:
			least, at = f, other
		}
	}
	return at
}

// report puts the figures of the tables into the gauges.
func (g *group) report() {
	for i := range g.levels {
		if t := g.levels[i].table; t != nil && len(t.shares()) > 0 {
			t.report(g.set.config.Stats)
		}
	}
}
