package admin

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/api"
)

func TestDrainsAndHealthChecksReachThePlane(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"/drain_listeners", "/drain_listeners?graceful", "/drain_listeners?inboundonly&graceful&skip_exit", "/drain_listeners?skip_exit=no&other", "/healthcheck/fail", "/healthcheck/ok"} {
		if r := f.do("POST", path); r.StatusCode != 200 {
			t.Errorf("%s: %s", path, r.Status)
		}
	}
	want := []string{"drain false false false", "drain false true false", "drain true true true", "drain false false true", "fail true", "fail false"}
	if !slices.Equal(f.fake.asked, want) {
		t.Errorf("asked %q, want %q", f.fake.asked, want)
	}
	if f.do("POST", "/reopen_logs"); f.fake.reopened != 1 {
		t.Errorf("logs reopened %d times", f.fake.reopened)
	}
	f.fake.asked = nil
	if r := f.do("GET", "/drain_listeners"); r.StatusCode != 405 || len(f.fake.asked) != 0 {
		t.Errorf("GET: %d, asked %q", r.StatusCode, f.fake.asked)
	}
}

func TestListenersOnUnixSocketsAreListed(t *testing.T) {
	f := newFixture(t)
	f.fake.listeners = []api.ListenerStatus{{Name: "l", Bound: []api.BoundAddress{{Path: "/run/x"}, {Addr: netip.MustParseAddrPort("[::1]:80")}, {Path: "@y"}}}}
	if got, want := f.get(t, "/listeners"), "l::/run/x\nl::[::1]:80\nl::@y\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := f.get(t, "/listeners?format=json"); !strings.Contains(got, `"path": "/run/x"`) || !strings.Contains(got, `"path": "@y"`) {
		t.Errorf("got %s", got)
	}
}
