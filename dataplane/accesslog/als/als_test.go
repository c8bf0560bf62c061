package als

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/api/substitution"
	"github.com/sluice-proxy/sluice/dataplane/stream"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver keeps what it is sent.
type receiver struct {
	alsv3.UnimplementedAccessLogServiceServer
	mu       sync.Mutex
	messages []*alsv3.StreamAccessLogsMessage
	streams  int
	hold     chan struct{} // nil, or reads nothing until it is closed
}

func (r *receiver) StreamAccessLogs(s alsv3.AccessLogService_StreamAccessLogsServer) error {
	r.mu.Lock()
	r.streams++
	r.mu.Unlock()
	if r.hold != nil {
		select {
		case <-r.hold:
		case <-s.Context().Done():
		}
	}
	for {
		m, err := s.Recv()
		if err != nil {
			return nil
		}
		r.mu.Lock()
		r.messages = append(r.messages, m)
		r.mu.Unlock()
	}
}

func (r *receiver) seen() (messages []*alsv3.StreamAccessLogsMessage, entries, streams int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.messages {
		entries += len(m.GetTcpLogs().GetLogEntry())
	}
	return append(messages, r.messages...), entries, r.streams
}

// serve starts a receiver; stop ends it at once.
func serve(t *testing.T, at string, r *receiver) (addr string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	alsv3.RegisterAccessLogServiceServer(g, r)
	done := make(chan struct{})
	go func() { defer close(done); g.Serve(ln) }()
	stop = sync.OnceFunc(func() { g.Stop(); <-done })
	t.Cleanup(stop)
	return ln.Addr().String(), stop
}

type world struct {
	*Services
	store *stats.Store
}

func newWorld(t *testing.T) *world {
	t.Helper()
	node, err := proto.Marshal(&corev3.Node{Id: "n"})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{store: stats.New()}
	w.Services, err = New(node, func(string) *upstream.Cluster { return nil }, w.store, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func (w *world) value(name string) uint64 {
	s, _ := w.store.Lookup("access_logs.grpc_access_log." + name)
	return s.Value
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func config(target string, change ...func(*api.ServiceLog)) *api.ServiceLog {
	c := &api.ServiceLog{LogName: "log", Service: api.GRPCService{Target: target, Timeout: time.Hour}, FlushInterval: 5 * time.Millisecond, BufferSize: 16 << 10}
	for _, f := range change {
		f(c)
	}
	return c
}

func moment() stream.Moment {
	return stream.Moment{Info: stream.New(1, &stream.Listener{Name: "l"}, netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("[::1]:2"))}
}

func TestEntriesAreSentWhenTheIntervalIsOver(t *testing.T) {
	r := &receiver{}
	addr, _ := serve(t, "127.0.0.1:0", r)
	w := newWorld(t)
	l := w.Open(config(addr))
	defer l.Close()
	for want := 1; want <= 2; want++ {
		l.Write(moment())
		await(t, "it arrives", func() bool { _, n, _ := r.seen(); return n == want })
	}
	m, _, streams := r.seen()
	if streams != 1 || m[0].GetIdentifier().GetLogName() != "log" || m[0].GetIdentifier().GetNode().GetId() != "n" {
		t.Errorf("%d streams, the first message says %v", streams, m[0].GetIdentifier())
	}
	if m[1].GetIdentifier() != nil {
		t.Error("the second message of a stream says again who we are")
	}
	if w.value("logs_written") != 2 || w.value("grpc_entries_flushed") != 2 {
		t.Errorf("counted %d written, %d flushed", w.value("logs_written"), w.value("grpc_entries_flushed"))
	}
}

func TestAFullBufferDoesNotWaitForTheInterval(t *testing.T) {
	r := &receiver{}
	addr, _ := serve(t, "127.0.0.1:0", r)
	l := newWorld(t).Open(config(addr, func(c *api.ServiceLog) { c.FlushInterval, c.BufferSize = time.Hour, 1 }))
	defer l.Close()
	l.Write(moment())
	await(t, "it arrives", func() bool { _, n, _ := r.seen(); return n == 1 })
}

func TestWhatWaitsIsSentAtTheEnd(t *testing.T) {
	r := &receiver{}
	addr, _ := serve(t, "127.0.0.1:0", r)
	w := newWorld(t)
	l := w.Open(config(addr, func(c *api.ServiceLog) { c.FlushInterval = time.Hour }))
	l.Write(moment())
	w.Close()
	if _, n, _ := r.seen(); n != 1 {
		t.Errorf("%d entries arrived", n)
	}
	l.Write(moment())
	if w.value("logs_dropped") != 1 {
		t.Error("an entry after the end is not counted as dropped")
	}
}

func TestEqualLogsShareAStreamAndOthersDoNot(t *testing.T) {
	r := &receiver{}
	addr, _ := serve(t, "127.0.0.1:0", r)
	w := newWorld(t)
	a, b := w.Open(config(addr)), w.Open(config(addr, func(c *api.ServiceLog) { c.FilterState = []string{"k"} }))
	other := w.Open(config(addr, func(c *api.ServiceLog) { c.LogName = "other" }))
	a.Close()
	b.Write(moment())
	other.Write(moment())
	await(t, "both arrive", func() bool { _, n, _ := r.seen(); return n == 2 })
	if _, _, streams := r.seen(); streams != 2 || a.to != b.to || a.to == other.to {
		t.Errorf("%d streams", streams)
	}
	b.Close()
	other.Close()
	await(t, "the streams end", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.open) == 0 })
}

// What cannot be sent waits for the service, which is told again who we are.
func TestAServiceThatWasAwayGetsWhatWaited(t *testing.T) {
	first, second := &receiver{}, &receiver{}
	addr, stop := serve(t, "127.0.0.1:0", first)
	w := newWorld(t)
	l := w.Open(config(addr))
	defer l.Close()
	l.Write(moment())
	await(t, "it arrives", func() bool { _, n, _ := first.seen(); return n == 1 })
	stop()
	await(t, "the end of the stream is seen", func() bool {
		l.Write(moment())
		return w.value("grpc_entries_flush_failed") > 0
	})
	before := w.value("grpc_entries_flushed")
	serve(t, addr, second)
	await(t, "what waited arrives", func() bool {
		_, n, _ := second.seen()
		return n > 0 && uint64(n) == w.value("grpc_entries_flushed")-before
	})
	if m, _, _ := second.seen(); m[0].GetIdentifier().GetNode().GetId() != "n" {
		t.Error("the first message of the new stream does not say who we are")
	}
}

// A service that takes nothing costs a bounded queue, and no time of the writer's.
func TestAServiceThatDoesNotReadIsBounded(t *testing.T) {
	r := &receiver{hold: make(chan struct{})}
	addr, _ := serve(t, "127.0.0.1:0", r)
	w := newWorld(t)
	l := w.Open(config(addr, func(c *api.ServiceLog) { c.Tags = []api.LogTag{{Name: "t", Default: string(make([]byte, 64<<10))}} }))
	defer l.Close()
	await(t, "something is dropped", func() bool { l.Write(moment()); return w.value("logs_dropped") > 0 })
	l.to.mu.Lock()
	if l.to.bytes > queueBytes {
		t.Errorf("%d bytes wait", l.to.bytes)
	}
	l.to.mu.Unlock()
	close(r.hold)
}

func TestAClusterThatIsNotThereLosesNothing(t *testing.T) {
	w := newWorld(t)
	l := w.Open(config("", func(c *api.ServiceLog) { c.Service.Cluster = "nope" }))
	defer l.Close()
	l.Write(moment())
	await(t, "it is tried", func() bool { return w.value("grpc_entries_flush_failed") > 1 })
	if n := w.value("logs_dropped"); n != 0 {
		t.Errorf("%d dropped", n)
	}
}

// What Envoy 1.40 sends of a connect that was refused, and of one that is open.
func TestEntriesAreEnvoys(t *testing.T) {
	m := moment()
	i := m.Info
	i.Start = time.Unix(5, 6789)
	i.Upstream.Cluster = &stream.Cluster{Name: "dead", Stat: "dead"}
	i.Connecting(&api.Endpoint{Addr: netip.MustParseAddrPort("127.0.0.1:19999")})
	i.Flags.Set(stream.UpstreamConnectionFailure | stream.UpstreamRetryLimitExceeded)
	i.Explain().UpstreamFailure = "delayed connect error: Connection refused"
	i.SetState("my.key", stream.Object{Value: "hello"})
	i.SetMetadata("k", "z", "v")
	i.Lasted = 278435
	m.Type = "TcpConnectionEnd"
	got := &datav3.AccessLogCommon{}
	l := newWorld(t).Open(config("127.0.0.1:1", func(c *api.ServiceLog) {
		c.FlushInterval = time.Hour
		c.FilterState = []string{"my.key", "no.key"}
		c.Tags = []api.LogTag{{Name: "t1", Default: "v1"}, {Name: "t2"}, {Name: "t3", Default: "d", Value: substitution.Format{{Command: "DYNAMIC_METADATA", Arg: "k:z", Max: -1}}}}
	}))
	defer l.Close()
	l.Write(m)
	l.to.mu.Lock()
	got = l.to.queue[0].GetCommonProperties()
	l.to.mu.Unlock()
	if got.StreamId == "" {
		t.Error("no stream_id")
	}
	got.StreamId = ""
	want := &datav3.AccessLogCommon{}
	if err := prototext.Unmarshal([]byte(`
		downstream_remote_address {socket_address {address: "127.0.0.1" port_value: 1}}
		downstream_local_address {socket_address {address: "::1" port_value: 2}}
		downstream_direct_remote_address {socket_address {address: "127.0.0.1" port_value: 1}}
		start_time {seconds: 5 nanos: 6000}
		upstream_remote_address {socket_address {address: "127.0.0.1" port_value: 19999}}
		upstream_cluster: "dead"
		response_flags {upstream_connection_failure: true upstream_retry_limit_exceeded: true}
		upstream_transport_failure_reason: "delayed connect error: Connection refused"
		metadata {filter_metadata {key: "k" value {fields {key: "z" value {string_value: "v"}}}}}
		filter_state_objects {key: "my.key" value {[type.googleapis.com/google.protobuf.StringValue] {value: "hello"}}}
		custom_tags {key: "t1" value: "v1"}
		custom_tags {key: "t3" value: "v"}
		duration {nanos: 278435}
		upstream_request_attempt_count: 1
		access_log_type: TcpConnectionEnd`), want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Error(d)
	}
	open := common(moment())
	//lint:ignore SA1019 Envoy 1.40 still says it
	if !open.IntermediateLogEntry || open.Duration != nil || open.AccessLogType != datav3.AccessLogType_NotSet || open.ResponseFlags != nil {
		t.Errorf("of an open connection: %v", open)
	}
}
