package resource

import (
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/substitution"
)

func rateLimitFilterText(more string) string {
	return before(networkFilterText("ratelimit", "RateLimit", "stat_prefix: p, domain: d, "+more))
}

const rateLimitService = "rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: c}}}"

func TestRateLimitIsDecoded(t *testing.T) {
	decodesFilters(t, []filterTest{
		{what: "by default", in: rateLimitFilterText("descriptors: [{entries: [{key: k, value: v}]}], " + rateLimitService),
			want: api.Filter{RateLimit: &api.RateLimit{StatPrefix: "p", Domain: "d", Timeout: 20 * time.Millisecond, Service: api.GRPCService{Cluster: "c", Timeout: never},
				Descriptors: []api.RateLimitDescriptor{{{Key: "k", Value: substitution.Format{{Literal: "v", Max: -1}}}}}}}},
		{what: "in full", in: rateLimitFilterText("timeout: 1s, failure_mode_deny: true, descriptors: [{entries: [{key: k, value: '%HOSTNAME%'}, {key: l, value: w}], limit: {requests_per_unit: 1, unit: SECOND}}, {entries: [{key: m, value: x}]}], " + rateLimitService),
			want: api.Filter{RateLimit: &api.RateLimit{StatPrefix: "p", Domain: "d", Timeout: time.Second, FailureModeDeny: true, Service: api.GRPCService{Cluster: "c", Timeout: never},
				Descriptors: []api.RateLimitDescriptor{
					{{Key: "k", Value: substitution.Format{{Command: "HOSTNAME", Max: -1}}}, {Key: "l", Value: substitution.Format{{Literal: "w", Max: -1}}}},
					{{Key: "m", Value: substitution.Format{{Literal: "x", Max: -1}}}}}}}},
	})
}

func TestRateLimitIsRefused(t *testing.T) {
	refusesFilters(t, []struct{ what, in, want string }{
		{"a command that is none", rateLimitFilterText("descriptors: [{entries: [{key: k, value: '%NOPE%'}]}], " + rateLimitService), "rate_limit.descriptors[0].entries[0].value: Not supported field in StreamInfo: NOPE"},
		{"version 2", rateLimitFilterText("descriptors: [{entries: [{key: k, value: v}]}], rate_limit_service: {transport_api_version: V2, grpc_service: {envoy_grpc: {cluster_name: c}}}"), "rate_limit.rate_limit_service.transport_api_version: V2 xDS transport protocol version is deprecated (V2)"},
	})
}
