package bootstrap

import (
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sluice-proxy/sluice/api"
)

func FuzzBootstrap(f *testing.F) {
	for _, name := range []string{"istio.json", "kuma.yaml", "envoy-gateway.yaml", "consul"} {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	ar, err := txtar.ParseFile("testdata/verdicts.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range ar.Files {
		f.Add(file.Data)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, o := range []Options{{Path: "b"}, {Path: "b", AllowUnknownStatic: true, ServiceNode: "n"}} {
			c, err := load(o, func(string) ([]byte, error) { return b, nil })
			if err != nil {
				if c != nil || !strings.HasPrefix(err.Error(), "b: ") || strings.ContainsAny(err.Error(), "\n\r") {
					t.Fatalf("config %v, error %q", c, err)
				}
				continue
			}
			if c.ADS != nil && (c.ControlPlanes[c.ADS.Service.Cluster] == nil || c.Node.GetId() == "") || c.ADS == nil && (overADS(c.LDS) || overADS(c.CDS)) {
				t.Fatalf("unfit: %+v", c)
			}
			for _, l := range c.Listeners {
				if !l.Value.Static || l.Value.Name == "" {
					t.Fatalf("unfit: %+v", l.Value)
				}
			}
			for _, s := range c.Clusters {
				if (s.Value.Assignment == nil) != (s.Value.Discovery == api.EDS) {
					t.Fatalf("unfit: %+v", s.Value)
				}
			}
		}
	})
}

func overADS(s *Source) bool { return s != nil && s.Kind == api.FromADS }
