package balance

import "sync/atomic"

// Picker is one worker's own: schedules need no lock, for nobody shares them. It
// is for one goroutine at a time, and for the Sets of one cluster.
type Picker struct {
	set    *Set
	hosts  map[*seat]*hostTurns
	places map[*turns]*schedule
	zones  map[*group]*zoneState
	cuts   map[cutKey]*criteria
	order  []uint32 // of pickBounded
	random twister
}

// NewPicker makes one.
func NewPicker() *Picker {
	return &Picker{hosts: map[*seat]*hostTurns{}, places: map[*turns]*schedule{}, zones: map[*group]*zoneState{}, cuts: map[cutKey]*criteria{}}
}

// source says which hosts a pool has.
type source uint8

const (
	allHosts source = iota
	healthyHosts
	degradedHosts
)

// seatKey names a pool over the life of a cluster.
type seatKey struct {
	group    string
	priority uint32
	source   source
	locality int // -1: all
}

// seat is what a pool keeps from Set to Set.
type seat struct {
	key seatKey
	// next is whose turn it is while weights are equal. All workers count on it.
	next atomic.Uint64
}

// seat is that of the Set before, if it had one.
func (s *Set) seat(key seatKey, before *Set) *seat {
	var st *seat
	if before != nil {
		st = before.seats[key]
	}
	if st == nil {
		st = &seat{key: key}
		// Lest all processes begin with the same host.
		st.next.Store(s.config.Rand() >> 1)
	}
	s.seats[key] = st
	return st
}

// hostTurns is the schedule of a pool's hosts.
type hostTurns struct {
	pool *pool
	*schedule
}

// turns are the weights of localities.
type turns struct {
	index   []int
	weights []float64
}

// enter forgets what belonged to another Set only.
func (p *Picker) enter(s *Set) {
	if p.set == s {
		return
	}
	p.set = s
	for st := range p.hosts {
		if s.seats[st.key] != st {
			delete(p.hosts, st)
		}
	}
	clear(p.places)
	clear(p.zones)
	clear(p.cuts)
}

// locality is the next by weight.
func (p *Picker) locality(t *turns) int {
	s := p.places[t]
	if s == nil {
		s = newSchedule(len(t.weights), func(i int) float64 { return t.weights[i] }, uint32(p.set.config.Rand()))
		p.places[t] = s
	}
	i := s.next()
	s.again(t.weights[i])
	return t.index[i]
}

// turn is the host whose turn it is by weight.
func (p *Picker) turn(from *pool, c *Config) Host {
	t := p.hosts[from.seat]
	if t == nil || t.pool != from {
		t = c.hostTurns(from, t)
		p.hosts[from.seat] = t
	}
	h := from.hosts[t.next()]
	t.again(c.pull(h))
	return h
}

// hostTurns makes the schedule of a pool. Hosts that were in the one before keep
// their place; without one before, the start is random.
func (c *Config) hostTurns(from *pool, before *hostTurns) *hostTurns {
	if before == nil {
		return &hostTurns{from, newSchedule(len(from.hosts), func(i int) float64 { return c.pull(from.hosts[i]) }, uint32(c.Rand()))}
	}
	known := make(map[Host]*entry, len(before.entries))
	for i := range before.entries {
		e := &before.entries[i]
		known[before.pool.hosts[e.index]] = e
	}
	s := &schedule{entries: make([]entry, 0, len(from.hosts)), now: before.now, order: before.order}
	for i, h := range from.hosts {
		e := entry{weight: c.pull(h), index: i}
		if old := known[h]; old != nil {
			e.order, e.deadline = old.order, old.deadline
			if e.weight != old.weight {
				// The same share of the interval is left to wait.
				e.deadline = s.now + (old.deadline-s.now)*old.weight/e.weight
			}
		} else {
			e.order, e.deadline = s.order, s.now+1/e.weight
			s.order++
		}
		s.entries = append(s.entries, e)
	}
	s.heapify()
	return &hostTurns{from, s}
}
