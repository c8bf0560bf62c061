package xds

import (
	"context"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/xds/ads"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// subscription are the figures that Envoy has for everything it subscribes to
// (docs: configuration/overview/mgmt_server, "xDS subscription statistics").
type subscription struct {
	attempt, success, failure, rejected, fetchTimeout *stats.Counter
	time, version                                     *stats.Gauge
	text                                              *stats.Text
	duration                                          *stats.Histogram
	file                                              bool // a path_config_source
}

func newSubscription(sc *stats.Scope) *subscription {
	return &subscription{
		attempt: sc.Counter("update_attempt"), success: sc.Counter("update_success"), failure: sc.Counter("update_failure"),
		rejected: sc.Counter("update_rejected"), fetchTimeout: sc.Counter("init_fetch_timeout"),
		time: sc.Gauge("update_time"), version: sc.Gauge("version"), text: sc.Text("version_text"),
		duration: sc.Histogram("update_duration"),
	}
}

// An attempt is the start of a subscription, and what is waited for after each
// outcome: Envoy counts the next one at once.
// With a file it is the read, counted with its outcome.
func (s *subscription) started() {
	if !s.file {
		s.attempt.Inc()
	}
}
func (s *subscription) disconnected() { s.failure.Inc(); s.attempt.Inc() }
func (s *subscription) timedOut()     { s.fetchTimeout.Inc(); s.attempt.Inc() }

func (s *subscription) again()     { s.success.Inc(); s.attempt.Inc() }
func (s *subscription) rejection() { s.rejected.Inc(); s.attempt.Inc() }
func (s *subscription) accepted(version string, took time.Duration) {
	s.duration.RecordTime(took)
	s.success.Inc()
	s.attempt.Inc()
	s.time.Set(uint64(time.Now().UnixMilli()))
	// Envoy's hash, for dashboards that compare the two.
	s.version.Set(xxhash.Sum64String(version))
	s.text.Set(version)
}

// edsFigures are a subscription's, for one EDS cluster, with the scope to give
// back.
type edsFigures struct {
	*subscription
	// empty: the server removed the endpoints; noRebuild: it sent the same again.
	empty, noRebuild *stats.Counter
	// bounded: it came with an endpoint_stale_after; stale: that was over.
	bounded, stale *stats.Counter
	scope          *stats.Scope
	// fresh says that this version of the cluster has no endpoints yet: its first
	// ones are no rebuild, were they the same as before.
	fresh bool
	from  ads.Source
}

// dnsFigures are those of one cluster that finds its hosts by DNS.
type dnsFigures struct {
	attempt, success, failure, noRebuild *stats.Counter
	scope                                *stats.Scope
}

// planeFigures are those of one stream's control plane.
type planeFigures struct {
	connected, pendingRequests *stats.Gauge
	limited                    *stats.Counter
	identifier                 *stats.Text
}

func newPlaneFigures(sc *stats.Scope) *planeFigures {
	p := &planeFigures{connected: sc.Gauge("connected_state"), pendingRequests: sc.Gauge("pending_requests"),
		limited: sc.Counter("rate_limit_enforced"), identifier: sc.Text("identifier")}
	p.connected.Set(0)
	p.pendingRequests.Set(0)
	return p
}

func (p *planeFigures) opened() {
	if p != nil {
		p.connected.Set(1)
	}
}

func (p *planeFigures) closed() {
	if p != nil {
		p.connected.Set(0)
	}
}

func (e *edsFigures) started() { e.subscription.started(); e.fresh = true }

// arrived counts an assignment; unmoved says that the cluster had these hosts.
func (e *edsFigures) arrived(version string, took time.Duration, unmoved, none bool) {
	e.accepted(version, took)
	if unmoved && (!e.fresh || none) {
		e.noRebuild.Inc()
	}
	e.fresh = false
}

// figures are all stats of this package.
type figures struct {
	store    *stats.Store
	cds, lds *subscription
	eds      map[string]*edsFigures // by cluster name
	dns      map[string]*dnsFigures // by cluster name
	planes   map[ads.Source]*planeFigures
	// extensions by the filter's name.
	extensions map[string]*extensionFigures

	clusterAdded, clusterModified, clusterRemoved     *stats.Counter
	activeClusters, warmingClusters                   *stats.Gauge
	configReload                                      *stats.Counter
	configReloadTime                                  *stats.Gauge
	listenerAdded, listenerModified, listenerRemoved  *stats.Counter
	createSuccess, createFailure                      *stats.Counter
	inPlaceUpdated                                    *stats.Counter
	listenersActive, listenersWarming, workersStarted *stats.Gauge
	dynamicUnknown, unbuilt                           *stats.Counter

	log  *slog.Logger
	told map[string]bool // fields, as noted has logged them
}

func newFigures(st *stats.Store, log *slog.Logger) *figures {
	cm, lm := st.Scope("cluster_manager"), st.Scope("listener_manager")
	sv := st.Scope("server")
	cds := st.Scope("cluster_manager", "cds")
	f := &figures{
		store: st, log: log, told: map[string]bool{}, cds: newSubscription(cds), lds: newSubscription(st.Scope("listener_manager", "lds")),
		eds: map[string]*edsFigures{}, dns: map[string]*dnsFigures{}, planes: map[ads.Source]*planeFigures{}, extensions: map[string]*extensionFigures{},
		clusterAdded: cm.Counter("cluster_added"), clusterModified: cm.Counter("cluster_modified"),
		clusterRemoved: cm.Counter("cluster_removed"),
		activeClusters: cm.Gauge("active_clusters"), warmingClusters: cm.Gauge("warming_clusters"),
		configReload: cds.Counter("config_reload"), configReloadTime: cds.Gauge("config_reload_time_ms"),
		listenerAdded: lm.Counter("listener_added"), listenerModified: lm.Counter("listener_modified"),
		listenerRemoved: lm.Counter("listener_removed"),
		createSuccess:   lm.Counter("listener_create_success"), createFailure: lm.Counter("listener_create_failure"),
		inPlaceUpdated:  lm.Counter("listener_in_place_updated"),
		listenersActive: lm.Gauge("total_listeners_active"), listenersWarming: lm.Gauge("total_listeners_warming"),
		workersStarted: lm.Gauge("workers_started"),
		dynamicUnknown: sv.Counter("dynamic_unknown_fields"), unbuilt: sv.Counter("unbuilt_fields"),
	}
	f.listenersWarming.Set(0)
	f.workersStarted.Set(0)
	return f
}

func clusterTag(c *api.Cluster) stats.Tag {
	return stats.Tag{Name: "envoy.cluster_name", Value: c.StatName()}
}

// of are the figures of an EDS cluster, made on first use.
func (f *figures) of(c *api.Cluster) *edsFigures {
	e, ok := f.eds[c.Name]
	if !ok {
		sc := f.store.Scope("cluster", clusterTag(c))
		e = &edsFigures{subscription: newSubscription(sc), empty: sc.Counter("update_empty"), noRebuild: sc.Counter("update_no_rebuild"),
			bounded: sc.Counter("assignment_timeout_received"), stale: sc.Counter("assignment_stale"), scope: sc}
		f.eds[c.Name] = e
	}
	return e
}

// dnsOf are the figures of a cluster that has names, made on first use.
func (f *figures) dnsOf(c *api.Cluster) *dnsFigures {
	d, ok := f.dns[c.Name]
	if !ok {
		sc := f.store.Scope("cluster", clusterTag(c))
		sc.Counter("update_empty") // no DNS cluster ever moves it
		d = &dnsFigures{attempt: sc.Counter("update_attempt"), success: sc.Counter("update_success"), failure: sc.Counter("update_failure"),
			noRebuild: sc.Counter("update_no_rebuild"), scope: sc}
		f.dns[c.Name] = d
	}
	return d
}

// forget gives back the figures of clusters that are gone.
func (f *figures) forget(gone func(name string) bool) {
	for name, e := range f.eds {
		if gone(name) {
			delete(f.eds, name)
			e.scope.Release()
		}
	}
	for name, d := range f.dns {
		if gone(name) {
			delete(f.dns, name)
			d.scope.Release()
		}
	}
}

// indices are what tells one field of a resource from its twin in another place.
var indices = regexp.MustCompile(`\[[^\]]*\]`)

// noted counts what a resource asks for that has no effect, and says it in the
// log, each field once.
func (f *figures) noted(n resource.Notes, dynamic bool) {
	for _, path := range n.Unbuilt {
		field := indices.ReplaceAllString(path, "[]")
		if f.told[field] {
			continue
		}
		f.told[field] = true
		level := slog.LevelInfo
		if strings.HasPrefix(field, "health_checks") || strings.HasPrefix(field, "outlier_detection") {
			level = slog.LevelWarn // somebody may come to feel it
		}
		f.log.Log(context.Background(), level, "accepted without effect; this is said once", "field", field)
	}
	f.unbuilt.Add(uint64(len(n.Unbuilt)))
	if dynamic {
		f.dynamicUnknown.Add(uint64(n.Unknown))
	}
}
