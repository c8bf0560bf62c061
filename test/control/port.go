package control

import (
	"net"
	"net/netip"
	"sync"
	"testing"

	"google.golang.org/grpc"
)

// port is a gRPC server that can stop and come back on the same address.
type port struct {
	register func(*grpc.Server)
	// any takes the streams of services that are not registered; nil for none.
	any grpc.StreamHandler

	mu   sync.Mutex
	addr netip.AddrPort
	srv  *grpc.Server // nil while stopped
	done chan struct{}
}

func (p *port) start(tb testing.TB) {
	tb.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	at := "127.0.0.1:0"
	if p.addr.IsValid() {
		at = p.addr.String()
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		tb.Fatalf("listen on %s: %v", at, err)
	}
	p.addr = l.Addr().(*net.TCPAddr).AddrPort()
	o := []grpc.ServerOption{grpc.MaxRecvMsgSize(1 << 30), grpc.MaxSendMsgSize(1 << 30)}
	if p.any != nil {
		o = append(o, grpc.UnknownServiceHandler(p.any))
	}
	p.srv = grpc.NewServer(o...)
	p.register(p.srv)
	p.done = make(chan struct{})
	go serve(p.srv, l, p.done)
}

func serve(s *grpc.Server, l net.Listener, done chan<- struct{}) {
	defer close(done)
	_ = s.Serve(l) // ends with Stop
}

// Addr is where the server listens; it stays the same over Stop and Start.
func (p *port) Addr() netip.AddrPort {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr
}

// Stop closes the listening socket and resets every stream, as a killed control
// plane would. It may be called twice.
func (p *port) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.srv == nil {
		return
	}
	p.srv.Stop()
	<-p.done
	p.srv = nil
}
