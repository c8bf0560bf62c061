package ads

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluice-proxy/sluice/test/control"
	"github.com/sluice-proxy/sluice/xds/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	lds = "type.googleapis.com/envoy.config.listener.v3.Listener"
	cds = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	eds = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
)

type harness struct {
	*testing.T
	*Client
	*control.Script
	delta bool
}

func dialer(to ...netip.AddrPort) func(context.Context) (transport.Conn, error) {
	c := &transport.Cluster{Name: "xds"}
	for _, a := range to {
		c.Endpoints = append(c.Endpoints, transport.Endpoint{Addr: a})
	}
	d := transport.New(transport.Options{Clusters: map[string]*transport.Cluster{"xds": c}})
	return func(ctx context.Context) (transport.Conn, error) {
		return d.GRPC(ctx, transport.Service{Cluster: "xds", Authority: "xds", Metadata: [][2]string{{"X-Token", "one"}, {"x-token", "two"}}})
	}
}

func soon(int) time.Duration { return time.Millisecond }

func start(t *testing.T, delta bool, change func(*Options)) *harness {
	t.Helper()
	s := control.StartScript(t)
	o := Options{
		Delta: delta, Dial: dialer(s.Addr()), Node: &corev3.Node{Id: "n"},
		NodeOnce: true, Backoff: soon, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&o)
	}
	c := New(o)
	c.Subscribe(cds, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return &harness{t, c, s, delta}
}

func variants(t *testing.T, f func(t *testing.T, delta bool)) {
	for name, delta := range map[string]bool{"sotw": false, "delta": true} {
		t.Run(name, func(t *testing.T) { f(t, delta) })
	}
}

// event awaits one event.
func (h *harness) event() Event {
	h.Helper()
	select {
	case e := <-h.Events():
		return e
	case <-time.After(control.Patience):
		h.Fatal("await event: none came")
	}
	return Event{}
}

func (h *harness) opened() {
	h.Helper()
	if e := h.event(); !e.Opened {
		h.Fatalf("event %+v, want the stream's opening", e)
	}
}

// send sends resources of a type, all of one version, and returns the response
// as the client got it.
func (h *harness) send(url, version, nonce string, names ...string) *Response {
	h.Helper()
	if h.delta {
		m := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url, SystemVersionInfo: version, Nonce: nonce}
		for _, n := range names {
			m.Resources = append(m.Resources, &discoveryv3.Resource{Name: n, Version: version, Resource: &anypb.Any{TypeUrl: url}})
		}
		h.SendDelta(h.T, m)
	} else {
		m := &discoveryv3.DiscoveryResponse{TypeUrl: url, VersionInfo: version, Nonce: nonce}
		for range names {
			m.Resources = append(m.Resources, &anypb.Any{TypeUrl: url})
		}
		h.Send(h.T, m)
	}
	e := h.event()
	if e.Response == nil {
		h.Fatalf("event %+v, want a response", e)
	}
	return e.Response
}

func (h *harness) want(sotw, delta string) {
	h.Helper()
	want := sotw
	if h.delta {
		want = delta
	}
	if got := h.Next(h.T).String(); got != want {
		h.Fatalf("request\n\t%s\nwant\n\t%s", got, want)
	}
}

func TestNodeIsSentOnFirstMessageOnlyIfAsked(t *testing.T) {
	variants(t, func(t *testing.T, delta bool) {
		for _, once := range []bool{true, false} {
			h := start(t, delta, func(o *Options) { o.NodeOnce = once })
			h.opened()
			h.want("CDS v= n= [] node", "CDS n= node")
			h.Ack(h.send(cds, "1", "a", "x"))
			if once {
				h.want("CDS v=1 n=a []", "CDS n=a")
			} else {
				h.want("CDS v=1 n=a [] node", "CDS n=a node")
			}
		}
	})
}

func TestNACKCarriesLastAcceptedVersionAndCode13(t *testing.T) {
	variants(t, func(t *testing.T, delta bool) {
		h := start(t, delta, nil)
		h.opened()
		h.want("CDS v= n= [] node", "CDS n= node")
		h.Nack(h.send(cds, "1", "a", "x"), errors.New("bad x"))
		h.want("CDS v= n=a [] !13 bad x", "CDS n=a !13 bad x")
		h.Ack(h.send(cds, "2", "b", "x"))
		h.want("CDS v=2 n=b []", "CDS n=b")
		h.Nack(h.send(cds, "3", "c", "x"), errors.New("bad y"))
		h.want("CDS v=2 n=c [] !13 bad y", "CDS n=c !13 bad y")
	})
}

func TestSubscriptionChangeIsNoAnswer(t *testing.T) {
	variants(t, func(t *testing.T, delta bool) {
		h := start(t, delta, nil)
		h.opened()
		h.want("CDS v= n= [] node", "CDS n= node")
		h.Subscribe(eds, []string{"b", "a", "a"})
		h.want("EDS v= n= [a b]", "EDS n= +[a b]")
		h.Ack(h.send(eds, "1", "e1", "a"))
		h.want("EDS v=1 n=e1 [a b]", "EDS n=e1")
		h.Subscribe(eds, []string{"a", "b"}) // the same: silence
		h.Subscribe(eds, []string{"b", "c"})
		h.want("EDS v=1 n=e1 [b c]", "EDS n= +[c] -[a]")
		h.Subscribe(eds, []string{})
		h.want("EDS v=1 n=e1 []", "EDS n= -[b c]")
	})
}

// A request that overtakes the answer to a response must not look like one.
func TestChangeBeforeTheAnswerCarriesTheOldNonce(t *testing.T) {
	h := start(t, false, nil)
	h.opened()
	h.want("CDS v= n= [] node", "")
	h.Subscribe(eds, []string{"a"})
	h.want("EDS v= n= [a]", "")
	h.Ack(h.send(eds, "1", "e1", "a"))
	h.want("EDS v=1 n=e1 [a]", "")
	r := h.send(eds, "2", "e2", "a")
	h.Subscribe(eds, []string{"a", "b"})
	h.want("EDS v=1 n=e1 [a b]", "")
	h.Ack(r)
	h.want("EDS v=2 n=e2 [a b]", "")
}

// Seen of Envoy 1.40 after an orderly end of the stream.
func TestReconnectSaysAllAgain(t *testing.T) {
	variants(t, func(t *testing.T, delta bool) {
		h := start(t, delta, nil)
		h.opened()
		h.want("CDS v= n= [] node", "CDS n= node")
		h.Ack(h.send(cds, "6", "a", "x", "y"))
		h.want("CDS v=6 n=a []", "CDS n=a")
		h.Subscribe(eds, []string{"x", "y"})
		h.want("EDS v= n= [x y]", "EDS n= +[x y]")
		h.Ack(h.send(eds, "4", "b", "x"))
		h.want("EDS v=4 n=b [x y]", "EDS n=b")
		late := h.send(cds, "7", "c", "x")
		h.Close(nil)
		if e := h.event(); e.Closed == nil {
			t.Fatalf("event %+v, want the stream's end", e)
		}
		h.Ack(late) // its stream is gone; what it brought is in force
		h.opened()
		h.want("CDS v=7 n= [] node", "CDS n= have[x=7 y=6] node")
		h.want("EDS v=4 n= [x y]", "EDS n= +[x y] have[x=4]")
		if got := h.Streams(); got != 2 {
			t.Fatalf("%d streams, want 2", got)
		}
	})
}

func TestAnswerToAnEarlierStreamIsNotSent(t *testing.T) {
	variants(t, func(t *testing.T, delta bool) {
		h := start(t, delta, nil)
		h.opened()
		h.want("CDS v= n= [] node", "CDS n= node")
		late := h.send(cds, "7", "c", "x")
		h.Close(nil)
		h.event()
		h.opened()
		h.want("CDS v= n= [] node", "CDS n= node")
		h.Nack(late, errors.New("late"))
		h.Ack(late)
		h.Subscribe(lds, nil)
		h.want("LDS v= n= []", "LDS n=") // nothing went before it
	})
}

func TestNothingWantedIsNotAskedForAgain(t *testing.T) {
	variants(t, func(t *testing.T, delta bool) {
		h := start(t, delta, nil)
		h.opened()
		h.want("CDS v= n= [] node", "CDS n= node")
		h.Subscribe(eds, []string{"a"})
		h.want("EDS v= n= [a]", "EDS n= +[a]")
		h.Ack(h.send(eds, "1", "x", "a"))
		h.want("EDS v=1 n=x [a]", "EDS n=x")
		h.Subscribe(eds, []string{})
		h.want("EDS v=1 n=x []", "EDS n= -[a]")
		h.Close(nil)
		h.event()
		h.opened()
		h.want("CDS v= n= [] node", "CDS n= node")
		h.Subscribe(lds, nil)
		h.want("LDS v= n= []", "LDS n=")
		h.Subscribe(eds, []string{"a"}) // what was let go of is not held any more
		h.want("EDS v=1 n= [a]", "EDS n= +[a]")
	})
}

func TestRemovedResourcesAreForgotten(t *testing.T) {
	h := start(t, true, nil)
	h.opened()
	h.want("", "CDS n= node")
	h.Ack(h.send(cds, "1", "a", "x", "y"))
	h.want("", "CDS n=a")
	h.SendDelta(t, &discoveryv3.DeltaDiscoveryResponse{TypeUrl: cds, Nonce: "b", RemovedResources: []string{"x"}})
	h.Ack(h.event().Response)
	h.want("", "CDS n=b")
	h.Close(nil)
	h.event()
	h.opened()
	h.want("", "CDS n= have[y=1] node")
}

func TestBackoffStartsOverWithEveryResponse(t *testing.T) {
	waits := make(chan int, 16)
	h := start(t, false, func(o *Options) {
		o.Backoff = func(n int) time.Duration { waits <- n; return 0 }
	})
	for n := 1; n <= 3; n++ { // broken before a response came
		h.opened()
		h.AwaitStream(t, n)
		h.Close(nil)
		h.event()
		if got := <-waits; got != n {
			t.Fatalf("back-off attempt %d, want %d", got, n)
		}
	}
	h.opened()
	h.AwaitStream(t, 4)
	h.send(cds, "1", "a", "x")
	h.Close(nil)
	h.event()
	if got := <-waits; got != 1 {
		t.Fatalf("back-off attempt %d after a response, want 1", got)
	}
}

func TestJitterIsBelowEnvoysBounds(t *testing.T) {
	for n, bound := range map[int]time.Duration{1: 500 * time.Millisecond, 2: time.Second, 6: 16 * time.Second, 7: 30 * time.Second, 1000: 30 * time.Second} {
		lowest, highest := bound, time.Duration(0)
		for range 2000 {
			d := Jitter(n)
			if d < 0 || d >= bound {
				t.Fatalf("attempt %d waits %v, want [0, %v)", n, d, bound)
			}
			lowest, highest = min(lowest, d), max(highest, d)
		}
		if highest < bound*9/10 || lowest > bound/10 {
			t.Errorf("attempt %d waited from %v to %v of %v: not full jitter", n, lowest, highest, bound)
		}
	}
}

func TestServerRestartOnSamePortIsFound(t *testing.T) {
	h := start(t, true, nil)
	h.opened()
	h.want("", "CDS n= node")
	h.Stop()
	if e := h.event(); e.Closed == nil {
		t.Fatalf("event %+v, want the stream's end", e)
	}
	if e := h.event(); e.Closed == nil {
		t.Fatalf("event %+v, want a refused attempt", e)
	}
	h.Restart(t)
	for e := h.event(); !e.Opened; e = h.event() {
	}
	h.want("", "CDS n= node")
}

func TestEndpointsTakeTurns(t *testing.T) {
	h := start(t, true, nil)
	h.opened()
	dead := netip.MustParseAddrPort("127.0.0.1:1")
	h = start(t, true, func(o *Options) { o.Dial = dialer(dead, h.Addr()) })
	if e := h.event(); e.Closed == nil {
		t.Fatalf("event %+v, want a refused attempt", e)
	}
	h.opened()
}

func TestMetadataAndAuthorityAreSent(t *testing.T) {
	h := start(t, false, nil)
	h.opened()
	md := h.AwaitStream(t, 1)
	if got := strings.Join(md.Get("x-token"), ","); got != "one,two" {
		t.Errorf("x-token %q, want both values", got)
	}
	if got := md.Get(":authority"); len(got) != 1 || got[0] != "xds" {
		t.Errorf(":authority %q, want xds", got)
	}
}

func TestResponseOverGRPCsDefaultLimitIsTaken(t *testing.T) {
	h := start(t, false, nil)
	h.opened()
	h.AwaitStream(t, 1)
	h.Send(t, &discoveryv3.DiscoveryResponse{TypeUrl: cds, Resources: []*anypb.Any{{TypeUrl: cds, Value: make([]byte, 16<<20)}}})
	if e := h.event(); e.Response == nil || len(e.Response.Resources[0].Body.GetValue()) != 16<<20 {
		t.Fatalf("16 MiB response was not taken: %+v", e.Closed)
	}
}

func TestMalformedResponses(t *testing.T) {
	body := func(url string) *anypb.Any { return &anypb.Any{TypeUrl: url} }
	wrap := func(r *discoveryv3.Resource) *anypb.Any {
		a, err := anypb.New(r)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for name, c := range map[string]struct {
		got  *Response
		want string // "" is well formed
	}{
		"sotw type mismatch": {
			fromSotW(&discoveryv3.DiscoveryResponse{TypeUrl: lds, Resources: []*anypb.Any{body(cds)}}),
			cds + " does not match the message-wide type URL " + lds + " in DiscoveryResponse",
		},
		"delta type mismatch": {
			fromDelta(&discoveryv3.DeltaDiscoveryResponse{TypeUrl: lds, Resources: []*discoveryv3.Resource{{Name: "a", Resource: body(cds)}}}),
			"type URL " + cds + " embedded in an individual Any does not match the message-wide type URL " + lds + " in DeltaDiscoveryResponse",
		},
		"delta duplicate": {
			fromDelta(&discoveryv3.DeltaDiscoveryResponse{TypeUrl: lds, Resources: []*discoveryv3.Resource{{Name: "l3", Resource: body(lds)}, {Name: "l3", Resource: body(lds)}}}),
			"duplicate name l3 found among added/updated resources",
		},
		"delta added and removed": {
			fromDelta(&discoveryv3.DeltaDiscoveryResponse{TypeUrl: lds, RemovedResources: []string{"l2"}, Resources: []*discoveryv3.Resource{{Name: "l2", Resource: body(lds)}}}),
			"duplicate name l2 found in the union of added+removed resources",
		},
		"sotw wrapper garbage": {
			fromSotW(&discoveryv3.DiscoveryResponse{TypeUrl: lds, Resources: []*anypb.Any{{TypeUrl: wrapperURL, Value: []byte{0xff}}}}),
			"malformed response: decode resource wrapper",
		},
		"sotw wrapper of another type": {
			fromSotW(&discoveryv3.DiscoveryResponse{TypeUrl: lds, Resources: []*anypb.Any{wrap(&discoveryv3.Resource{Name: "a", Resource: body(cds)})}}),
			cds + " does not match the message-wide type URL " + lds,
		},
		"sotw wrapper": {
			fromSotW(&discoveryv3.DiscoveryResponse{TypeUrl: lds, Resources: []*anypb.Any{wrap(&discoveryv3.Resource{Name: "a", Version: "9", Resource: body(lds)})}}), "",
		},
		"heartbeats": {
			fromDelta(&discoveryv3.DeltaDiscoveryResponse{TypeUrl: lds, Resources: []*discoveryv3.Resource{{Name: "a", Ttl: durationpb.New(1)}, {Name: "b"}}}), "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			switch {
			case c.want == "" && c.got.Err != nil:
				t.Fatalf("err %v, want none", c.got.Err)
			case c.want != "" && (c.got.Err == nil || !strings.HasPrefix(c.got.Err.Error(), c.want)):
				t.Fatalf("err %v, want %s", c.got.Err, c.want)
			case c.want != "" && !errors.Is(c.got.Err, ErrResponse):
				t.Fatalf("err %v does not wrap ErrResponse", c.got.Err)
			}
		})
	}
}

func TestWrapperGivesNameAndVersion(t *testing.T) {
	w, err := anypb.New(&discoveryv3.Resource{Name: "a", Version: "9", Resource: &anypb.Any{TypeUrl: lds}})
	if err != nil {
		t.Fatal(err)
	}
	r := fromSotW(&discoveryv3.DiscoveryResponse{TypeUrl: lds, VersionInfo: "1", Resources: []*anypb.Any{w, {TypeUrl: lds}}})
	got := fmt.Sprint(r.Resources[0].Name, " ", r.ResourceVersion(r.Resources[0]), " ", r.ResourceVersion(r.Resources[1]))
	if got != "a 9 1" {
		t.Fatalf("name and versions %q, want a 9 1", got)
	}
}

// A server that never reads must cost bounded memory, not a wedge.
func TestServerThatDoesNotReadIsLeft(t *testing.T) {
	full := errors.New("")
	o := &outbox{wake: make(chan struct{}, 1), full: func(err error) { full = err }}
	for range maxUnsent {
		o.put(&discoveryv3.DiscoveryRequest{})
	}
	if full.Error() != "" {
		t.Fatalf("left after %d unsent requests: %v", maxUnsent, full)
	}
	o.put(&discoveryv3.DiscoveryRequest{})
	if full.Error() == "" {
		t.Fatal("not left")
	}
}
