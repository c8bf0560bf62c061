package http2

import (
	"bytes"
	"errors"
	"testing"

	"github.com/sluice-proxy/sluice/api"
	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

const window = 65535

func withWindows(c *api.Cluster) { c.HTTP2.StreamWindow, c.HTTP2.ConnWindow = window, 3*window }

func TestWindowsAreToldAsConfigured(t *testing.T) {
	for _, tt := range []struct {
		what         string
		change       func(*api.Cluster)
		stream, conn uint32 // conn: what is added to the protocol's own
	}{
		{"as configured", withWindows, window, 2 * window},
		{"by the buffer's limit", func(c *api.Cluster) { c.PerConnectionBufferLimit = 4096 }, 4096, api.DefaultConnWindow - window},
		{"without a limit", func(c *api.Cluster) { c.PerConnectionBufferLimit = 0 }, api.DefaultStreamWindow, api.DefaultConnWindow - window},
	} {
		h := newHouse(t, tt.change)
		h.open()
		p := h.accept()
		s := p.next(http2.FrameSettings).(*http2.SettingsFrame)
		got, _ := s.Value(http2.SettingInitialWindowSize)
		push, said := s.Value(http2.SettingEnablePush)
		if got != tt.stream || push != 0 || !said {
			t.Errorf("%s: settings %v", tt.what, s)
		}
		if u := p.next(http2.FrameWindowUpdate).(*http2.WindowUpdateFrame); u.StreamID != 0 || u.Increment != tt.conn {
			t.Errorf("%s: %v", tt.what, u)
		}
	}
}

// A client that does not read holds up its host, and nobody else; what is kept for it
// is bounded, also if it reads on a little for ever.
func TestASlowReaderIsBounded(t *testing.T) {
	h := newHouse(t, withWindows)
	slow, p, id := h.answered()
	most, sent := 0, 0
	chunk := bytes.Repeat([]byte("x"), window/5)
	for credit, owed := window, 0; sent < 100*window; {
		for ; credit >= len(chunk); credit -= len(chunk) {
			h.must(p.WriteData(id, false, chunk))
			sent += len(chunk)
		}
		got, err := slow.read(len(chunk))
		if err != nil || len(got) != len(chunk) {
			t.Fatalf("read %d bytes, %v", len(got), err)
		}
		h.do(func() { most = max(most, cap(slow.stream.in)) })
		if owed += len(got); owed < window/2 {
			continue
		}
		var u *http2.WindowUpdateFrame
		for u = p.next(http2.FrameWindowUpdate).(*http2.WindowUpdateFrame); u.StreamID == 0; {
			u = p.next(http2.FrameWindowUpdate).(*http2.WindowUpdateFrame)
		}
		if u.StreamID != id || int(u.Increment) != owed {
			t.Fatalf("%v, want %d", u, owed)
		}
		credit, owed = credit+owed, 0
	}
	if most > 4*window {
		t.Errorf("%d bytes were kept for a window of %d, of %d that came", most, window, sent)
	}
	other := h.open()
	p.head(p.asked().StreamID, false, ":status", "200")
	other.stands()
	h.must(p.WriteData(other.stream.id, false, []byte("hello")))
	if got, err := other.read(5); got != "hello" {
		t.Errorf("beside it: %q, %v", got, err)
	}
}

func TestMoreThanTheWindowIsAReset(t *testing.T) {
	h := newHouse(t, withWindows)
	c, p, id := h.answered()
	for range 5 {
		h.must(p.WriteData(id, false, make([]byte, maxFrame)))
	}
	if f := p.next(http2.FrameRSTStream).(*http2.RSTStreamFrame); f.StreamID != id || f.ErrCode != http2.ErrCodeFlowControl {
		t.Errorf("got %v", f)
	}
	if got, err := c.read(5 * maxFrame); !errors.Is(err, unix.EPROTO) || len(got) != 4*maxFrame-maxFrame && len(got) > window {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	h.figure("http2.tx_reset", 1)
}

func TestTheConnectionsWindowOpensForWhoDoesNotRead(t *testing.T) {
	h := newHouse(t, func(c *api.Cluster) { c.HTTP2.StreamWindow, c.HTTP2.ConnWindow = window, window })
	_, p, id := h.answered()
	for range 3 {
		h.must(p.WriteData(id, false, make([]byte, maxFrame)))
	}
	if u := p.next(http2.FrameWindowUpdate).(*http2.WindowUpdateFrame); u.StreamID != 0 || u.Increment < window/2 {
		t.Errorf("got %v", u)
	}
}

// What is sent stays within the windows of the host, and goes on when they open.
func TestSendingHeedsWindows(t *testing.T) {
	for _, ofStream := range []bool{true, false} {
		h := newHouse(t, nil)
		c := h.open()
		settings := []http2.Setting{}
		if ofStream {
			settings = append(settings, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
		} else {
			settings = append(settings, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		}
		p := h.accept(settings...)
		id := p.asked().StreamID
		p.next(http2.FrameSettings) // the answer to ours: they are in force
		p.head(id, false, ":status", "200")
		c.stands()
		most := 10
		if !ofStream {
			most = window
		}
		rest := bytes.Repeat([]byte("x"), window+20)
		n := c.send(rest)
		if n != most {
			t.Fatalf("of the stream %t: %d bytes were taken, want %d", ofStream, n, most)
		}
		for got := 0; got < most; {
			got += len(p.next(http2.FrameData).(*http2.DataFrame).Data())
		}
		if n := c.send(rest); n != 0 {
			t.Errorf("%d more were taken", n)
		}
		select {
		case <-c.woken: // of before
		default:
		}
		at := uint32(0)
		if ofStream {
			at = id
		}
		h.must(p.WriteWindowUpdate(at, 7))
		<-c.woken
		if n := c.send(rest); n != 7 {
			t.Errorf("%d were taken of 7", n)
		}
		if d := p.next(http2.FrameData).(*http2.DataFrame); len(d.Data()) != 7 {
			t.Errorf("%v", d)
		}
	}
}
