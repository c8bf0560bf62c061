package http2

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// What a host may do that costs it little, and what becomes of it. The connection is
// ended, counted, and the stream on it fails; the next stream gets another.
func TestHostilePeersLoseTheirConnection(t *testing.T) {
	flood := func(n int, write func(p *host, id uint32) error) func(*host, uint32) {
		return func(p *host, id uint32) {
			for range n {
				if write(p, id) != nil {
					return // it was ended
				}
			}
		}
	}
	raw := func(b string) func(*host, uint32) {
		return func(p *host, _ uint32) { _, _ = p.conn.Write([]byte(b)) } // it may be gone
	}
	for _, tt := range []struct {
		what, counted string // beside upstream_cx_protocol_error
		do            func(p *host, id uint32)
	}{
		{"empty frames", "http2.inbound_empty_frames_flood", flood(9, func(p *host, id uint32) error { return p.WriteData(id, false, nil) })},
		{"PRIORITY", "http2.inbound_priority_frames_flood", flood(999, func(p *host, id uint32) error {
			return p.WritePriority(id, http2.PriorityParam{Weight: 1})
		})},
		{"WINDOW_UPDATE", "http2.inbound_window_update_frames_flood", flood(99, func(p *host, id uint32) error { return p.WriteWindowUpdate(0, 1) })},
		{"a frame that is too long", "", raw("\xff\xff\xff\x00\x00\x00\x00\x00\x01")},
		{"a PING of 7 bytes", "", raw("\x00\x00\x07\x06\x00\x00\x00\x00\x001234567")},
		{"SETTINGS on a stream", "", raw("\x00\x00\x00\x04\x00\x00\x00\x00\x01")},
		{"a wrong setting", "", func(p *host, _ uint32) {
			_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})
		}},
		{"a window that is too large by its setting", "", func(p *host, id uint32) {
			_ = p.WriteWindowUpdate(id, 1<<31-1-65535)
			_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
		}},
		{"the connection's window too large", "", func(p *host, _ uint32) { _ = p.WriteWindowUpdate(0, 1<<31-1) }},
		{"a stream that nobody opened", "", func(p *host, id uint32) { _ = p.WriteData(id+2, false, []byte("x")) }},
		{"the end of one that nobody opened", "", func(p *host, id uint32) { _ = p.WriteRSTStream(id+2, http2.ErrCodeCancel) }},
		{"a window of one that nobody opened", "", func(p *host, id uint32) { _ = p.WriteWindowUpdate(id+2, 1) }},
		{"a head of one that nobody opened", "", func(p *host, id uint32) { p.head(id+1, false, ":status", "200") }},
		{"a promise", "", func(p *host, id uint32) {
			_ = p.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: []byte{0x88}, EndHeaders: true})
		}},
		{"a head that is no HPACK", "", func(p *host, id uint32) {
			_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true})
		}},
		{"bytes before the head", "", func(p *host, id uint32) { _ = p.WriteData(id, false, []byte("x")) }},
		{"a head without a status", "http2.rx_messaging_error", func(p *host, id uint32) { p.head(id, false, "x", "y") }},
		{"a status that is no number", "http2.rx_messaging_error", func(p *host, id uint32) { p.head(id, false, ":status", "x") }},
		{"a request's pseudo-header", "http2.rx_messaging_error", func(p *host, id uint32) { p.head(id, false, ":status", "200", ":path", "/") }},
		{"a window update of nothing", "", func(p *host, id uint32) { _ = p.WriteRawFrame(http2.FrameWindowUpdate, 0, id, make([]byte, 4)) }},
		{"CONTINUATION without a head", "", func(p *host, id uint32) { _ = p.WriteContinuation(id, true, nil) }},
		{"something else within a head", "", func(p *host, id uint32) {
			_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x88}})
			_ = p.WritePing(false, [8]byte{})
		}},
		{"CONTINUATION without end", "", func(p *host, id uint32) {
			_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x88}})
			flood(9999, func(p *host, id uint32) error { return p.WriteContinuation(id, false, []byte{0x88, 0x88}) })(p, id)
		}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			h := newHouse(t, func(c *api.Cluster) { c.HTTP2.MaxEmpty = 0 })
			c := h.open()
			p := h.accept()
			id := p.asked().StreamID
			tt.do(p, id)
			if err := c.answer(); !errors.Is(err, ErrLost) && !errors.Is(err, ErrReset) {
				t.Errorf("the stream got %v", err)
			}
			h.figure("upstream_cx_protocol_error", 1)
			h.figure("upstream_cx_active", 0)
			h.figure("http2.streams_active", 0)
			h.figure("upstream_rq_active", 0)
			if tt.counted != "" {
				h.figure(tt.counted, 1)
			}
			h.answered()
		})
	}
}

// What breaks a stream that was there breaks it for its client: it is no end.
func TestABrokenConnectionIsNoEnd(t *testing.T) {
	for what, do := range map[string]func(p *host, id uint32){
		"a second head": func(p *host, id uint32) { p.head(id, false, "x", "y") },
		"bytes after the end": func(p *host, id uint32) {
			_ = p.WriteData(id, true, nil)
			_ = p.WriteData(id, false, []byte("y"))
		},
		"its end": func(p *host, _ uint32) { p.conn.Close() },
	} {
		h := newHouse(t, nil)
		c, p, id := h.answered()
		do(p, id)
		h.figure("upstream_cx_active", 0)
		if got, err := c.read(9); err == nil || err == io.EOF {
			t.Errorf("%s: read %q, %v", what, got, err)
		}
		h.figure("upstream_rq_active", 0)
	}
}

// A host that makes us answer and does not read is left.
func TestAnswersThatNobodyReadsAreBounded(t *testing.T) {
	for _, ping := range []bool{true, false} {
		h := newHouse(t, func(c *api.Cluster) { c.HTTP2.MaxControls = 100 })
		c := h.open()
		p := h.accept()
		p.asked()
		for {
			var err error
			if ping {
				err = p.WritePing(false, [8]byte{})
			} else {
				err = p.WriteSettings()
			}
			if err != nil {
				break // we are cut off
			}
		}
		if err := c.answer(); err == nil {
			t.Error("the stream did not fail")
		}
		h.figure("http2.outbound_control_flood", 1)
		h.figure("upstream_cx_active", 0)
	}
}

// A head that unpacks to more than max_response_headers_kb costs its stream, and no
// more memory than that.
func TestHeadersThatUnpackToMuchCostTheStream(t *testing.T) {
	h := newHouse(t, nil)
	c := h.open()
	p := h.accept()
	id := p.asked().StreamID
	p.buf.Reset()
	h.must(p.enc.WriteField(hpack.HeaderField{Name: ":status", Value: "200"}))
	h.must(p.enc.WriteField(hpack.HeaderField{Name: "x", Value: string(bytes.Repeat([]byte("y"), 4000))}))
	for range 5000 { // each is a byte, and unpacks to 4 KB
		h.must(p.enc.WriteField(hpack.HeaderField{Name: "x", Value: string(bytes.Repeat([]byte("y"), 4000))}))
	}
	h.must(p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.buf.Bytes(), EndHeaders: true}))
	if err := c.answer(); !errors.Is(err, ErrReset) {
		t.Errorf("the stream got %v", err)
	}
	if f := p.next(http2.FrameRSTStream).(*http2.RSTStreamFrame); f.StreamID != id {
		t.Errorf("got %v", f)
	}
	h.figure("http2.header_list_size_too_large", 1)
	again := h.open()
	p.head(p.asked().StreamID, false, ":status", "200")
	again.stands()
}

// What is wrong with one stream costs that stream.
func TestStreamsThatAreBrokenAreReset(t *testing.T) {
	for _, tt := range []struct {
		what     string
		answered bool
		do       func(p *host, id uint32)
	}{
		{"a window that is too large", true, func(p *host, id uint32) { _ = p.WriteWindowUpdate(id, 1<<31-1) }},
		{"more than its window", true, func(p *host, id uint32) {
			for range 1<<20/maxFrame + 1 {
				_ = p.WriteData(id, false, make([]byte, maxFrame))
			}
		}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			h := newHouse(t, nil)
			c := h.open()
			p := h.accept()
			id := p.asked().StreamID
			if tt.answered {
				p.head(id, false, ":status", "200")
				c.stands()
			}
			tt.do(p, id)
			if f, ok := p.next(http2.FrameRSTStream).(*http2.RSTStreamFrame); !ok || f.StreamID != id {
				t.Fatalf("got %v", f)
			}
			if !tt.answered {
				if err := c.answer(); !errors.Is(err, ErrReset) && !errors.As(err, new(StatusError)) {
					t.Errorf("the stream got %v", err)
				}
			} else if _, err := c.read(2 << 20); err == nil {
				t.Error("the stream did not break")
			}
			h.figure("upstream_rq_active", 0)
			if n := h.value("upstream_cx_active"); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

func TestWhatDoesNotBeginWithSettingsIsNoHTTP2(t *testing.T) {
	h := newHouse(t, nil)
	c := h.open()
	p := h.meet()
	h.must(p.WritePing(false, [8]byte{}))
	if err := c.answer(); err == nil {
		t.Error("the stream did not fail")
	}
	h.figure("upstream_cx_protocol_error", 1)
}

func TestKeepAliveEndsAConnectionThatDoesNotAnswer(t *testing.T) {
	h := newHouse(t, func(c *api.Cluster) {
		c.HTTP2.KeepaliveInterval, c.HTTP2.KeepaliveTimeout = 10*time.Millisecond, patience
	})
	_, p, _ := h.answered()
	for range 3 {
		f := p.next(http2.FramePing).(*http2.PingFrame)
		h.must(p.WritePing(true, f.Data))
	}
	mute := newHouse(t, func(c *api.Cluster) {
		c.HTTP2.KeepaliveInterval, c.HTTP2.KeepaliveTimeout = time.Millisecond, time.Millisecond
	})
	c := mute.open()
	mute.accept()
	if err := c.answer(); !errors.Is(err, ErrLost) {
		t.Errorf("the stream got %v", err)
	}
	mute.figure("http2.keepalive_timeout", 1)
}
