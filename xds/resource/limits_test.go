package resource

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
)

// networkFilterText is a filter by the folder of its proto, its message and more.
func networkFilterText(folder, message, more string) string {
	return `{name: f, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.` + folder + `.v3.` + message + `, ` + more + `}}`
}

// before is a listener with one filter before its tcp_proxy.
func before(filter string) string {
	return on + `, filter_chains: [{filters: [` + filter + `, ` + tcp + `]}]`
}

// alone is a listener with one filter.
func alone(filter string) string { return on + `, filter_chains: [{filters: [` + filter + `]}]` }

type filterTest struct {
	what, in string
	want     api.Filter
	unbuilt  []string
}

// decodesFilters checks the first filter of each listener.
func decodesFilters(t *testing.T, tests []filterTest) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			_, l, n, err := Listener(pack(t, listenerOf(t, tt.in)))
			if err != nil {
				t.Fatal(err)
			}
			tt.want.Name = "f"
			if d := cmp.Diff(tt.want, l.FilterChains[0].Filters[0], cmpopts.EquateComparable(netip.Prefix{})); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tt.unbuilt, n.Unbuilt, cmpopts.EquateEmpty()); d != "" {
				t.Error(d)
			}
		})
	}
}

// refusesFilters checks that each listener is refused; want is without the path
// of the filter.
func refusesFilters(t *testing.T, tests []struct{ what, in, want string }) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.what, func(t *testing.T) {
			_, l, _, err := Listener(pack(t, listenerOf(t, tt.in)))
			if err == nil || l != nil {
				t.Fatalf("taken: %+v", l)
			}
			if got := strings.TrimPrefix(err.Error(), "filter_chains[0].filters[0] "); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func connectionLimitText(more string) string {
	return networkFilterText("connection_limit", "ConnectionLimit", more)
}

func rateLimitText(more string) string {
	return networkFilterText("local_ratelimit", "LocalRateLimit", more)
}

func directResponseText(more string) string {
	return networkFilterText("direct_response", "Config", more)
}

func TestLimitsAreDecoded(t *testing.T) {
	t.Setenv("SLUICE_TEST_BODY", "of the environment")
	file := filepath.Join(t.TempDir(), "body")
	if err := os.WriteFile(file, []byte("of a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	body := func(s string) api.Filter { return api.Filter{DirectResponse: &api.DirectResponse{Body: s}} }
	const flag = ", runtime_enabled: {default_value: %, runtime_key: k}"
	decodesFilters(t, []filterTest{
		{what: "connections by default", in: before(connectionLimitText("stat_prefix: p, max_connections: 3")),
			want: api.Filter{ConnectionLimit: &api.ConnectionLimit{StatPrefix: "p", MaxConnections: 3}}},
		{what: "connections in full", in: before(connectionLimitText("stat_prefix: p, max_connections: 18446744073709551615, delay: 1.0019s" + strings.Replace(flag, "%", "false", 1))),
			want: api.Filter{ConnectionLimit: &api.ConnectionLimit{StatPrefix: "p", MaxConnections: 1<<64 - 1, Delay: 1001 * time.Millisecond, Enabled: runtime.Flag{Key: "k", Off: true}}}},
		{what: "rate by default", in: before(rateLimitText("stat_prefix: p, token_bucket: {max_tokens: 5, fill_interval: 1s}")),
			want: api.Filter{LocalRateLimit: &api.LocalRateLimit{StatPrefix: "p", Bucket: api.TokenBucket{MaxTokens: 5, TokensPerFill: 1, FillInterval: time.Second}}}},
		{what: "rate in full", in: before(rateLimitText("stat_prefix: p, share_key: s, token_bucket: {max_tokens: 0, tokens_per_fill: 7, fill_interval: 0.0509s}" + strings.Replace(flag, "%", "true", 1))),
			want: api.Filter{LocalRateLimit: &api.LocalRateLimit{StatPrefix: "p", ShareKey: "s", Enabled: runtime.Flag{Key: "k"}, Bucket: api.TokenBucket{TokensPerFill: 7, FillInterval: 50 * time.Millisecond}}}},
		{what: "no answer", in: alone(directResponseText("")), want: body("")},
		{what: "an answer of text", in: alone(directResponseText("response: {inline_string: hello}")), want: body("hello")},
		{what: "an answer of bytes", in: alone(directResponseText("response: {inline_bytes: AP8=}")), want: body("\x00\xff")},
		{what: "an answer of a file", in: alone(directResponseText("response: {filename: " + file + "}")), want: body("of a file")},
		{what: "an answer of the environment", in: alone(directResponseText("response: {environment_variable: SLUICE_TEST_BODY}")), want: body("of the environment")},
	})
}

// Where Envoy 1.40 refuses the same, the cause is its own.
func TestLimitsAreRefused(t *testing.T) {
	refusesFilters(t, []struct{ what, in, want string }{
		{"no limit", before(connectionLimitText("stat_prefix: p")), "connection_limit: Field 'max_connections' is missing"},
		{"a limit of nobody", before(connectionLimitText("stat_prefix: p, max_connections: 0")), "connection_limit.max_connections: Proto constraint validation failed (ConnectionLimitValidationError.MaxConnections: value must be greater than or equal to 1) (\"0\")"},
		{"a delay into the past", before(connectionLimitText("stat_prefix: p, max_connections: 1, delay: -1s")), "connection_limit.delay: Invalid duration: Expected positive duration (-1s 0ns)"},
		{"no prefix", before(connectionLimitText("max_connections: 1")), "connection_limit.stat_prefix: Proto constraint validation failed (ConnectionLimitValidationError.StatPrefix: value length must be at least 1 characters) (\"\")"},
		{"a limit at the end of the chain", alone(connectionLimitText("stat_prefix: p, max_connections: 1")), "connection_limit: Error: non-terminal filter named f of type envoy.filters.network.connection_limit is the last filter in a network filter chain."},
		{"too quick a bucket", before(rateLimitText("stat_prefix: p, token_bucket: {max_tokens: 1, fill_interval: 0.0499s}")), "local_rate_limit.token_bucket.fill_interval: local rate limit token bucket fill timer must be >= 50ms (49ms)"},
		{"an answer before the end of the chain", before(directResponseText("")), "config: Error: terminal filter named f of type envoy.filters.network.direct_response must be the last filter in a network filter chain."},
		{"no such file", alone(directResponseText("response: {filename: /nonexistent}")), "config.response: Invalid path: /nonexistent"},
		{"a device", alone(directResponseText("response: {filename: /dev/null}")), "config.response: Invalid path: /dev/null"},
		{"a folder", alone(directResponseText("response: {filename: /tmp}")), "config.response: Invalid path: /tmp"},
		{"no such variable", alone(directResponseText("response: {environment_variable: NO_SUCH_VARIABLE}")), "config.response: Environment variable doesn't exist: NO_SUCH_VARIABLE"},
	})
}
