package dataplane

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// Who has to see every byte keeps its connections on the relay, and /connections
// says why; who has to see the first one lets them go after it.
func TestConnectionsSayWhichFilterKeepsThemOnTheRelay(t *testing.T) {
	yes := true
	allow := []api.RBACPolicy{{Name: "all", Permissions: []api.RBACRule{{Const: &yes}}, Principals: []api.RBACRule{{Const: &yes}}}}
	for _, continuous := range []bool{false, true} {
		t.Run(fmt.Sprintf("continuous %t", continuous), func(t *testing.T) {
			w := newWorld(t)
			w.cluster("c", banner(t, "a"))
			addr := free(t)
			l := tcpListener("l", addr, "c")
			c := l.FilterChains[0]
			c.Filters = append([]api.Filter{{RBAC: &api.RBAC{StatPrefix: "p", Enforced: &api.RBACEngine{Policies: allow}, Continuous: continuous}}}, c.Filters...)
			if r := w.apply(l); r.Refused != nil {
				t.Fatal(r.Refused)
			}
			conn := dial(t, addr)
			if got := readLine(t, conn); got != "a" {
				t.Fatalf("banner %q", got)
			}
			const held = "a filter must see its bytes"
			request := func() api.DirectionStatus {
				t.Helper()
				open := w.plane.Connections()
				if len(open) != 1 {
					t.Fatalf("%d connections", len(open))
				}
				return open[0].Request
			}
			if r := request(); r.Path != api.PathRelay || r.Reason != held {
				t.Errorf("before the first byte: %v, %q", r.Path, r.Reason)
			}
			for range 40 {
				fmt.Fprintln(conn, "hello")
				if got := readLine(t, conn); got != "hello" {
					t.Fatalf("echo %q", got)
				}
			}
			r := request()
			if continuous && (r.Path != api.PathRelay || r.Reason != held || r.Changes != 0) || !continuous && r.Reason == held {
				t.Errorf("after 40 messages: %v, %q, %d changes", r.Path, r.Reason, r.Changes)
			}
			if n := w.counter("p.rbac.allowed"); continuous && n < 40 || !continuous && n != 1 {
				t.Errorf("asked %d times", n)
			}
			conn.Close()
			for deadline := time.Now().Add(5 * time.Second); len(w.plane.Connections()) > 0 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
		})
	}
}
