package outlier

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"

	"github.com/sluice-proxy/sluice/api/stats"
)

// kind is OutlierEjectionType. The two of an origin follow each other.
type kind uint8

const (
	consecutive5xx kind = iota
	consecutiveGateway
	consecutiveLocal
	successRate
	successRateLocal
	failurePercentage
	failurePercentageLocal
	kinds
)

// names are the kinds in counters and in the event log.
var names = [kinds]struct{ stat, event string }{
	{"consecutive_5xx", "CONSECUTIVE_5XX"},
	{"consecutive_gateway_failure", "CONSECUTIVE_GATEWAY_FAILURE"},
	{"consecutive_local_origin_failure", "CONSECUTIVE_LOCAL_ORIGIN_FAILURE"},
	{"success_rate", "SUCCESS_RATE"},
	{"local_origin_success_rate", "SUCCESS_RATE_LOCAL_ORIGIN"},
	{"failure_percentage", "FAILURE_PERCENTAGE"},
	{"local_origin_failure_percentage", "FAILURE_PERCENTAGE_LOCAL_ORIGIN"},
}

// enforcing is in how many percent of cases a kind ejects.
func (d *Detector[H]) enforcing(k kind) uint64 {
	c := d.config
	key, configured := [kinds]string{"enforcing_consecutive_5xx", "enforcing_consecutive_gateway_failure", "enforcing_consecutive_local_origin_failure",
		"enforcing_success_rate", "enforcing_local_origin_success_rate", "enforcing_failure_percentage", "enforcing_failure_percentage_local_origin"},
		[kinds]uint32{c.EnforcingConsecutive5xx, c.EnforcingConsecutiveGatewayFailure, c.EnforcingConsecutiveLocalOriginFailure,
			c.EnforcingSuccessRate, c.EnforcingLocalOriginSuccessRate, c.EnforcingFailurePercentage, c.EnforcingFailurePercentageLocalOrigin}
	return d.number(key[k], configured[k])
}

type figures struct {
	scope              *stats.Scope
	detected, enforced [kinds]*stats.Counter
	// total, consecutive5xx and successRate are of old, and still shown.
	enforcedTotal, overflow, total, consecutive5xx, successRate *stats.Counter
	active                                                      *stats.Gauge
}

func newFigures(store *stats.Store, name string) *figures {
	sc := store.Scope("cluster", stats.Tag{Name: "envoy.cluster_name", Value: name}, "outlier_detection")
	f := &figures{scope: sc, enforcedTotal: sc.Counter("ejections_enforced_total"), overflow: sc.Counter("ejections_overflow"),
		total: sc.Counter("ejections_total"), consecutive5xx: sc.Counter("ejections_consecutive_5xx"), successRate: sc.Counter("ejections_success_rate"),
		active: sc.Gauge("ejections_active")}
	for k, n := range names {
		f.detected[k], f.enforced[k] = sc.Counter("ejections_detected_"+n.stat), sc.Counter("ejections_enforced_"+n.stat)
	}
	sc.Counter("ejections_detected_degradation") // of HTTP responses; named as Envoy names it
	return f
}

// event is an OutlierDetectionEvent (envoy.data.cluster.v3) as Envoy prints it.
type event struct {
	Type        string         `json:"type"`
	Timestamp   string         `json:"timestamp"`
	Since       string         `json:"secs_since_last_action,omitempty"`
	Cluster     string         `json:"cluster_name"`
	Upstream    string         `json:"upstream_url"`
	Action      string         `json:"action"`
	Ejections   int            `json:"num_ejections"`
	Enforced    bool           `json:"enforced"`
	SuccessRate *successEvent  `json:"eject_success_rate_event,omitempty"`
	Consecutive *struct{}      `json:"eject_consecutive_event,omitempty"`
	Failures    *failuresEvent `json:"eject_failure_percentage_event,omitempty"`
}

type successEvent struct {
	Host      uint32 `json:"host_success_rate"`
	Average   uint32 `json:"cluster_average_success_rate"`
	Threshold uint32 `json:"cluster_success_rate_ejection_threshold"`
}

type failuresEvent struct {
	Host uint32 `json:"host_success_rate"`
}

func (d *Detector[H]) logEjection(h H, m *Monitor, k kind, enforced bool, now time.Time) {
	e := event{Type: names[k].event, Action: "EJECT", Ejections: m.ejections, Enforced: enforced}
	switch o := int(k-successRate) % origins; k {
	case consecutive5xx, consecutiveGateway, consecutiveLocal:
		e.Consecutive = &struct{}{}
	case successRate, successRateLocal:
		e.SuccessRate = &successEvent{percent(m.rate[o]), percent(d.rates[o].average), percent(d.rates[o].threshold)}
	default:
		e.Failures = &failuresEvent{percent(m.rate[o])}
	}
	d.write(h, e, m.returnedAt, now)
}

func (d *Detector[H]) logReturn(h H, m *Monitor, now time.Time) {
	d.write(h, event{Type: names[consecutive5xx].event, Action: "UNEJECT", Ejections: m.ejections}, m.ejectedAt, now)
}

func (d *Detector[H]) write(h H, e event, last, now time.Time) {
	if d.o.Log == nil {
		return
	}
	if !last.IsZero() {
		e.Since = strconv.FormatInt(int64(now.Sub(last)/time.Second), 10)
	}
	e.Cluster, e.Upstream, e.Timestamp = d.name, h.Address(), now.UTC().Format("2006-01-02T15:04:05.000Z")
	var line bytes.Buffer
	out := json.NewEncoder(&line)
	out.SetEscapeHTML(false)
	if out.Encode(e) == nil {
		d.o.Log.Write(line.Bytes())
	}
}

func percent(rate float64) uint32 { return uint32(max(0, rate)) }
