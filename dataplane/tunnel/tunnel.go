// Package tunnel opens tunnels through HTTP/1.1 proxies, on the worker's loop, as
// tcp_proxy's tunneling_config asks. After a CONNECT in the clear the socket is
// the stream, and the kernel may splice it; what is encrypted, or travels in the
// chunks of a POST, has a transport.
package tunnel

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"

	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/pair"
	"golang.org/x/sys/unix"
)

var (
	// ErrEnded says that the proxy hung up before it answered; Envoy has no words
	// for that.
	ErrEnded = errors.New("connection ended before the response")
	// ErrAnswer is an answer that is no HTTP/1.1 response.
	ErrAnswer = errors.New("read response")
)

// StatusError is a response that opens no tunnel.
type StatusError int

func (e StatusError) Error() string { return fmt.Sprintf("tunnel_response:%d", int(e)) }

// maxHead bounds the head of a response: Envoy's max_response_headers_kb.
const maxHead = 60 << 10

// events are waited for edge-triggered.
const events = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | unix.EPOLLET

// Request asks for a tunnel.
type Request struct {
	// Authority is what is connected to, and the Host header.
	Authority string
	// Path is that of a POST; empty: CONNECT.
	Path    string
	Headers []Header
}

// Header is one line of a head.
type Header struct{ Name, Value string }

func (r *Request) head() []byte {
	var b bytes.Buffer
	if r.Path != "" {
		fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nhost: %s\r\n", r.Path, r.Authority)
	} else {
		fmt.Fprintf(&b, "CONNECT %s HTTP/1.1\r\nhost: %s\r\n", r.Authority, r.Authority)
	}
	for _, h := range r.Headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h.Name, h.Value)
	}
	if r.Path != "" {
		b.WriteString("transfer-encoding: chunked\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// Opening is a tunnel under way. It is for its worker's thread.
type Opening struct {
	worker *loop.Worker
	fd     int
	wire   wire
	post   bool
	// whole: the head is peeked at, so that what follows it stays in the socket.
	whole bool
	done  func(pair.Transport, error)

	out  []byte // of the request, what is still to be sent
	head []byte // of the response, and what was read with it
	read uint64
	over bool
}

// Read are the bytes that were read from the socket itself, of what is not
// encrypted.
func (o *Opening) Read() uint64 { return o.read }

// Open asks for a tunnel on a connected, non-blocking descriptor that the worker
// has parked; under encrypts it, or is nil. done is called once, on the worker,
// never before Open returns, with the descriptor parked, and with what the stream
// travels by from there on: nil for the socket as it is. Cancel prevents it.
func Open(w *loop.Worker, fd int, under pair.Transport, r Request, done func(pair.Transport, error)) (*Opening, error) {
	o := &Opening{worker: w, fd: fd, post: r.Path != "", done: done, out: r.head(), wire: pair.Plain(fd)}
	if under != nil {
		o.wire = under
	}
	o.whole = under == nil && !o.post
	// The socket's last event is over: that it can be written to is told anew.
	if err := w.Add(fd, events, o); err != nil {
		return nil, fmt.Errorf("watch socket: %w", err)
	}
	return o, nil
}

// Cancel gives the tunnel up; the caller closes the descriptor.
func (o *Opening) Cancel() {
	if !o.over {
		o.over = true
		o.worker.Forget(o.fd)
	}
}

// Ready is called by the worker.
func (o *Opening) Ready(uint32) {
	if err := o.send(); err != 0 {
		o.end(nil, fmt.Errorf("send request: %w", err))
		return
	}
	if o.whole {
		o.peek()
		return
	}
	o.receive()
}

func (o *Opening) send() syscall.Errno {
	for len(o.out) > 0 {
		n, err := o.wire.Send(o.out)
		if err == unix.EAGAIN {
			return 0
		}
		if err != 0 {
			return err
		}
		o.out = o.out[n:]
	}
	if err := o.wire.Flush(); err != 0 && err != unix.EAGAIN {
		return err
	}
	return 0
}

// peek takes no more than the head out of the socket.
func (o *Opening) peek() {
	buf := o.worker.Buffer()
	buf = buf[:min(len(buf), maxHead)]
	for {
		n, _, err := unix.Recvfrom(o.fd, buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			return
		case err != nil:
			o.end(nil, fmt.Errorf("read response: %w", err))
			return
		case n == 0:
			o.end(nil, ErrEnded)
			return
		}
		size := headSize(buf[:n])
		if size == 0 {
			if n == len(buf) {
				o.end(nil, fmt.Errorf("%w: its head is longer than %d bytes", ErrAnswer, maxHead))
			}
			return
		}
		if _, _, err := unix.Recvfrom(o.fd, buf[:size], unix.MSG_DONTWAIT); err != nil {
			o.end(nil, fmt.Errorf("read response: %w", err))
			return
		}
		o.read += uint64(size)
		answer, err := readHead(buf[:size])
		if err == nil && answer.interim() {
			continue
		}
		o.answered(answer, nil, err)
		return
	}
}

// receive reads more than the head, perhaps; what follows goes to the transport.
func (o *Opening) receive() {
	buf := o.worker.Buffer()
	for {
		for size := headSize(o.head); size > 0; size = headSize(o.head) {
			answer, err := readHead(o.head[:size])
			o.head = o.head[size:]
			if err != nil || !answer.interim() {
				o.answered(answer, o.head, err)
				return
			}
		}
		if len(o.head) > maxHead {
			o.end(nil, fmt.Errorf("%w: its head is longer than %d bytes", ErrAnswer, maxHead))
			return
		}
		n, errno := o.wire.Recv(buf[:min(len(buf), maxHead)])
		switch {
		case errno == unix.EAGAIN:
			return
		case errno != 0:
			o.end(nil, fmt.Errorf("read response: %w", errno))
			return
		case n == 0:
			o.end(nil, ErrEnded)
			return
		}
		o.head = append(o.head, buf[:n]...)
	}
}

// answered ends the opening with what the head says and with what came after it.
func (o *Opening) answered(a answer, rest []byte, err error) {
	switch {
	case err != nil:
		o.end(nil, err)
	case a.status/100 != 2: // RFC 9110, 9.3.6: any of them opens it
		o.end(nil, StatusError(a.status))
	case o.post:
		o.end(&chunked{wire: o.wire, in: rest, body: a.body()}, nil)
	case o.whole:
		o.end(nil, nil)
	default:
		o.end(&ahead{Transport: o.wire.(pair.Transport), in: rest}, nil)
	}
}

func (o *Opening) end(t pair.Transport, err error) {
	if o.over {
		return
	}
	o.over = true
	o.worker.Park(o.fd)
	o.done(t, err)
}
