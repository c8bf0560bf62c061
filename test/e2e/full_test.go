package e2e

import (
	"strings"
	"testing"
)

// Twelve entries: eight prefixes that are always excluded, two targets, and two
// routes. Four listeners do not fit.
func TestRoutesThatDoNotFit(t *testing.T) {
	services := func(t *testing.T) map[string]string {
		web, other := says(t, "web"), says(t, "other")
		return map[string]string{"192.0.2.10:80": web, "192.0.2.11:80": web, "192.0.2.12:80": other, "[2001:db8::10]:80": web}
	}
	for _, tt := range []struct {
		ports, full string
		want        map[string]string // by destination; empty: passes
	}{
		{"all", "pass", map[string]string{"192.0.2.10:80": "web", "[2001:db8::10]:80": "web", "192.0.2.99:82": "passthrough"}},
		{"listeners", "capture", map[string]string{"192.0.2.10:80": "web", "192.0.2.12:80": "other", "192.0.2.99:82": "passthrough"}},
		{"listeners", "pass", map[string]string{"192.0.2.10:80": "", "192.0.2.99:82": ""}},
	} {
		t.Run(tt.ports+" "+tt.full, func(t *testing.T) {
			c := newCaptured(t)
			p := start(t, sluice, mesh(free(t), free6(t), services(t), says(t, "passthrough")), nil,
				"--capture-cgroup", c.dir, "--capture-ports", tt.ports, "--capture-max-routes", "12", "--capture-when-full", tt.full)
			for to, want := range tt.want {
				if want != "" {
					c.want(want, "curl", "-sS", "--max-time", "10", "http://"+to+"/")
					continue
				}
				before := p.routes().Outcomes["connect.no_route"]
				if out, err := c.run("curl", "-sS", "--max-time", "0.2", "http://"+to+"/"); err == nil {
					t.Errorf("%s was captured: %q", to, out)
				}
				if got := p.routes().Outcomes["connect.no_route"] - before; got != 1 {
					t.Errorf("%s: passed %d times", to, got)
				}
			}
			_, b := p.get("/routes")
			if !strings.Contains(b, `"full": "the routes of 4 places do not fit"`) || !strings.Contains(b, `"full_swaps": 1`) {
				t.Errorf("/routes says %s", b)
			}
			if _, b := p.get("/stats?filter=capture.swaps"); !strings.Contains(b, "capture.swaps_full: 1") || !strings.Contains(b, "capture.swaps: 1") {
				t.Errorf("/stats says %s", b)
			}
		})
	}
}
