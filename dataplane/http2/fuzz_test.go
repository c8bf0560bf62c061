package http2

import (
	"bytes"
	"syscall"
	"testing"

	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/balance"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// void takes everything, and has nothing to say.
type void struct{}

func (void) Recv([]byte) (int, syscall.Errno)   { return 0, unix.EAGAIN }
func (void) Send(b []byte) (int, syscall.Errno) { return len(b), 0 }
func (void) Flush() syscall.Errno               { return 0 }

// FuzzFrames feeds a connection with one stream whatever there is, in pieces: nothing
// grows without bound, and at the end nothing is counted as open.
func FuzzFrames(f *testing.F) {
	frames := func(write func(*http2.Framer)) []byte {
		var b bytes.Buffer
		w := http2.NewFramer(&b, nil)
		_ = w.WriteSettings() // to a buffer
		write(w)
		return b.Bytes()
	}
	ok := http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true}
	f.Add(frames(func(w *http2.Framer) { _, _ = w.WriteHeaders(ok), w.WriteData(1, true, []byte("hello")) }), 7)
	f.Add(frames(func(w *http2.Framer) {
		_, _, _ = w.WriteHeaders(ok), w.WriteDataPadded(1, false, []byte("x"), make([]byte, 9)), w.WriteRSTStream(1, http2.ErrCodeNo)
	}), 20)
	f.Add(frames(func(w *http2.Framer) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}})
		_, _ = w.WriteContinuation(1, false, []byte{0x40, 1, 'a', 1, 'b'}), w.WriteContinuation(1, true, nil)
	}), 1)
	f.Add(frames(func(w *http2.Framer) {
		_, _, _ = w.WriteGoAway(1, 0, nil), w.WritePing(false, [8]byte{}), w.WriteWindowUpdate(1, 5)
	}), 3)
	w, err := loop.New(0, nil)
	if err != nil {
		f.Fatal(err)
	}
	go w.Run()
	store, config := stats.New(), clusterConfig()
	config.HTTP2.StreamWindow = window
	u := upstream.New(config, store, upstream.Watch{})
	f.Cleanup(func() {
		w.Close()
		u.Close()
	})
	f.Fuzz(func(t *testing.T, b []byte, at int) {
		w.Do(func() {
			p := NewPool(w)
			choice := u.Choose(0, &balance.Asked{})
			target := Target{Host: choice.Host, Generation: choice.Generation()}
			h := &hosted{pool: p, target: target, sharing: target.Generation.Sharing(target.Host), unwatch: func() {}}
			p.hosts[target] = h
			c := newConn(h, h.sharing.Open())
			h.conns = append(h.conns, c)
			c.wire, c.standing = void{}, true
			c.shared.Stands()
			s := &Stream{pool: h, owner: &client{told: make(chan error, 9), woken: make(chan struct{}, 1), over: make(chan struct{})}, request: h.sharing.Request()}
			c.open(s)
			at = min(max(at, 0), len(b))
			for _, part := range [][]byte{b[:at], b[at:]} {
				if c.broken == nil && !c.closed {
					c.parse(part)
				}
				if len(c.in) > 80<<10 || len(c.out) > sendRoom+maxControl+maxFrame || cap(s.in) > 4*window {
					t.Errorf("%d bytes are kept, %d are to be sent, %d to be read", len(c.in), len(c.out), cap(s.in))
				}
				if !c.closed {
					c.turn()
				}
			}
			if !c.closed {
				s.Close(false)
				c.broken = errIdle
				c.finish()
			}
			if n := int64(u.Stats.RqActive.Value()) + int64(u.Stats.Active.Value()) + int64(u.Stats.PendingActive.Value()); n != 0 || len(c.streams) > 0 {
				t.Errorf("%d are open, with %d streams", n, len(c.streams))
			}
		})
	})
}
