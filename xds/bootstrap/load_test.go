package bootstrap

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/sluice-proxy/sluice/xds/file"
	"github.com/sluice-proxy/sluice/xds/resource"
	"github.com/sluice-proxy/sluice/xds/transport"
)

var addrs = cmpopts.EquateComparable(netip.AddrPort{})

func mustLoad(t *testing.T, o Options) *Config {
	t.Helper()
	c, err := Load(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type plane struct {
	cluster   string
	timeout   time.Duration
	endpoints []transport.Endpoint
	metadata  [][2]string
}

func addr(s string) transport.Endpoint { return transport.Endpoint{Addr: netip.MustParseAddrPort(s)} }

// Envoy 1.40's --mode validate accepts these files.
func TestControlPlanesBootstrapsLoad(t *testing.T) {
	for _, tt := range []struct {
		file  string
		ads   plane
		http  []string // listeners
		admin string
		id    string
	}{
		{"istio.json", plane{"xds-grpc", time.Second, []transport.Endpoint{addr("127.0.0.1:15010")}, nil},
			[]string{"0.0.0.0:15090"}, "127.0.0.1:15000", "sidecar~127.0.0.1~app-1.default~default.svc.cluster.local"},
		{"kuma.yaml", plane{"ads_cluster", time.Second, []transport.Endpoint{addr("127.0.0.1:5678"), addr("[::1]:5678")}, [][2]string{{"authorization", "eyJhbGciOiJSUzI1NiJ9.e30.x"}}}, nil, "127.0.0.1:9901", "default.backend-1"},
		{"envoy-gateway.yaml", plane{"xds_cluster", 10 * time.Second, []transport.Endpoint{addr("127.0.0.1:18000")}, nil},
			[]string{"envoy-gateway-proxy-stats-0.0.0.0-19001"}, "127.0.0.1:0", "eg-1"},
		{"consul", plane{"local_agent", time.Second, []transport.Endpoint{addr("127.0.0.1:8502")}, [][2]string{{"x-consul-token", "b1gs33cr3t"}}}, nil, "127.0.0.1:19000", "web-sidecar-proxy"},
	} {
		t.Run(tt.file, func(t *testing.T) {
			o := Options{Path: filepath.Join("testdata", tt.file)}
			if tt.file == "envoy-gateway.yaml" { // its node comes by the flags
				o.ServiceNode, o.ServiceCluster = "eg-1", "default/eg"
			}
			c := mustLoad(t, o)
			want := &ADS{Delta: true, SetNodeOnFirstMessageOnly: tt.file != "consul",
				Service: transport.Service{Cluster: tt.ads.cluster, Authority: tt.ads.cluster, Metadata: tt.ads.metadata}}
			if d := cmp.Diff(want, c.ADS); d != "" {
				t.Error(d)
			}
			p := c.ControlPlanes[tt.ads.cluster]
			if d := cmp.Diff(tt.ads.endpoints, p.Endpoints, addrs); d != "" || p.ConnectTimeout != tt.ads.timeout {
				t.Error(p, d)
			}
			forever := &Source{}
			if d := cmp.Diff([]*Source{forever, forever}, []*Source{c.LDS, c.CDS}); d != "" {
				t.Error(d)
			}
			var http []string
			for _, l := range c.Listeners {
				if l.Value.FilterChains[0].Filters[0].HTTP != nil {
					http = append(http, l.Value.Name)
				}
			}
			if d := cmp.Diff(tt.http, http); d != "" {
				t.Error(d)
			}
			if c.Admin == nil || c.Admin.Addr.String() != tt.admin || c.Node.GetId() != tt.id {
				t.Errorf("admin %v, node %s", c.Admin, c.Node.GetId())
			}
			if len(c.Listeners) != len(tt.http) || len(c.Clusters) == 0 || len(c.Unbuilt) == 0 || c.Unknown != 0 {
				t.Errorf("%d listeners, %d clusters, unbuilt %v, %d unknown", len(c.Listeners), len(c.Clusters), c.Unbuilt, c.Unknown)
			}
		})
	}
}

func TestNodeIsTheFilesWithTheFlagsOverIt(t *testing.T) {
	c := mustLoad(t, Options{YAML: `node: {id: a, cluster: b, user_agent_name: envoy, metadata: {k: [1, {x: y}]}, locality: {region: r, zone: z}}`,
		ServiceNode: "A", ServiceZone: "Z", BuildVersion: "v1.2.3-rc1"})
	n := c.Node
	if n.GetId() != "A" || n.GetCluster() != "b" || n.GetLocality().GetRegion() != "r" || n.GetLocality().GetZone() != "Z" {
		t.Error(n)
	}
	v := n.GetUserAgentBuildVersion().GetVersion()
	if n.GetUserAgentName() != "sluice" || v.GetMajorNumber() != 1 || v.GetMinorNumber() != 2 || v.GetPatch() != 3 {
		t.Error(n.GetUserAgentName(), v)
	}
	if got := n.GetMetadata().GetFields()["k"].GetListValue().GetValues(); len(got) != 2 {
		t.Error(got)
	}
	if p := c.Proto.GetNode(); p.GetId() != "a" || p.GetLocality().GetZone() != "z" || p.GetUserAgentName() != "sluice" {
		t.Error("the dump shows the flags, which Envoy's does not", p)
	}
}

func TestTheFlagIsMergedOverTheFile(t *testing.T) {
	p := filepath.Join(t.TempDir(), "b.yaml")
	write(t, p, `{node: {id: file, cluster: f}, admin: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}, static_resources: {clusters: [{name: a}]}}`)
	c := mustLoad(t, Options{Path: p, YAML: `{node: {id: flag}, admin: {address: {socket_address: {port_value: 2, address: "::1"}}}, static_resources: {clusters: [{name: b}]}}`})
	if c.Node.GetId() != "flag" || c.Node.GetCluster() != "f" || c.Admin.Addr.String() != "[::1]:2" {
		t.Error(c.Node, c.Admin)
	}
	if len(c.Clusters) != 2 || c.Clusters[0].Value.Name != "a" || c.Clusters[1].Value.Name != "b" {
		t.Error("lists are not appended", c.Clusters)
	}
	_, err := Load(Options{Path: p, YAML: `{node: {idd: flag}}`})
	if err == nil || err.Error() != "--config-yaml: node.idd: no such field in envoy.config.core.v3.Node" {
		t.Error(err)
	}
	_, err = Load(Options{Path: p, YAML: `static_resources: {clusters: [{name: a}]}`})
	if err == nil || err.Error() != p+": static_resources.clusters[1] (a): cluster manager: duplicate cluster 'a'" {
		t.Error(err)
	}
}

func TestStaticResourcesAreTold(t *testing.T) {
	c := mustLoad(t, Options{YAML: `static_resources: {clusters: [{name: a, track_timeout_budgets: true}], listeners: [
  {address: {socket_address: {address: 127.0.0.1, port_value: 0}}, default_filter_chain: {}},
  {address: {socket_address: {address: 127.0.0.1, port_value: 0}}, default_filter_chain: {}}]}`})
	if len(c.Listeners) != 2 || c.Listeners[0].Value.Name != "127.0.0.1:0" || c.Listeners[1].Value.Name != "127.0.0.1:0#2" {
		t.Errorf("%+v", c.Listeners)
	}
	one := c.Clusters[0]
	if !one.Value.Static || !c.Listeners[0].Value.Static || one.Any.GetTypeUrl() != "type.googleapis.com/envoy.config.cluster.v3.Cluster" {
		t.Errorf("%+v", one)
	}
	if d := cmp.Diff([]string{"track_timeout_budgets"}, one.Notes.Unbuilt); d != "" {
		t.Error(d)
	}
	if c.LDS != nil || c.CDS != nil || c.ADS != nil || c.Admin != nil {
		t.Errorf("%+v", c)
	}
}

func TestADSDefaults(t *testing.T) {
	c := mustLoad(t, Options{YAML: `
node: {id: a, cluster: b}
static_resources: {clusters: [{name: cp, load_assignment: {cluster_name: cp, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}}]}
dynamic_resources:
  cds_config: {ads: {}, initial_fetch_timeout: 2.5s}
  lds_config: {ads: {}}
  ads_config: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: cp, authority: x}, initial_metadata: [{key: k, raw_value: dg==}]}]}`})
	if c.ADS.Delta || c.ADS.Service.Authority != "x" || c.ADS.SetNodeOnFirstMessageOnly {
		t.Errorf("%+v", c.ADS)
	}
	if d := cmp.Diff([][2]string{{"k", "v"}}, c.ADS.Service.Metadata); d != "" {
		t.Error(d)
	}
	if c.LDS.InitialFetchTimeout != 15*time.Second || c.CDS.InitialFetchTimeout != 2500*time.Millisecond {
		t.Error(c.LDS, c.CDS)
	}
}

func TestEveryFormatReadsTheSame(t *testing.T) {
	want := mustLoad(t, Options{Path: "testdata/kuma.yaml"}).Proto
	p := &bootstrapv3.Bootstrap{}
	b, err := os.ReadFile("testdata/kuma.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Parse(b, ".yaml", file.Options{}, p); err != nil {
		t.Fatal(err)
	}
	bin, err := proto.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	text, err := prototext.MarshalOptions{Resolver: resource.NewResolver()}.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"b.pb": string(bin), "b.pb_text": string(text), "yaml-without-extension": string(b)} {
		path := filepath.Join(dir, name)
		write(t, path, content)
		if d := cmp.Diff(want, mustLoad(t, Options{Path: path}).Proto, protocmp.Transform()); d != "" {
			t.Error(name, d)
		}
	}
}

// Consul hands over a pipe.
func TestAFIFOIsReadOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("testdata/consul")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- os.WriteFile(path, b, 0o600) }()
	c := mustLoad(t, Options{Path: path})
	if err := <-done; err != nil || c.ADS.Service.Cluster != "local_agent" {
		t.Error(err, c.ADS)
	}
}

func TestUnknownStaticFieldsAreRefusedOrCounted(t *testing.T) {
	const in = `{foo: 1, node: {id: a, bar: {}}, static_resources: {clusters: [{name: a, baz: [1]}]}}`
	if _, err := Load(Options{YAML: in}); err == nil || err.Error() != "--config-yaml: foo: no such field in envoy.config.bootstrap.v3.Bootstrap" {
		t.Error(err)
	}
	if c := mustLoad(t, Options{YAML: in, AllowUnknownStatic: true}); c.Unknown != 3 || len(c.Clusters) != 1 {
		t.Errorf("%d unknown", c.Unknown)
	}
	p := &bootstrapv3.Bootstrap{}
	p.ProtoReflect().SetUnknown([]byte{0xf8, 0xff, 0x01, 1})
	bin, err := proto.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "b.pb")
	write(t, path, string(bin))
	if _, err := Load(Options{Path: path}); err == nil || err.Error() != path+": unknown fields in 1 of the messages" {
		t.Error(err)
	}
	if c := mustLoad(t, Options{Path: path, AllowUnknownStatic: true}); c.Unknown != 1 {
		t.Errorf("%d unknown", c.Unknown)
	}
}

func TestUnreadableFilesAreOneLine(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ name, content, want string }{
		{"tab.yaml", "a:\n\t- b", "unable to read YAML: "},
		{"cut.json", `{"node": {`, "unable to read JSON: unexpected EOF"},
		{"two.json", `{} {}`, "unable to read JSON: more than one value at byte 3"},
		{"key.yaml", "node: {}\nnode: {}", "unable to read YAML: "},
		{"list.yaml", "- a", `bootstrap: not an object (["a"])`},
		{"b.pb", "\xff", ""},
		{"b.pb_text", "node {", ""},
	} {
		path := filepath.Join(dir, tt.name)
		write(t, path, tt.content)
		_, err := Load(Options{Path: path})
		if err == nil || !strings.HasPrefix(err.Error(), path+": "+tt.want) || strings.ContainsAny(err.Error(), "\n\u00a0") {
			t.Errorf("%s: %q", tt.name, err)
		}
	}
	if _, err := Load(Options{Path: dir + "/none.yaml"}); err == nil || err.Error() != dir+"/none.yaml: unable to read file: Invalid path: "+dir+"/none.yaml: no such file or directory" {
		t.Error(err)
	}
	if _, err := Load(Options{}); err == nil {
		t.Error("nothing to read, and no error")
	}
}

func TestAnEmptyFileIsAnEmptyBootstrap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b.yaml")
	write(t, path, "")
	if c := mustLoad(t, Options{Path: path}); c.Admin != nil || len(c.Listeners) > 0 {
		t.Errorf("%+v", c)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAdminOnAUnixSocket(t *testing.T) {
	c := mustLoad(t, Options{YAML: `admin: {address: {pipe: {path: ./a.sock, mode: 384}}}`})
	if d := cmp.Diff(&Admin{Path: "./a.sock", Mode: 0o600}, c.Admin, addrs); d != "" {
		t.Error(d)
	}
	for in, want := range map[string]string{
		`{path: "@a", mode: 384}`:                  "admin.address.pipe.mode: Cannot set mode for Abstract AF_UNIX sockets (0600)",
		`{path: a, mode: 512}`:                     "admin.address.pipe.mode: Proto constraint validation failed (PipeValidationError.Mode: value must be less than or equal to 511) (512)",
		`{path: ` + strings.Repeat("a", 108) + `}`: "admin.address.pipe.path: exceeds maximum UNIX domain socket path size of 107. (" + strings.Repeat("a", 108) + ")",
	} {
		if _, err := Load(Options{YAML: "admin: {address: {pipe: " + in + "}}"}); err == nil || err.Error() != "--config-yaml: "+want {
			t.Errorf("%s: %v", in, err)
		}
	}
}
