// Package assemble joins listeners, clusters and endpoints, as they come, to
// whole snapshots. It is a state machine without I/O, clock or goroutine: a
// cluster waits here for its endpoints, a bad resource leaves its last good
// version in force, and what is sent again unchanged changes nothing.
package assemble

import (
	"bytes"
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
)

// Resource is one decoded resource of an update, or why it could not be decoded.
type Resource[T any] struct {
	Name, Version string
	Raw           *anypb.Any
	// Dialling says how a cluster's endpoints are dialled (its transport sockets,
	// as bytes): a version in which that differs waits for endpoints of its own.
	Dialling string
	// Value is nil if Err is set, if Same, and in a heartbeat (Raw nil too).
	Value *T
	Err   error
	// Same says that Raw equals what the model has, as told by HasX; nothing
	// was decoded.
	Same bool
}

// Update is a response, decoded.
type Update[T any] struct {
	// Whole says that what is not in Resources is gone. It is never set for
	// endpoints: a partial response is legal for them.
	Whole     bool
	Resources []Resource[T]
	// Removed are names that are gone (delta).
	Removed []string
	Now     time.Time
}

// Problem is why one resource was rejected.
type Problem struct {
	Name string
	Err  error
	// Undone says that Result counted the resource before a sink refused it, as
	// Added if there was no version before, else as Modified.
	Undone Change
	// Whole says that the problem is the response's (a name twice), not of the
	// one resource.
	Whole bool
}

// Change says what a resource was counted as.
type Change uint8

// The changes that can be undone.
const (
	Unchanged Change = iota
	Added
	Modified
)

// Result says what an update did.
type Result struct {
	Added, Modified, Removed int
	// InPlace is how many of Modified differ in their filter chains only.
	InPlace int
	// Subscribed are the clusters whose new version asks EDS for its endpoints.
	Subscribed []*api.Cluster
	// Unmoved are the EDS names that came with the endpoints they had before.
	Unmoved map[string]bool
	// Changed are the extensions that are not what they were.
	Changed []string
	// Problems in the order of the update.
	Problems []Problem
}

// Failure is the last update of a resource that was rejected.
type Failure struct {
	Attempted *anypb.Any
	Version   string
	At        time.Time
	Err       error
}

// held is a version of a resource.
type held[T any] struct {
	raw      *anypb.Any
	version  string
	updated  time.Time
	value    *T
	dialling string
	// fed says of a cluster's version that it has the endpoints that it waited for.
	fed bool
	// answers are what the names of a cluster were resolved to, in their order.
	answers [][]netip.Addr
}

func hold[T any](r Resource[T], now time.Time) *held[T] {
	return &held[T]{raw: r.Raw, version: r.Version, updated: now, value: r.Value, dialling: r.Dialling}
}

func (h *held[T]) same(raw *anypb.Any) bool {
	return h != nil && raw != nil && h.raw.GetTypeUrl() == raw.GetTypeUrl() && bytes.Equal(h.raw.GetValue(), raw.GetValue())
}

// Model is the state. Not safe for concurrent use.
type Model struct {
	// Checks says that somebody does the first active checks of clusters, and
	// tells when they are done; else nobody waits for them.
	Checks bool

	clusters  map[string]*cluster
	listeners map[string]*listener
	endpoints map[string]*endpoints // by EDS name; all that are wanted, no others
	// named are the versions of clusters whose names are resolved.
	named      map[*api.Cluster]*cluster
	namesEpoch uint64
	// extensions by key; all that are wanted, no others, in the order in which they
	// were first wanted.
	extensions     map[string]*extension
	extensionKeys  []string
	extensionEpoch uint64
	secretState
	warming int // clusters with a warming version
	active  int // clusters with an active version
	// tentative are the listeners that changed since the last Commit.
	tentative []*listener

	generation uint64
	last       *api.Snapshot
	dirty      bool
	// published are the clusters of the last snapshot; unpublished are the names of
	// those that changed since. listed are the listeners; unlisted says that those
	// are not up to date, and neither are the two counts.
	published, publishedWarming       api.ClusterSet
	unpublished, unpublishedWarming   []string
	listed                            []*api.Listener
	listenersMade                     uint64
	order                             []string // of listed, as they came
	unlisted                          bool
	activeListeners, warmingListeners int
	// epoch grows whenever endpoints gains or loses a name.
	epoch uint64
}

// New returns an empty model.
func New() *Model {
	return &Model{
		clusters: map[string]*cluster{}, listeners: map[string]*listener{}, endpoints: map[string]*endpoints{}, named: map[*api.Cluster]*cluster{},
		extensions: map[string]*extension{}, secretState: newSecretState(),
		dirty:    true, // the first snapshot is due even if it is empty
		unlisted: true,
	}
}

// Warming is how many clusters wait for endpoints, secrets or checks.
func (m *Model) Warming() int { return m.warming }

// ActiveClusters is how many clusters are in the snapshot.
func (m *Model) ActiveClusters() int { return m.active }

// ActiveListeners is how many listeners are in the snapshot.
func (m *Model) ActiveListeners() int {
	m.list()
	return m.activeListeners
}

// list brings up to date what is known of all listeners.
func (m *Model) list() {
	if !m.unlisted {
		return
	}
	m.unlisted = false
	m.warmingListeners = 0
	m.listed = make([]*api.Listener, 0, len(m.listeners))
	for _, l := range slices.SortedFunc(maps.Values(m.listeners), inOrder) {
		if l.active != nil {
			m.listed = append(m.listed, m.resolved(l))
		}
		if l.warming != nil {
			m.warmingListeners++
		}
	}
	m.order = make([]string, len(m.listed))
	for i, l := range m.listed {
		m.order[i] = l.Name
	}
	m.activeListeners = len(m.listed)
	slices.SortFunc(m.listed, func(a, b *api.Listener) int { return cmp.Compare(a.Name, b.Name) })
}

// Snapshot returns the next snapshot, or nil if nothing changed since the last
// one. Commit must follow before the model is updated again.
func (m *Model) Snapshot() *api.Snapshot {
	if !m.dirty {
		return nil
	}
	m.dirty = false
	m.generation++
	m.list()
	m.published = m.published.Edit(m.unpublished, func(name string) *api.Cluster {
		if c := m.clusters[name]; c != nil && c.active != nil {
			return c.joined
		}
		return nil
	})
	m.publishedWarming = m.publishedWarming.Edit(m.unpublishedWarming, func(name string) *api.Cluster {
		if c := m.clusters[name]; c != nil {
			return c.checking
		}
		return nil
	})
	m.unpublished, m.unpublishedWarming = nil, nil
	m.last = &api.Snapshot{Generation: m.generation, Listeners: m.listed, Order: m.order, Clusters: m.published, Warming: m.publishedWarming, Secrets: m.secretSet()}
	return m.last
}

// Published is the last snapshot, nil before the first.
func (m *Model) Published() *api.Snapshot { return m.last }

// View is one resource as the model has it, for dumps.
type View struct {
	Name            string
	Static          bool
	Version         string
	Updated         time.Time
	Active, Warming *anypb.Any
	Failed          *Failure
}

func view[T any](name string, static bool, active, warming *held[T], failed *Failure) View {
	v := View{Name: name, Static: static, Failed: failed}
	if warming != nil {
		v.Warming, v.Version, v.Updated = warming.raw, warming.version, warming.updated
	}
	if active != nil {
		v.Active, v.Version, v.Updated = active.raw, active.version, active.updated
	}
	return v
}

func sortViews(v []View) []View {
	slices.SortFunc(v, func(a, b View) int { return cmp.Compare(a.Name, b.Name) })
	return v
}

// Tentative is how many listeners changed since the last Commit.
func (m *Model) Tentative() int { return len(m.tentative) }
