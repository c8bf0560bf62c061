package tls

import (
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"golang.org/x/sys/unix"
)

// Handshake is one under way. Its methods are for the worker's thread.
type Handshake struct {
	*Conn
	worker  *loop.Worker
	started bool
	over    bool
	done    func(error)
}

// handshakeEvents are waited for edge-triggered: the goroutine reads until there is
// nothing more.
const handshakeEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET

// Ready is called by the worker. A server has nothing to do before the client has
// said something, so there is no goroutine for who says nothing.
func (h *Handshake) Ready(events uint32) {
	if h.started {
		h.socket.rouse()
	} else if events&^unix.EPOLLOUT != 0 {
		h.start()
	}
}

func (h *Handshake) start() {
	h.started = true
	h.socket.limiter.running.Add(1)
	go h.run()
}

// run is the goroutine of a handshake.
func (h *Handshake) run() {
	l := h.socket.limiter
	defer l.running.Done()
	l.acquire()
	err := h.tls.Handshake()
	l.release()
	h.worker.Post(func() { h.finish(err) })
}

func (h *Handshake) finish(err error) {
	if h.over {
		return
	}
	h.over = true
	h.worker.Park(h.socket.fd)
	h.socket.waits, h.socket.wake = false, nil
	if err != nil {
		h.fail(err)
	} else {
		h.stats.completed(h.tls.ConnectionState())
	}
	h.done(err)
}

// Cancel gives the handshake up; the caller closes the descriptor.
func (h *Handshake) Cancel() {
	if h.over {
		return
	}
	h.over = true
	h.worker.Forget(h.socket.fd)
	h.socket.detach()
}
