package layers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func moduleRoot(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestFloorPlan(t *testing.T) {
	imports, err := Scan(moduleRoot(t))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, i := range imports {
		first, _, _ := strings.Cut(i.File, "/")
		seen[first] = true
	}
	for _, dir := range []string{"api", "bpf", "dataplane", "test", "xds"} {
		if !seen[dir] {
			t.Errorf("the scan found nothing in %s", dir)
		}
	}
	for _, bad := range Check(imports) {
		t.Error(bad)
	}
}

func TestRules(t *testing.T) {
	const m = Module
	tests := []struct {
		file, path string
		why        string // empty: allowed
	}{
		{"api/x.go", "time", ""},
		{"api/x.go", "golang.org/x/sys/unix", "standard library only"},
		{"api/x.go", m + "/xds", "api may import api"},
		{"api/stats/x.go", m + "/api", ""},
		{"api/x_test.go", "github.com/google/go-cmp/cmp", ""},
		{"api/x_test.go", "github.com/spf13/cobra", "standard library only"},
		{"bpf/x.go", "github.com/cilium/ebpf/link", ""},
		{"bpf/x.go", m + "/api", "bpf may import bpf"},
		{"bpf/x.go", "google.golang.org/grpc", "bpf may import"},
		{"bpf/x_test.go", m + "/test/netns", ""},
		{"dataplane/pair/x.go", m + "/bpf", ""},
		{"dataplane/pair/x.go", "golang.org/x/sys/unix", ""},
		{"dataplane/pair/x.go", "github.com/cilium/ebpf", "only bpf"},
		{"dataplane/pair/x_test.go", "github.com/cilium/ebpf", "only bpf"},
		{"dataplane/pair/x.go", m + "/xds/ads", "never see each other"},
		{"dataplane/pair/x_test.go", m + "/xds/ads", "never see each other"},
		{"dataplane/pair/x.go", envoy + "/config/core/v3", "protos stay in"},
		{"dataplane/pair/x_test.go", envoy + "/config/core/v3", "protos stay in"},
		{"dataplane/pair/x.go", "google.golang.org/grpc", "dataplane may import"},
		{"dataplane/pair/x.go", m + "/test/peer", "only tests import test"},
		{"dataplane/pair/x_test.go", m + "/test/peer", ""},
		{"dataplane/balance/x.go", m + "/bpf", "dataplane/balance may import api"},
		{"xds/resource/x.go", envoy + "/config/core/v3", ""},
		{"xds/resource/x.go", m + "/bpf", "xds may import api, xds"},
		{"xds/x.go", m + "/dataplane", "never see each other"},
		{"xds/ads/x.go", envoy + "/service/discovery/v3", ""},
		{"xds/ads/x.go", envoy + "/config/cluster/v3", "xds/ads may import"},
		{"xds/ads/x.go", m + "/api", "xds/ads may import"},
		{"xds/ads/x.go", m + "/xds/resource", "xds/ads may import"},
		{"cmd/sluice/x.go", m + "/dataplane", ""},
		{"cmd/sluice/x.go", "github.com/spf13/cobra", ""},
		{"cmd/sluice/x.go", envoy + "/config/core/v3", "protos stay in"},
		{"cmd/sluice/admin/x.go", envoy + "/admin/v3", ""},
		{"cmd/sluice/demo/x.go", controlPlane + "/pkg/cache/v3", ""},
		{"cmd/sluice/demo/x.go", m + "/test/peer", "only tests import test"},
		{"cmd/sluice/x.go", "github.com/cilium/ebpf/rlimit", "only bpf"},
		{"xds/x.go", m + "/cmd/sluice/demo", "nothing builds on cmd"},
		{"test/control/x.go", m + "/cmd/sluice/demo", ""},
		{"test/e2e/x.go", "github.com/cilium/ebpf", "only bpf"},
		{"util/x.go", "golang.org/x/sys/unix", "no such folder"},
		{"util/x.go", m + "/api", "no such folder"},
	}
	for _, tt := range tests {
		t.Run(tt.file+"<-"+tt.path, func(t *testing.T) {
			got := check(Import{File: tt.file, Path: tt.path})
			if (got == "") != (tt.why == "") || !strings.Contains(got, tt.why) {
				t.Errorf("got %q, want %q", got, tt.why)
			}
		})
	}
}

// A forbidden import planted into a module must be found by the whole path, also
// in a file that a build tag hides and in a test.
func TestPlantedImportsAreFound(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"go.mod":                  "module " + Module + "\n\ngo 1.26\n",
		"api/api.go":              "package api\n\nimport _ \"time\"\n",
		"xds/xds.go":              "package xds\n\nimport _ \"" + Module + "/api\"\n",
		"dataplane/good.go":       "package dataplane\n\nimport _ \"" + Module + "/api\"\n",
		"dataplane/hidden.go":     "//go:build sometimes\n\npackage dataplane\n\nimport _ \"" + Module + "/xds\"\n",
		"dataplane/plant_test.go": "package dataplane\n\nimport _ \"github.com/cilium/ebpf\"\n",
		"api/planted.go":          "package api\n\nimport _ \"golang.org/x/sys/unix\"\n",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	imports, err := Scan(root)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(Check(imports), "\n")
	want := strings.Join([]string{
		"api/planted.go imports golang.org/x/sys/unix: api may import the standard library only",
		"dataplane/hidden.go imports " + Module + "/xds: xds and dataplane never see each other",
		"dataplane/plant_test.go imports github.com/cilium/ebpf: only bpf knows cilium/ebpf",
	}, "\n")
	if got != want {
		t.Errorf("found:\n%s\nwant:\n%s", got, want)
	}
}
