package demo

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// faults are what a back end does wrong; zero does nothing wrong.
type faults struct {
	// corruptAfter flips a bit of one echoed byte after so many bytes.
	corruptAfter int64
	// refuseAfter closes the port for refuseFor after so many connections.
	refuseAfter int
	refuseFor   time.Duration
}

// backendFaults is the one place that knows of --fault: the second back end gets
// what it returns, and nothing that checks does.
func backendFaults(name string) faults {
	switch name {
	case "corrupt":
		return faults{corruptAfter: 20_000}
	case "refuse":
		return faults{refuseAfter: 30, refuseFor: 400 * time.Millisecond}
	}
	return faults{}
}

// backend greets with its number in one line, then echoes.
type backend struct {
	number int
	addr   string
	faults faults
	wg     sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	listener net.Listener // nil while it refuses
	conns    map[net.Conn]bool
	accepted int
	echoed   int64
	flipped  bool
}

func banner(number int) string { return fmt.Sprintf("back end %d\n", number) }

func startBackend(number int, f faults) (*backend, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start back end %d: %w", number, err)
	}
	b := &backend{number: number, addr: l.Addr().String(), faults: f, listener: l, conns: map[net.Conn]bool{}}
	b.wg.Go(func() { b.accept(l) })
	return b, nil
}

func (b *backend) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if !b.admit(c) {
			c.Close()
			return
		}
		b.wg.Go(func() { b.serve(c) })
		if b.pauses() {
			l.Close()
			b.wg.Go(b.comeBack)
			return
		}
	}
}

func (b *backend) admit(c net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	b.conns[c] = true
	b.accepted++
	return true
}

func (b *backend) pauses() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.faults.refuseAfter > 0 && b.accepted == b.faults.refuseAfter
}

// comeBack listens again on the same port.
func (b *backend) comeBack() {
	time.Sleep(b.faults.refuseFor)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	l, err := net.Listen("tcp", b.addr)
	if err != nil {
		return // it goes on refusing
	}
	b.listener = l
	b.wg.Go(func() { b.accept(l) })
}

func (b *backend) serve(c net.Conn) {
	defer func() {
		c.Close()
		b.mu.Lock()
		delete(b.conns, c)
		b.mu.Unlock()
	}()
	if _, err := c.Write([]byte(banner(b.number))); err != nil {
		return
	}
	buf := make([]byte, 16<<10)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			b.spoil(buf[:n])
			if _, err := c.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// spoil flips one bit, once, when it is its turn.
func (b *backend) spoil(p []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.echoed += int64(len(p))
	if b.faults.corruptAfter > 0 && !b.flipped && b.echoed >= b.faults.corruptAfter {
		p[len(p)-1] ^= 1
		b.flipped = true
	}
}

func (b *backend) close() {
	b.mu.Lock()
	b.closed = true
	b.listener.Close()
	for c := range b.conns {
		c.Close()
	}
	b.mu.Unlock()
	b.wg.Wait()
}
