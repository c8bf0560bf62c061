// Package layers is the floor plan (ARCHITECTURE.md) as a test: who may import
// what. Its test asks go list for the packages and reads the imports of every
// file, also of those that a build tag leaves out. Run it with -count=1, as the
// test cache does not know of new packages.
package layers

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Module is the path of this module.
const Module = "github.com/sluice-proxy/sluice"

// Import is one import clause.
type Import struct {
	File string // relative to the module, e.g. xds/ads/stream.go
	Path string
}

func (i Import) dir() string  { return path.Dir(i.File) }
func (i Import) isTest() bool { return strings.HasSuffix(i.File, "_test.go") }

// What others' modules are called below.
const (
	ebpf         = "github.com/cilium/ebpf"
	controlPlane = "github.com/envoyproxy/go-control-plane"
	envoy        = controlPlane + "/envoy" // Envoy's protos, a module of their own
	cncf         = "github.com/cncf/xds"   // the protos that Envoy's refer to
	grpc         = "google.golang.org/grpc"
	protobuf     = "google.golang.org/protobuf"
	genproto     = "google.golang.org/genproto"
	celGo        = "github.com/google/cel-go"
	extended     = "golang.org/x"
	sys          = "golang.org/x/sys"
)

// floors says what a folder's packages may import of this module and of others;
// the standard library is free to all. The longest folder that holds a file
// counts. A nil list of modules of others means any.
var floors = map[string]struct{ ours, others []string }{
	"api":                            {ours: []string{"api"}, others: []string{}},
	"bpf":                            {ours: []string{"bpf"}, others: []string{ebpf, sys}},
	"dataplane":                      {ours: []string{"api", "bpf", "dataplane"}, others: []string{extended}},
	"dataplane/filter/proxyprotocol": {ours: []string{"api", "dataplane"}, others: []string{extended, "github.com/pires/go-proxyproto"}},
	"dataplane/proxyheader":          {ours: []string{"api", "dataplane/stream"}, others: []string{"github.com/pires/go-proxyproto"}},
	// What access logs print: strftime and UUIDs.
	"dataplane/stream": {ours: []string{"api", "dataplane/cel"}, others: []string{"github.com/itchyny/timefmt-go", "github.com/google/uuid"}},
	// One half of cel-go: what runs expressions. xds/cel has the other, for the
	// two halves of Sluice never see each other.
	"dataplane/cel":     {ours: []string{"api/expression"}, others: []string{celGo, genproto, protobuf}},
	"dataplane/match":   {ours: []string{"api"}, others: []string{}},
	"dataplane/drain":   {ours: []string{"api"}, others: []string{}},
	"dataplane/balance": {ours: []string{"api"}, others: []string{"github.com/cespare/xxhash/v2"}},
	// A leaf: it speaks grpc.health.v1.
	"dataplane/health":      {ours: []string{"api", "dataplane"}, others: []string{grpc, protobuf}},
	"dataplane/clock":       {ours: []string{}, others: []string{}},
	"dataplane/grpcservice": {ours: []string{"api", "dataplane/upstream"}, others: []string{grpc}},
	// A leaf: it speaks envoy.service.accesslog.v3.
	"dataplane/accesslog/als": {ours: []string{"api", "dataplane/grpcservice", "dataplane/stream", "dataplane/upstream"},
		others: []string{envoy + "/config/core/v3", envoy + "/data/accesslog/v3", envoy + "/service/accesslog/v3", grpc, protobuf, "github.com/google/uuid"}},
	// Request IDs are UUIDs.
	"dataplane/filter/httpserver": {ours: []string{"api", "dataplane"}, others: []string{extended, "github.com/google/uuid"}},
	// TLS is the standard library's, and the rules of api/trust.
	"dataplane/tls": {ours: []string{"api", "dataplane/address", "dataplane/loop", "dataplane/stream", "dataplane/tls"}, others: []string{sys}},
	// A leaf: it speaks envoy.service.auth.v3.
	"dataplane/filter/extauthz": {ours: []string{"api", "dataplane"},
		others: []string{envoy + "/config/core/v3", envoy + "/service/auth/v3", grpc, protobuf}},
	// A leaf: it speaks envoy.service.ratelimit.v3.
	"dataplane/filter/ratelimit": {ours: []string{"api", "dataplane"},
		others: []string{envoy + "/extensions/common/ratelimit/v3", envoy + "/service/ratelimit/v3", grpc, protobuf}},
	// The last two read private keys with a password, and in PKCS #12.
	"xds": {ours: []string{"api", "xds"},
		others: []string{controlPlane, cncf, grpc, protobuf, genproto, "sigs.k8s.io/yaml", "go.yaml.in/yaml/v3", "golang.org/x/time", "github.com/cespare/xxhash/v2",
			"github.com/youmark/pkcs8", "software.sslmate.com/src/go-pkcs12"}},
	"xds/cel":     {ours: []string{"api/expression"}, others: []string{celGo + "/common", celGo + "/parser", envoy + "/config/core/v3", genproto, protobuf}},
	"xds/resolve": {ours: []string{"api"}, others: []string{"github.com/miekg/dns"}},
	// The stream layer knows type URLs and bytes: no resource, so no resource
	// proto either.
	"xds/ads": {ours: []string{"api/stats", "xds/ads", "xds/file", "xds/transport"},
		others: []string{envoy + "/config/core/v3", envoy + "/service/discovery/v3", grpc, protobuf, genproto, "golang.org/x/time"}},
	// It speaks envoy.service.load_stats.v3, and knows no resource either.
	"xds/lrs": {ours: []string{"api", "xds/transport"},
		others: []string{envoy + "/config/core/v3", envoy + "/config/endpoint/v3", envoy + "/service/load_stats/v3", grpc, protobuf}},
	"cmd":  {ours: []string{"api", "bpf", "cmd", "dataplane", "xds"}},
	"test": {ours: []string{"."}},
}

// envoyFloors are the folders that may know Envoy's protos. A leaf package that
// speaks one of Envoy's gRPC services is added here by name.
var envoyFloors = []string{"xds", "test", "cmd/sluice/admin", "cmd/sluice/demo", "dataplane/filter/extauthz", "dataplane/filter/ratelimit", "dataplane/accesslog/als"}

// testOnly are the modules that tests of any package may import besides.
var testOnly = []string{"github.com/miekg/dns", "go.uber.org/goleak", "github.com/google/go-cmp", "github.com/rogpeppe/go-internal", sys}

// Check returns what breaks the floor plan, one line per import, sorted.
func Check(imports []Import) []string {
	var bad []string
	for _, i := range imports {
		if why := check(i); why != "" {
			bad = append(bad, fmt.Sprintf("%s imports %s: %s", i.File, i.Path, why))
		}
	}
	slices.Sort(bad)
	return bad
}

func check(i Import) string {
	dir := i.dir()
	// These hold for tests too.
	if within(i.Path, ebpf) && !within(dir, "bpf") {
		return "only bpf knows cilium/ebpf"
	}
	if (within(i.Path, controlPlane) || within(i.Path, cncf)) && !withinAny(dir, envoyFloors) {
		return "Envoy's protos stay in " + strings.Join(envoyFloors, ", ")
	}
	if within(dir, "xds") && within(i.Path, Module+"/dataplane") || within(dir, "dataplane") && within(i.Path, Module+"/xds") {
		return "xds and dataplane never see each other"
	}

	if own, ok := inModule(i.Path); ok {
		if within(own, "test") && !within(dir, "test") && !i.isTest() {
			return "only tests import test"
		}
		if within(own, "test") {
			return ""
		}
		if within(own, "cmd") && !within(dir, "cmd") && !within(dir, "test") {
			return "nothing builds on cmd"
		}
		name, f := floor(dir)
		if name == "" {
			return "there is no such folder in the floor plan"
		}
		if !withinAny(own, f.ours) && own != dir {
			return fmt.Sprintf("%s may import %s of this module only", name, strings.Join(f.ours, ", "))
		}
		return ""
	}

	if isStandard(i.Path) || i.isTest() && withinAny(i.Path, testOnly) {
		return ""
	}
	name, f := floor(dir)
	if name == "" {
		return "there is no such folder in the floor plan"
	}
	if f.others != nil && !withinAny(i.Path, f.others) {
		if len(f.others) == 0 {
			return name + " may import the standard library only"
		}
		return fmt.Sprintf("%s may import %s of others only", name, strings.Join(f.others, ", "))
	}
	return ""
}

// floor finds the innermost folder of the plan that holds dir.
func floor(dir string) (string, struct{ ours, others []string }) {
	for d := dir; d != "."; d = path.Dir(d) {
		if f, ok := floors[d]; ok {
			return d, f
		}
	}
	return "", struct{ ours, others []string }{}
}

func inModule(p string) (string, bool) {
	if p == Module {
		return ".", true
	}
	return strings.CutPrefix(p, Module+"/")
}

// isStandard: the first element of others' paths has a dot.
func isStandard(p string) bool {
	first, _, _ := strings.Cut(p, "/")
	return !strings.Contains(first, ".")
}

func within(p, root string) bool {
	return root == "." || p == root || strings.HasPrefix(p, root+"/")
}

func withinAny(p string, roots []string) bool {
	return slices.ContainsFunc(roots, func(r string) bool { return within(p, r) })
}
