package stats

// Blank are stats that stand there and never move: names that tools look for. Any
// number of scopes show the same Blank, which costs each of them a word.
type Blank struct{ stats map[string]any }

// NewBlank makes them; a dot in a name is one.
func NewBlank(counters, gauges, histograms []string) *Blank {
	b := &Blank{stats: make(map[string]any, len(counters)+len(gauges)+len(histograms))}
	c, g, h := new(Counter), new(Gauge), new(Histogram)
	for _, n := range counters {
		b.stats[n] = c
	}
	for _, n := range gauges {
		b.stats[n] = g
	}
	for _, n := range histograms {
		b.stats[n] = h
	}
	return b
}

// Show has the scope show b, but for the names that it has stats of.
func (sc *Scope) Show(b *Blank) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	sc.blank = b
}

// eachLocked calls f for all that the scope shows.
func (sc *Scope) eachLocked(f func(name string, v any)) {
	for name, v := range sc.stats {
		f(name, v)
	}
	if sc.blank == nil {
		return
	}
	for name, v := range sc.blank.stats {
		if _, own := sc.stats[name]; !own {
			f(name, v)
		}
	}
}

func (sc *Scope) findLocked(name string) (any, bool) {
	v, ok := sc.stats[name]
	if !ok && sc.blank != nil {
		v, ok = sc.blank.stats[name]
	}
	return v, ok
}
