package stats

import "sync/atomic"

// Holders counts those who still need something, statistics for instance, and
// lets it go with the last of them.
type Holders struct {
	n       atomic.Int64
	release func()
}

// NewHolders starts with one holder, its maker. release is called once, by the
// Drop that leaves none.
func NewHolders(release func()) *Holders {
	h := &Holders{release: release}
	h.n.Store(1)
	return h
}

// Hold adds a holder. False means that it is too late: the thing is gone, and
// the caller must not Drop.
func (h *Holders) Hold() bool {
	for {
		n := h.n.Load()
		if n == 0 {
			return false
		}
		if h.n.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Drop takes a holder away.
func (h *Holders) Drop() {
	if h.n.Add(-1) == 0 {
		h.release()
	}
}
