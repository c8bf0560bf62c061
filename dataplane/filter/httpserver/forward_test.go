package httpserver

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

type owner struct{ filter.Owner }

func (owner) Due() bool { return false }

// A host that was picked for a request is given back although nobody connected.
func TestAPickThatNobodyDialsIsGivenBack(t *testing.T) {
	store := stats.New()
	c := upstream.New(&api.Cluster{Name: "c", ConnectTimeout: time.Second, PanicThreshold: 50,
		CircuitBreakers: api.CircuitBreakers{MaxConnections: 1, MaxPendingRequests: 1}, Assignment: &api.Assignment{Localities: []api.Locality{{Endpoints: []api.Endpoint{{Addr: netip.MustParseAddrPort("127.0.0.1:1"), Weight: 1}}}}}}, store, upstream.Watch{})
	defer c.Close()
	f := New(&api.HTTP{StatPrefix: "p", ServerName: "envoy", HTTP1: true, VirtualHosts: []api.HTTPVirtualHost{{Name: "v", Domains: []string{"*"}, Routes: []api.HTTPRoute{{Forward: &api.HTTPForward{Cluster: "c"}}}}}},
		filter.Context{Stats: store, Log: slog.New(slog.DiscardHandler), Listener: "l", Cluster: func(string) *upstream.Cluster { return c }})
	defer f.Release()
	ctx, cancel := context.WithCancel(withConn(t.Context(), &conn{session: &session{conn: &filter.Connection{Owner: owner{}}}}))
	cancel()
	for range 2 { // the second would find the limit reached
		func() {
			defer func() {
				if r := recover(); r != http.ErrAbortHandler {
					t.Errorf("recovered %v: the client is gone, so the answer is to be given up", r)
				}
			}()
			f.serve(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/", nil))
		}()
	}
	if n := c.Stats.Active.Value(); n != 0 {
		t.Errorf("%d connections are still counted", n)
	}
	if n := c.Stats.Overflow.Value(); n != 0 {
		t.Errorf("%d were refused", n)
	}
}
