package balance

import (
	"math"
	"slices"
	"strconv"
)

// ring is a Ketama ring: every host stands on it many times, and a hash belongs
// to the next of them (ring_hash_lb.cc).
type ring struct {
	all               []share
	entries           []ringEntry
	size, least, most uint64
	minSize, maxSize  uint64
	murmur            bool
}

type ringEntry struct {
	hash uint64
	host uint32
}

func newRing(all []share, minSize, maxSize uint64, murmur bool) *ring {
	r := &ring{all: all, minSize: minSize, maxSize: maxSize, murmur: murmur}
	if len(all) == 0 {
		return r
	}
	lightest := 1.0
	for i := range all {
		lightest = min(lightest, all[i].weight)
	}
	// The lightest host gets a whole number of places, unless that is too many.
	scale := min(math.Ceil(lightest*float64(minSize))/lightest, float64(maxSize))
	r.size = uint64(math.Ceil(scale))
	r.least = r.size
	r.entries = make([]ringEntry, 0, r.size)
	have, want := 0.0, 0.0
	var key []byte
	for i := range all {
		key = append(append(key[:0], all[i].key...), '_')
		stem := len(key)
		want += scale * all[i].weight
		n := uint64(0)
		for ; have < want; have++ {
			key = strconv.AppendUint(key[:stem], n, 10)
			hash := XXHash(string(key), 0)
			if murmur {
				hash = murmurHash(string(key))
			}
			r.entries = append(r.entries, ringEntry{hash, uint32(i)})
			n++
		}
		r.least, r.most = min(r.least, n), max(r.most, n)
	}
	slices.SortStableFunc(r.entries, func(a, b ringEntry) int {
		switch {
		case a.hash < b.hash:
			return -1
		case a.hash > b.hash:
			return 1
		}
		return 0
	})
	return r
}

func (r *ring) shares() []share { return r.all }

func (r *ring) at(hash uint64) int {
	if len(r.entries) == 0 { // also with minimum_ring_size 0
		return -1
	}
	low, high := 0, len(r.entries)
	for low < high {
		mid := (low + high) / 2
		if r.entries[mid].hash < hash {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low == len(r.entries) {
		low = 0
	}
	return int(r.entries[low].host)
}

func (r *ring) report(s *Stats) {
	s.scope.Gauge("ring_hash_lb.size").Set(r.size)
	s.scope.Gauge("ring_hash_lb.min_hashes_per_host").Set(r.least)
	s.scope.Gauge("ring_hash_lb.max_hashes_per_host").Set(r.most)
}
