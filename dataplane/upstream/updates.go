package upstream

import (
	"reflect"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
)

// Updates are Envoy's figures of changes to the hosts of clusters in force. Nil counts
// nothing. Nothing is put off to be merged here.
type Updates struct{ updated, atOnce *stats.Counter }

// NewUpdates makes them.
func NewUpdates(store *stats.Store) *Updates {
	sc := store.Scope("cluster_manager")
	for _, of := range []string{"cluster_updated_via_merge", "update_merge_cancelled"} {
		sc.Counter(of)
	}
	return &Updates{updated: sc.Counter("cluster_updated"), atOnce: sc.Counter("update_out_of_merge_window")}
}

// hosts counts the priorities whose hosts are others now.
func (f *Updates) hosts(was, is *api.Assignment) {
	if f == nil || was == is {
		return
	}
	before, now := byPriority(was), byPriority(is)
	for p := range now {
		if !reflect.DeepEqual(before[p], now[p]) {
			f.updated.Inc()
		}
	}
	for p := range before {
		if _, stays := now[p]; !stays {
			f.updated.Inc()
		}
	}
}

// health counts a change of a host's health.
func (f *Updates) health() {
	if f != nil {
		f.updated.Inc()
		f.atOnce.Inc()
	}
}

func byPriority(a *api.Assignment) map[uint32][]api.Locality {
	out := map[uint32][]api.Locality{}
	if a == nil {
		return out
	}
	for _, l := range a.Localities {
		out[l.Priority] = append(out[l.Priority], l)
	}
	return out
}

// defaultMatch is what Envoy calls the cluster's own transport socket.
const defaultMatch = "default"

// matchOf is the name of the transport_socket_matches that a host goes by.
func matchOf(c *api.Cluster, e *api.Endpoint, l *api.Locality) string {
	for _, metadata := range []api.Metadata{e.Metadata, l.Metadata} {
		for i := range c.SocketMatches {
			if m := &c.SocketMatches[i]; covers(metadata[api.SocketMatchMetadata], m.Match) {
				return m.Name
			}
		}
	}
	return defaultMatch
}

// matched counts the hosts that were made with a transport socket.
func (s *Stats) matched(name string) *stats.Counter {
	return s.scope.Counter(name + ".total_match_count")
}
