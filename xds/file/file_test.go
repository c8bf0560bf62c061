package file

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
)

func parse(t *testing.T, in, ext string) *bootstrapv3.Bootstrap {
	t.Helper()
	p := &bootstrapv3.Bootstrap{}
	if _, err := Parse([]byte(in), ext, Options{}, p); err != nil {
		t.Fatal(err)
	}
	return p
}

// The values are what Envoy 1.40's /config_dump shows for the same text.
func TestScalarsOfYAMLAreEnvoys(t *testing.T) {
	p := parse(t, `node: {metadata: {a: n, b: yes, c: on, d: 012, e: 0x10, f: 1.5, g: ~, h: 9999999999, i: 1_000, j: "on", k: y, l: .inf, m: 2001-01-01,
  n: True, o: tRue, q: 0o17, r: 1e3, s: +5, t: '', u: , off: 1, 5: x, w: 1:30, x: 0b11, z: 190:20:30}}`, ".yaml")
	want, err := structpb.NewStruct(map[string]any{"a": false, "b": true, "c": true, "d": 10, "e": 16, "f": "1.5", "g": nil, "h": "9999999999",
		"i": "1_000", "j": "on", "k": true, "l": ".inf", "m": "2001-01-01", "n": true, "o": "tRue", "q": "0o17", "r": "1e3", "s": 5, "t": "",
		"u": nil, "off": 1, "5": "x", "w": "1:30", "x": "0b11", "z": "190:20:30"})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, p.GetNode().GetMetadata(), protocmp.Transform()); d != "" {
		t.Error(d)
	}
}

// Envoy refuses them: yaml-cpp has made a bool of the word before it knows the field.
func TestYAMLsWordsStayStringsWhereAStringIsDue(t *testing.T) {
	for _, w := range []string{"n", "y", "no", "yes", "on", "off", "No", "OFF"} {
		p := parse(t, "node: {id: "+w+", locality: {zone: "+w+"}}\nstatic_resources: {clusters: [{name: "+w+"}]}", ".yaml")
		if p.GetNode().GetId() != w || p.GetNode().GetLocality().GetZone() != w || p.GetStaticResources().GetClusters()[0].GetName() != w {
			t.Errorf("%s: %v", w, p)
		}
	}
	p := parse(t, "static_resources: {clusters: [{ignore_health_on_host_removal: on, upstream_connection_options: {set_local_interface_name_on_upstream_connections: yes}}]}", ".yaml")
	if c := p.GetStaticResources().GetClusters()[0]; !c.GetIgnoreHealthOnHostRemoval() || !c.GetUpstreamConnectionOptions().GetSetLocalInterfaceNameOnUpstreamConnections() {
		t.Error("a word is no bool in a bool field", c)
	}
	for _, in := range []string{"node: {id: true}", "node: {id: 12}", "node: {id: [n]}"} {
		if _, err := Parse([]byte(in), ".yaml", Options{}, &bootstrapv3.Bootstrap{}); err == nil || !strings.HasPrefix(err.Error(), "node.id: not a string (") {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestAnchorsAndTheirLimits(t *testing.T) {
	p := parse(t, "node: {id: &a x, cluster: *a}\nadmin: {address: &b {pipe: {path: *a}}}", ".yaml")
	if p.GetNode().GetCluster() != "x" || p.GetAdmin().GetAddress().GetPipe().GetPath() != "x" {
		t.Error(p)
	}
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 12; i++ {
		n := string(rune('0' + i%10))
		if i >= 10 {
			n = "1" + n
		}
		old := strings.TrimPrefix("*a"+map[bool]string{true: string(rune('0' + i - 1)), false: "10"}[i <= 10], "")
		bomb += "a" + n + ": &a" + n + " [" + strings.Repeat(old+", ", 9) + old + "]\n"
	}
	for what, in := range map[string]string{"a bomb": bomb, "a loop": "a: &a [*a]", "a key twice": "node: {}\nnode: {}", "a list as key": "[a]: b"} {
		if _, err := Parse([]byte(in), ".yaml", Options{}, &bootstrapv3.Bootstrap{}); err == nil || !strings.HasPrefix(err.Error(), "unable to read YAML: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestTheNameTellsTheForm(t *testing.T) {
	want := &discoveryv3.DiscoveryResponse{VersionInfo: "1", TypeUrl: "t"}
	bin, err := proto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"a.pb": string(bin), "a.PB": string(bin), "a.pb_text": `version_info: "1" type_url: "t"`, "a.json": `{"versionInfo": "1", "type_url": "t"}`,
		"a.yaml": "versionInfo: '1'\ntype_url: t", "a.yml": `{"version_info": "1", "type_url": "t"}`, "a": `{"version_info": "1", "type_url": "t"}`,
		"..data": "{version_info: '1', type_url: t}",
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got := &discoveryv3.DiscoveryResponse{}
		if _, err := Load(path, Options{}, got); err != nil {
			t.Error(err)
		}
		if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
			t.Error(name, d)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"istio.json", "kuma.yaml", "envoy-gateway.yaml", "consul"} {
		b, err := os.ReadFile("../bootstrap/testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, filepath.Ext(name))
	}
	f.Add([]byte("node: {id: &a n, cluster: *a, metadata: {k: [~, 0x1, on, *a]}}"), ".yaml")
	f.Add([]byte("node { id: \"n\" }"), ".pb_text")
	f.Add([]byte("\x0a\x03\x0a\x01n"), ".pb")
	f.Fuzz(func(t *testing.T, b []byte, ext string) {
		m := &bootstrapv3.Bootstrap{}
		_, err := Parse(b, ext, Options{}, m)
		if err == nil {
			if _, err := proto.Marshal(m); err != nil && !strings.Contains(err.Error(), "UTF-8") {
				t.Fatal(err)
			}
			return
		}
		if strings.ContainsAny(err.Error(), "\n\r\u00a0") {
			t.Fatalf("not one line: %q", err)
		}
	})
}
