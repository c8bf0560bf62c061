package bootstrap

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The verdicts and values are Envoy 1.40's.
func TestRuntimeLayers(t *testing.T) {
	c := mustLoad(t, Options{YAML: `layered_runtime: {layers: [
  {name: base, static_layer: {a: 1, b: {c: "x", d: true, e: 1.5, z: {numerator: 5, denominator: HUNDRED}}, overload.global_downstream_max_connections: "7"}},
  {name: over, static_layer: {a: 2}}, {name: disk, disk_layer: {symlink_root: /none}}, {name: admin, admin_layer: {}}]}`})
	got := c.Runtime.Values()
	if got["b.z"] == "" {
		t.Error("a fraction is no value", got)
	}
	delete(got, "b.z")
	if d := cmp.Diff(map[string]string{"a": "2", "b.c": "x", "b.d": "true", "b.e": "1.5", "overload.global_downstream_max_connections": "7"}, got); d != "" {
		t.Error(d)
	}
	if n := c.Limits().Connections; n != 7 {
		t.Errorf("limit %d", n)
	}
	if err := c.Runtime.Modify(map[string]string{"overload.global_downstream_max_connections": "9", "envoy.resource_limits.listener.l.connection_limit": "3"}); err != nil {
		t.Fatal(err)
	}
	if l := c.Limits(); l.Connections != 9 || l.ByListener["l"] != 3 {
		t.Errorf("limits %+v after a change", l)
	}
	if got := c.Runtime.Layers(); !slices.Equal(got, []string{"base", "over", "admin"}) {
		t.Errorf("layers %v: one without its directory is not shown", got)
	}
	for in, want := range map[string]string{
		`{name: a, static_layer: {}}, {name: a, static_layer: {}}`: "layered_runtime: Duplicate layer name: a",
		`{name: a, admin_layer: {}}, {name: b, admin_layer: {}}`:   "layered_runtime: Too many admin layers specified in LayeredRuntime, at most one may be specified",
		`{name: a, static_layer: {k: [1]}}`:                        "layered_runtime.layers[0].static_layer: Invalid runtime entry value for k",
		`{name: a, static_layer: {k: ~}}`:                          "layered_runtime.layers[0].static_layer: Invalid runtime entry value for k",
	} {
		if _, err := Load(Options{YAML: "layered_runtime: {layers: [" + in + "]}"}); err == nil || err.Error() != "--config-yaml: "+want {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestALayerOfTheRuntimeInADirectory(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"v1/s/a": "# what it is for\n5\n", "v1/s/b/c": "x \n", "v1/s/empty": "", "v2/s/a": "6",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(root, "now")
	if err := os.Symlink("v1", link); err != nil {
		t.Fatal(err)
	}
	c := mustLoad(t, Options{YAML: `node: {id: i, cluster: s}
layered_runtime: {layers: [{name: disk, disk_layer: {symlink_root: ` + link + `, append_service_cluster: true}}]}`})
	if d := cmp.Diff(map[string]string{"a": "5", "b.c": "x", "empty": ""}, c.Runtime.Values()); d != "" {
		t.Error(d)
	}
	if read, broken := c.Runtime.Disks(); !read || broken {
		t.Error(read, broken)
	}
	next := filepath.Join(root, "next")
	if err := os.Symlink("v2", next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, link); err != nil {
		t.Fatal(err)
	}
	c.Runtime.Replace(c.Disks[0].Read())
	if d := cmp.Diff(map[string]string{"a": "6"}, c.Runtime.Values()); d != "" {
		t.Error(d)
	}
	if c.Disks[0].Directory() != root {
		t.Error(c.Disks[0].Directory())
	}
}
