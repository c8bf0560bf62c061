package parity

import (
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/sluice-proxy/sluice/test/peer"
)

// golden starts a proxy with the listeners and clusters of a control plane. Ports
// and endpoints are filled in: a back end for each cluster greets with its name.
// Then every listener that has a socket is asked which cluster it leads to.
func golden(file string, listeners ...string) scenario {
	return scenario{"golden_" + strings.TrimSuffix(strings.ReplaceAll(file, "-", "_"), ".yaml"), func(r *run) {
		b, err := os.ReadFile(filepath.Join("testdata", "goldens", file))
		if err != nil {
			r.Fatal(err)
		}
		var static obj
		if err := yaml.Unmarshal(b, &static); err != nil {
			r.Fatal(err)
		}
		r.start(obj{"node": obj{"id": "parity", "cluster": "parity"}, "static_resources": r.fill(map[string]any(static))})
		for _, l := range listeners {
			r.dial(l).as(l).expectLine()
		}
		for _, l := range listeners {
			r.note("%s in /config_dump: %v", l, r.chainNames(l))
		}
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

// chainNames are the names of a listener's chains as /config_dump has them.
func (r *run) chainNames(listener string) []string {
	var out []string
	body, _, err := r.proxy.get("/config_dump")
	if err != nil {
		r.Fatal(err)
	}
	var dump struct {
		Configs []struct {
			StaticListeners []struct {
				Listener struct {
					Name         string
					FilterChains []struct {
						Name    string
						Filters []struct{ Name string }
					} `json:"filter_chains"`
				}
			} `json:"static_listeners"`
		}
	}
	if err := yaml.Unmarshal([]byte(body), &dump); err != nil {
		r.Fatal(err)
	}
	for _, c := range dump.Configs {
		for _, l := range c.StaticListeners {
			if l.Listener.Name != listener {
				continue
			}
			for _, ch := range l.Listener.FilterChains {
				names := ch.Name + ":"
				for _, f := range ch.Filters {
					names += " " + f.Name
				}
				out = append(out, names)
			}
		}
	}
	return out
}

// goldens are what real control planes send.
var goldens = []scenario{
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
