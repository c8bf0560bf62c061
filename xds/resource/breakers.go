package resource

import (
	"errors"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/sluice-proxy/sluice/api"
)

// breakers takes the first thresholds of a priority, and the first of each host, as
// Envoy does; what is not set has Envoy's default.
func breakers(p *clusterv3.CircuitBreakers, priority corev3.RoutingPriority) api.CircuitBreakers {
	t := thresholdsOf(p.GetThresholds(), priority)
	return api.CircuitBreakers{
		TrackRemaining:     t.GetTrackRemaining(),
		MaxConnections:     uint32Or(t.GetMaxConnections(), api.DefaultMaxConnections),
		MaxPendingRequests: uint32Or(t.GetMaxPendingRequests(), api.DefaultMaxPendingRequests),
		MaxRequests:        uint32Or(t.GetMaxRequests(), api.DefaultMaxRequests),
		MaxRetries:         uint32Or(t.GetMaxRetries(), api.DefaultMaxRetries),
		PerHost:            number(thresholdsOf(p.GetPerHostThresholds(), priority).GetMaxConnections()),
		MaxPools:           number(t.GetMaxConnectionPools()),
		Budget:             retryBudget(t.GetRetryBudget()),
	}
}

func thresholdsOf(all []*clusterv3.CircuitBreakers_Thresholds, priority corev3.RoutingPriority) *clusterv3.CircuitBreakers_Thresholds {
	for _, t := range all {
		if t.GetPriority() == priority {
			return t
		}
	}
	return nil
}

func retryBudget(b *clusterv3.CircuitBreakers_Thresholds_RetryBudget) *api.RetryBudget {
	if b == nil {
		return nil
	}
	out := &api.RetryBudget{Percent: api.DefaultRetryBudget, Least: uint32Or(b.GetMinRetryConcurrency(), api.DefaultMaxRetries)}
	if p := b.GetBudgetPercent(); p != nil {
		out.Percent = p.GetValue()
	}
	return out
}

// perHost fails for limits that Envoy has for connections alone.
func (w *walker) perHost(p *clusterv3.CircuitBreakers) {
	for i, t := range p.GetPerHostThresholds() {
		if t.GetMaxPendingRequests() != nil || t.GetMaxRequests() != nil || t.GetMaxRetries() != nil || t.GetRetryBudget() != nil || t.GetTrackRemaining() || t.GetMaxConnectionPools() != nil {
			w.fail(fmt.Sprintf("circuit_breakers.per_host_thresholds[%d]", i), errors.New("Unsupported field in per_host_thresholds"))
		}
	}
}
