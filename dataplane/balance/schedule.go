package balance

// schedule picks by earliest deadline first: what is picked at time t is due
// again at t + 1/weight (Envoy's EdfScheduler). It is a heap of indices.
type schedule struct {
	entries []entry
	now     float64
	order   uint64 // breaks ties: who waits longer goes first
}

type entry struct {
	deadline, weight float64
	order            uint64
	index            int
}

// newSchedule is a schedule of n as if picks had been done already; weight is
// asked for each. Most of the picks are not done one by one but computed
// (EdfScheduler::createWithPicks).
func newSchedule(n int, weight func(int) float64, picks uint32) *schedule {
	picks %= 429496729 // Envoy's bound
	s := &schedule{entries: make([]entry, n), order: uint64(n)}
	sum := 0.0
	for i := range s.entries {
		// A little more, lest deadlines of weights that are multiples of each
		// other are told apart by rounding.
		w := weight(i) + 1e-13
		s.entries[i] = entry{weight: w, index: i, order: uint64(i)}
		sum += w
	}
	done := uint32(0)
	for i := range s.entries {
		e := &s.entries[i]
		times := uint32(e.weight * float64(picks) / sum)
		if times > 0 && float64(times)/e.weight >= float64(picks)/sum {
			times--
		}
		e.deadline = float64(times+1) / e.weight
		s.now = max(s.now, float64(times)/e.weight)
		done += times
	}
	s.heapify()
	for ; done < picks; done++ {
		i := s.next()
		s.again(weight(i))
	}
	return s
}

// next is whose turn it is; again must follow.
func (s *schedule) next() int {
	s.now = s.entries[0].deadline
	return s.entries[0].index
}

// again puts what next gave back, by the weight that it has now.
func (s *schedule) again(weight float64) {
	e := &s.entries[0]
	e.weight = weight
	e.deadline = s.now + 1/weight
	e.order = s.order
	s.order++
	s.down(0)
}

func (s *schedule) heapify() {
	for i := len(s.entries)/2 - 1; i >= 0; i-- {
		s.down(i)
	}
}

func (s *schedule) down(i int) {
	h := s.entries
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h[c+1].before(&h[c]) {
			c++
		}
		if !h[c].before(&h[i]) {
			return
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}

func (e *entry) before(o *entry) bool {
	if e.deadline != o.deadline {
		return e.deadline < o.deadline
	}
	return e.order < o.order
}
