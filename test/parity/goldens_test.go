package parity

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	// The types that goldens are written in.
	_ "github.com/cncf/xds/go/xds/type/matcher/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/local_ratelimit/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/matching/common_inputs/network/v3"

	"sigs.k8s.io/yaml"

	"github.com/sluice-proxy/sluice/test/peer"
)

// golden sends the listeners and clusters of a control plane over ADS. Ports and
// endpoints are filled in: a back end for each cluster greets with its name. Then
// every listener that has a socket is asked which cluster it leads to, and all
// are read back from /config_dump.
func golden(file string, listeners ...string) story {
	return story{"golden_" + strings.TrimSuffix(strings.ReplaceAll(file, "-", "_"), ".yaml"), func(s *stream) {
		b, err := os.ReadFile(filepath.Join("testdata", "goldens", file))
		if err != nil {
			s.Fatal(err)
		}
		var gold struct{ Listeners, Clusters []obj }
		if err := yaml.Unmarshal(b, &gold); err != nil {
			s.Fatal(err)
		}
		for _, o := range slices.Concat(gold.Listeners, gold.Clusters) {
			s.fill(map[string]any(o))
		}
		s.ready(gold.Clusters, gold.Listeners...)
		for _, l := range listeners {
			s.dial(l).as(l).expectLine()
		}
		s.dumped()
	}}
}

// fill replaces the places that a golden leaves open.
func (r *run) fill(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			v[k] = r.fill(inner)
		}
	case []any:
		for i, inner := range v {
			v[i] = r.fill(inner)
		}
	case string:
		if name, ok := strings.CutPrefix(v, "<endpoints "); ok {
			name = strings.TrimSuffix(name, ">")
			ap := r.serve("server of "+name, peer.ResponseThen(name+"\n", peer.Echo))
			return assignment(name, endpoint(ap))
		}
		if strings.HasPrefix(v, "<port ") {
			return freePort(r.TB, "127.0.0.1").Port()
		}
	}
	return v
}

// dumped notes every dynamic listener as /config_dump has it, without its address.
func (s *stream) dumped() {
	body, _, err := s.proxy.get("/config_dump")
	if err != nil {
		s.Fatal(err)
	}
	var dump struct {
		Configs []struct {
			DynamicListeners []struct {
				Name        string
				ActiveState struct{ Listener map[string]any } `json:"active_state"`
			} `json:"dynamic_listeners"`
		}
	}
	if err := json.Unmarshal([]byte(body), &dump); err != nil {
		s.Fatal(err)
	}
	var lines []string
	for _, c := range dump.Configs {
		for _, l := range c.DynamicListeners {
			delete(l.ActiveState.Listener, "address")
			text, err := json.Marshal(l.ActiveState.Listener)
			if err != nil {
				s.Fatal(err)
			}
			lines = append(lines, fmt.Sprintf("%s in /config_dump: %s", l.Name, text))
		}
	}
	slices.Sort(lines)
	for _, l := range lines {
		s.note("%s", l)
	}
}

// goldens are what real control planes send.
var goldens = []story{
	golden("istio.yaml", "virtualOutbound", "virtualInbound"),
	golden("kuma.yaml", "inbound:127.0.0.1:8000", "outbound:127.0.0.1:9000"),
	golden("envoy-gateway.yaml", "tcp-10080"),
	golden("consul.yaml", "public_listener:127.0.0.1:20000", "db:127.0.0.1:9191"),
}

// expectLine notes the first line that comes, after a byte was sent to get past
// filters that wait for one.
func (c *client) expectLine() {
	c.send("hello, this is no TLS")
	b := make([]byte, 100)
	n, err := c.Read(b)
	line, _, _ := strings.Cut(string(b[:n]), "\n")
	if err != nil {
		line = endText(err)
	}
	c.r.note("%s leads to %q", c.name, line)
	c.reset()
}
