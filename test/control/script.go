package control

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Script is a management server that never answers by itself: the test sends
// each response. It records requests, and has one stream at a time in hand, the
// newest.
type Script struct {
	*Seen
	port

	mu      sync.Mutex
	streams int
	now     *scripted            // newest stream, nil before the first
	own     map[string]*scripted // newest stream of a type's own service, "" for the aggregated one
	opened  chan struct{}        // closed and replaced with every stream
}

// scripted is one stream. Only Send and SendDelta write to it.
type scripted struct {
	number int
	of     string // the type of its service, empty if aggregated
	header metadata.MD
	sotw   grpc.BidiStreamingServer[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]
	delta  grpc.BidiStreamingServer[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]
	end    chan error // what the handler returns
}

// StartScript starts a scripted server; it stops with the test.
func StartScript(tb testing.TB) *Script {
	tb.Helper()
	s := &Script{Seen: newSeen(), opened: make(chan struct{}), own: map[string]*scripted{}}
	s.port.register, s.port.any = func(*grpc.Server) {}, s.serve
	s.start(tb)
	tb.Cleanup(s.Stop)
	return s
}

// Restart listens again on the same port.
func (s *Script) Restart(tb testing.TB) {
	tb.Helper()
	s.Stop()
	s.start(tb)
}

// AwaitStream waits until stream n (from 1) is open and returns the metadata
// that it came with.
func (s *Script) AwaitStream(tb testing.TB, n int) metadata.MD {
	tb.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		now, opened := s.now, s.opened
		s.mu.Unlock()
		if now != nil && now.number >= n {
			return now.header
		}
		select {
		case <-opened:
		case <-deadline.C:
			tb.Fatalf("await stream %d: not opened in %v", n, Patience)
		}
	}
}

// Streams is how many streams were opened so far.
func (s *Script) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams
}

func (s *Script) streamLocked(typeURL string) *scripted {
	if st := s.own[typeURL]; st != nil {
		return st
	}
	return s.own[""]
}

// Send sends a state-of-the-world response on the newest stream of its type, or else on
// the newest of all.
func (s *Script) Send(tb testing.TB, r *discoveryv3.DiscoveryResponse) {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	to := s.streamLocked(r.GetTypeUrl())
	if to == nil || to.sotw == nil {
		tb.Fatal("send response: no state-of-the-world stream is open")
	}
	if err := to.sotw.Send(r); err != nil {
		tb.Fatalf("send response: %v", err)
	}
}

// SendDelta sends a delta response on the newest stream of its type, or else on
// the newest of all.
func (s *Script) SendDelta(tb testing.TB, r *discoveryv3.DeltaDiscoveryResponse) {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	to := s.streamLocked(r.GetTypeUrl())
	if to == nil || to.delta == nil {
		tb.Fatal("send response: no delta stream is open")
	}
	if err := to.delta.Send(r); err != nil {
		tb.Fatalf("send response: %v", err)
	}
}

// Close ends the newest stream with err, nil for an orderly end.
func (s *Script) Close(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != nil {
		select {
		case s.now.end <- err:
		default: // ended before
		}
	}
}

func (s *Script) open(st *scripted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams++
	st.number, st.end = s.streams, make(chan error, 1)
	s.now = st
	s.own[st.of] = st
	close(s.opened)
	s.opened = make(chan struct{})
}

// run reads requests until the test closes the stream or the client goes.
func (s *Script) run(ctx context.Context, st *scripted, recv func() (Request, error)) error {
	st.header, _ = metadata.FromIncomingContext(ctx)
	s.open(st)
	go s.record(recv)
	select {
	case err := <-st.end:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Script) record(recv func() (Request, error)) {
	for {
		r, err := recv()
		if err != nil {
			return
		}
		s.add(r)
	}
}

// serve takes the streams of all discovery services, aggregated or not, and of
// both variants: their messages are the same.
func (s *Script) serve(_ any, g grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(g)
	service, call, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	st := &scripted{of: ownTypes[service]}
	if strings.HasPrefix(call, "Delta") {
		st.delta = &grpc.GenericServerStream[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]{ServerStream: g}
		return s.run(g.Context(), st, func() (Request, error) {
			r, err := st.delta.Recv()
			if err != nil {
				return Request{}, errors.New("end")
			}
			return fromDelta(st.number, r), nil
		})
	}
	st.sotw = &grpc.GenericServerStream[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]{ServerStream: g}
	return s.run(g.Context(), st, func() (Request, error) {
		r, err := st.sotw.Recv()
		if err != nil {
			return Request{}, errors.New("end")
		}
		return fromSotW(st.number, r), nil
	})
}

// ownTypes are the types of the services that have one.
var ownTypes = map[string]string{
	"envoy.service.listener.v3.ListenerDiscoveryService":         resourcev3.ListenerType,
	"envoy.service.cluster.v3.ClusterDiscoveryService":           resourcev3.ClusterType,
	"envoy.service.endpoint.v3.EndpointDiscoveryService":         resourcev3.EndpointType,
	"envoy.service.secret.v3.SecretDiscoveryService":             resourcev3.SecretType,
	"envoy.service.extension.v3.ExtensionConfigDiscoveryService": resourcev3.ExtensionConfigType,
	"envoy.service.runtime.v3.RuntimeDiscoveryService":           resourcev3.RuntimeType,
}
