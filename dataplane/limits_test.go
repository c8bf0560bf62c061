package dataplane

import (
	"io"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// A limit goes on counting when its listener is changed elsewhere: the
// connections of the version before are still open, and a bucket stays as it is.
func TestLimitsOutliveAnUpdateOfTheirListener(t *testing.T) {
	w := newWorld(t)
	w.cluster("c", banner(t, "a"))
	addr := free(t)
	limited := func(backlog int, filters ...api.Filter) *api.Listener {
		l := tcpListener("l", addr, "c")
		l.Backlog = backlog
		c := l.FilterChains[0]
		c.Filters = append(filters, c.Filters...)
		return l
	}
	apply := func(l *api.Listener) {
		t.Helper()
		if r := w.apply(l); r.Refused != nil {
			t.Fatal(r.Refused)
		}
	}
	served := func() bool {
		c := dial(t, addr)
		n, err := c.Read(make([]byte, 2))
		if n == 0 && err != io.EOF {
			t.Fatalf("read %d, %v", n, err)
		}
		return n > 0
	}
	limit := api.Filter{ConnectionLimit: &api.ConnectionLimit{StatPrefix: "p", MaxConnections: 1}}
	apply(limited(1, limit))
	if !served() || served() {
		t.Fatal("the limit is not 1")
	}
	apply(limited(2, limit))
	if served() {
		t.Error("after an update the limit has forgotten an open connection")
	}
	if got := w.counter("connection_limit.p.limited_connections"); got != 2 {
		t.Errorf("%d turned away, want 2", got)
	}

	rate := api.Filter{LocalRateLimit: &api.LocalRateLimit{StatPrefix: "p", Bucket: api.TokenBucket{MaxTokens: 1, TokensPerFill: 1, FillInterval: time.Hour}}}
	apply(limited(3, rate))
	if !served() || served() {
		t.Fatal("the bucket does not hold 1")
	}
	apply(limited(4, rate))
	if served() {
		t.Error("an update filled the bucket")
	}
	other := rate
	other.LocalRateLimit = &api.LocalRateLimit{StatPrefix: "p", Bucket: api.TokenBucket{MaxTokens: 2, TokensPerFill: 1, FillInterval: time.Hour}}
	apply(limited(4, other))
	if !served() {
		t.Error("another bucket is not full")
	}
}
