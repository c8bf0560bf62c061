package als

import (
	"context"
	"io"
	"sync"
	"time"

	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/grpcservice"
)

const (
	// queueBytes bounds what waits for a service that does not take it: what
	// access logs on disk are bounded by too.
	queueBytes  = 4 << 20
	closeWithin = time.Second
)

// sender gathers entries and sends them, in one goroutine.
type sender struct {
	services *Services
	config   *api.ServiceLog
	key      string
	service  *grpcservice.Service
	wake     chan struct{}
	done     chan struct{}
	ctx      context.Context // of the streams
	cancel   context.CancelFunc

	users int // of services.mu

	mu     sync.Mutex
	queue  []*datav3.TCPAccessLogEntry
	bytes  int
	closed bool

	// the goroutine's
	stream alsv3.AccessLogService_StreamAccessLogsClient
	ended  chan struct{} // closed when the service has ended the stream
}

func newSender(s *Services, c *api.ServiceLog, key string) *sender {
	ctx, cancel := context.WithCancel(context.Background())
	return &sender{services: s, config: c, key: key, service: grpcservice.New(&c.Service, s.cluster),
		wake: make(chan struct{}, 1), done: make(chan struct{}), ctx: ctx, cancel: cancel}
}

// add queues an entry. It never waits.
func (s *sender) add(e *datav3.TCPAccessLogEntry) {
	size := proto.Size(e)
	s.mu.Lock()
	if s.closed || s.bytes+size > queueBytes {
		s.mu.Unlock()
		s.services.counters.dropped.Inc()
		return
	}
	s.queue = append(s.queue, e)
	s.bytes += size
	due := s.bytes >= int(s.config.BufferSize)
	s.mu.Unlock()
	s.services.counters.written.Inc()
	if due {
		s.signal()
	}
}

func (s *sender) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// stop has the goroutine send what waits, and end.
func (s *sender) stop() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	time.AfterFunc(closeWithin, s.cancel)
	s.signal()
}

func (s *sender) run() {
	defer close(s.done)
	defer s.service.Close()
	defer s.cancel()
	tick := time.NewTicker(s.config.FlushInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.wake:
		case <-tick.C:
		}
		s.mu.Lock()
		entries, bytes, closed := s.queue, s.bytes, s.closed
		s.queue, s.bytes = nil, 0
		s.mu.Unlock()
		if len(entries) > 0 && !s.send(entries) {
			s.services.counters.flushFailed.Add(uint64(len(entries)))
			s.back(entries, bytes)
		}
		if closed {
			s.hangUp()
			return
		}
	}
}

// back queues what could not be sent once more, before what came meanwhile.
func (s *sender) back(entries []*datav3.TCPAccessLogEntry, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.bytes+bytes > queueBytes {
		s.services.counters.dropped.Add(uint64(len(entries)))
		return
	}
	s.queue = append(entries, s.queue...)
	s.bytes += bytes
}

// send puts one message on the stream, and opens one if there is none. A service
// that does not read makes only this goroutine wait, by the flow control of
// HTTP/2.
func (s *sender) send(entries []*datav3.TCPAccessLogEntry) bool {
	m := &alsv3.StreamAccessLogsMessage{LogEntries: &alsv3.StreamAccessLogsMessage_TcpLogs{
		TcpLogs: &alsv3.StreamAccessLogsMessage_TCPAccessLogEntries{LogEntry: entries}}}
	if s.stream != nil {
		select {
		case <-s.ended:
			s.stream = nil
		default:
		}
	}
	if s.stream == nil {
		ctx, conn, err := s.service.Connection(s.ctx)
		if err != nil {
			return false
		}
		stream, err := alsv3.NewAccessLogServiceClient(conn).StreamAccessLogs(ctx)
		if err != nil {
			return false
		}
		s.stream, s.ended = stream, make(chan struct{})
		go watch(stream, s.ended)
		// Only the first message of a stream says who we are.
		m.Identifier = &alsv3.StreamAccessLogsMessage_Identifier{Node: s.services.node, LogName: s.config.LogName}
	}
	if err := s.stream.Send(m); err != nil {
		s.stream = nil
		return false
	}
	s.services.counters.flushed.Add(uint64(len(entries)))
	return true
}

// watch waits for the end of a stream, which is the only answer of a service.
func watch(stream alsv3.AccessLogService_StreamAccessLogsClient, ended chan struct{}) {
	defer close(ended)
	var answer alsv3.StreamAccessLogsResponse
	for stream.RecvMsg(&answer) == nil {
	}
}

// hangUp ends the stream in order, so that what was sent arrives.
func (s *sender) hangUp() {
	if s.stream == nil {
		return
	}
	if err := s.stream.CloseSend(); err != nil && err != io.EOF {
		return
	}
	<-s.ended // at the latest when closeWithin is over, which cancels it
}
