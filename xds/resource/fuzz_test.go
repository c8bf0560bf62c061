package resource

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
)

// seed adds the messages, and each of them cut short.
func seed(f *testing.F, ms ...proto.Message) {
	for _, m := range ms {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
}

func contract(t *testing.T, value any, isNil bool, err error) {
	t.Helper()
	if (err == nil) == isNil {
		t.Fatalf("value %v and error %v", value, err)
	}
	if err != nil && (strings.ContainsRune(err.Error(), '\n') || !utf8.ValidString(err.Error())) {
		t.Fatalf("not one printable line: %q", err)
	}
}

func FuzzListener(f *testing.F) {
	seed(f, listenerOf(f, chainWith("")), listenerOf(f, proxy("idle_timeout: 0s, access_log: [{name: a}]")),
		listenerOf(f, on+`, filter_chains: [{filter_chain_match: {destination_port: 1}, filters: [`+mongo+`]}, {filters: [`+hcm+`]}]`),
		listenerOf(f, plus(`additional_addresses: [{address: {socket_address: {address: "::", port_value: 0, ipv4_compat: true}}}], socket_options: [{level: 6, name: 4, int_value: 1}]`)),
		listenerOf(f, on+`, filter_chain_matcher: {matcher_tree: {input: {name: i, typed_config: {"@type": type.googleapis.com/envoy.extensions.matching.common_inputs.network.v3.SourceIPInput}}, custom_match: {name: m, typed_config: {"@type": type.googleapis.com/xds.type.matcher.v3.IPMatcher, range_matchers: [{ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}], on_match: {action: {name: a, typed_config: {"@type": type.googleapis.com/google.protobuf.StringValue, value: a}}}}]}}}}, filter_chains: [{name: a, filters: [`+tcp+`]}]`),
		listenerOf(f, on+`, filter_chains: [{filter_chain_match: {prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}], direct_source_prefix_ranges: [{address_prefix: "::"}], source_type: EXTERNAL, source_prefix_ranges: [{address_prefix: "10.1.0.0", prefix_len: 99}], source_ports: [1, 2], transport_protocol: raw_buffer}, filters: [`+tcp+`]}]`),
		listenerOf(f, on+`, traffic_direction: OUTBOUND, filter_chains: [{filters: [{name: istio.metadata_exchange, typed_config: {"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange, value: {enable_discovery: true, protocol: istio-peer-exchange}}}, `+tcp+`]}], listener_filters_timeout: 0s, continue_on_listener_filters_timeout: true`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, l, _, err := Listener(&anypb.Any{TypeUrl: "type.googleapis.com/envoy.config.listener.v3.Listener", Value: b})
		contract(t, l, l == nil, err)
		if l == nil {
			return
		}
		if len(l.Addresses) == 0 || !l.Addresses[0].Addr.IsValid() || l.Name == "" || l.PerConnectionBufferLimit == 0 || l.Backlog < 0 {
			t.Fatalf("unfit: %+v", l)
		}
		seen := map[string]bool{}
		for _, c := range l.FilterChains {
			key := fmt.Sprintf("%+v", c.Match)
			if l.Matcher != nil {
				key = c.Name
			}
			if seen[key] {
				t.Fatalf("two chains match %s", key)
			}
			seen[key] = true
			for _, flt := range c.Filters {
				if bad := unfitFilter(&flt); bad != "" {
					t.Fatalf("unfit: %s: %+v", bad, flt)
				}
			}
		}
	})
}

func FuzzCluster(f *testing.F) {
	seed(f, clusterOf(f, eds+`, outlier_detection: {}`), clusterOf(f, eds+`, connect_timeout: 10s, circuit_breakers: {thresholds: [{max_connections: 4294967295, max_pending_requests: 4294967295, track_remaining: true}]}, common_lb_config: {healthy_panic_threshold: {}}, metadata: {filter_metadata: {istio: {a: b}}}`),
		clusterOf(f, `name: c, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 9}}}}]}]}`),
		clusterOf(f, `name: c, lb_policy: LEAST_REQUEST, least_request_lb_config: {choice_count: 3}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, c, _, err := Cluster(&anypb.Any{TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster", Value: b})
		contract(t, c, c == nil, err)
		if c == nil {
			return
		}
		if c.Name == "" || c.ConnectTimeout <= 0 || c.Balancing.ChoiceCount < 2 || !(c.PanicThreshold >= 0 && c.PanicThreshold <= 100) ||
			c.PerConnectionBufferLimit == 0 || (c.Assignment == nil) != (c.Discovery == api.EDS) {
			t.Fatalf("unfit: %+v", c)
		}
	})
}

func FuzzAssignment(f *testing.F) {
	seed(f, assignmentOf(f, `cluster_name: s`), assignmentOf(f, `cluster_name: s, policy: {overprovisioning_factor: 1}, endpoints: [{priority: 1, locality: {zone: z}, lb_endpoints: [{health_status: HEALTHY, load_balancing_weight: 3, endpoint: {address: {socket_address: {address: "fd00::1", port_value: 80}}}}, {endpoint: {hostname: h, address: {socket_address: {address: 10.0.0.1, port_value: 65535}}}}]}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, as, _, err := Assignment(&anypb.Any{TypeUrl: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", Value: b})
		contract(t, as, as == nil, err)
		if as == nil {
			return
		}
		for _, l := range as.Localities {
			for _, e := range l.Endpoints {
				if !e.Addr.IsValid() || e.Weight == 0 || e.Health > api.HealthDegraded {
					t.Fatalf("unfit: %+v", e)
				}
			}
		}
	})
}
