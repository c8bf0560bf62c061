package api

import (
	"cmp"
	"slices"
)

// Snapshot is the whole desired state. It is immutable once published: every
// value reachable from it is read-only, and may be shared with older snapshots
// (an unchanged resource keeps its pointer).
type Snapshot struct {
	// Generation grows by one with every published snapshot, from 1.
	Generation uint64
	// Listeners are sorted by name; names are unique. Where none differs from the
	// snapshot before, it is the same slice.
	Listeners []*Listener
	// Order are their names in the order in which they came.
	Order []string
	// Clusters that are still warming are not in here; their last good versions
	// are, if there were any.
	Clusters ClusterSet
	// Warming are versions of clusters whose endpoints are known, and that wait for
	// the first round of their active checks; the plane says when it has ended.
	Warming ClusterSet
	// Secrets are those that listeners and clusters refer to and that came. Where
	// none differs from the snapshot before, it is the same map.
	Secrets Secrets
}

// Listener returns the listener called name, or nil.
func (s *Snapshot) Listener(name string) *Listener {
	i, ok := slices.BinarySearchFunc(s.Listeners, name, func(l *Listener, n string) int {
		return cmp.Compare(l.Name, n)
	})
	if !ok {
		return nil
	}
	return s.Listeners[i]
}
