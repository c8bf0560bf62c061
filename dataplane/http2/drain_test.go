package http2

import (
	"errors"
	"io"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"golang.org/x/net/http2"
)

// talks wants both ways to work.
func (c *client) talks(p *host) {
	c.h.Helper()
	c.h.must(p.WriteData(c.stream.id, false, []byte("ping")))
	if got, err := c.read(4); got != "ping" {
		c.h.Errorf("read %q, %v", got, err)
	}
	c.send([]byte("pong"))
	if d, ok := p.next(http2.FrameData).(*http2.DataFrame); !ok || d.StreamID != c.stream.id || string(d.Data()) != "pong" {
		c.h.Errorf("the host got %v", d)
	}
}

// ends ends a stream both ways.
func (c *client) ends(p *host) {
	c.h.Helper()
	c.h.must(p.WriteData(c.stream.id, true, nil))
	if got, err := c.read(1); got != "" || err != io.EOF {
		c.h.Errorf("read %q, %v", got, err)
	}
	c.h.do(c.stream.CloseWrite)
	if d, ok := p.next(http2.FrameData).(*http2.DataFrame); !ok || !d.StreamEnded() {
		c.h.Errorf("the host got %v", d)
	}
	c.h.do(func() { c.stream.Close(true) })
}

// A connection that takes no more streams goes on with those that it has, and ends
// with the last; who comes later gets another.
func TestDrainedConnectionsGoOnWithTheirStreams(t *testing.T) {
	for _, tt := range []struct {
		what, counted string
		change        func(*api.Cluster)
		drain         func(h *house, p *host, id uint32)
	}{
		{"GOAWAY", "upstream_cx_close_notify", nil, func(h *house, p *host, id uint32) {
			h.must(p.WriteGoAway(id, http2.ErrCodeNo, nil))
		}},
		{"as many requests as it may have", "upstream_cx_max_requests", func(c *api.Cluster) { c.HTTP2.MaxRequests = 1 }, func(*house, *host, uint32) {}},
		{"its age", "upstream_cx_max_duration_reached", func(c *api.Cluster) { c.HTTP2.MaxDuration = 50 * time.Millisecond }, func(*house, *host, uint32) {}},
		{"another configuration", "", nil, func(h *house, _ *host, _ uint32) {
			next := *h.cluster.Config()
			next.ConnectTimeout++
			h.cluster.Update(&next)
			h.do(func() {})
		}},
		{"a host that left and came again", "", nil, func(h *house, _ *host, _ uint32) {
			now := h.cluster.Config()
			none := *now
			none.Assignment = &api.Assignment{}
			h.cluster.Update(&none)
			h.cluster.Update(now)
			h.do(func() {})
		}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			h := newHouse(t, tt.change)
			c, p, id := h.answered()
			tt.drain(h, p, id)
			if tt.counted != "" {
				h.figure(tt.counted, 1)
			}
			c.talks(p)
			other, q, _ := h.answered()
			other.talks(q)
			h.figure("upstream_cx_active", 2)
			c.talks(p)
			c.ends(p)
			if f := p.next(http2.FrameData); f != nil {
				t.Errorf("the connection goes on: %v", f)
			}
			h.figure("upstream_rq_active", 1)
			other.talks(q)
		})
	}
}

func TestEndpointsThatStayKeepTheirConnection(t *testing.T) {
	h := newHouse(t, nil)
	_, p, _ := h.answered()
	next := *h.cluster.Config()
	as := *next.Assignment
	as.Localities = append(as.Localities, api.Locality{Priority: 1, Endpoints: as.Localities[0].Endpoints})
	next.Assignment = &as
	h.cluster.Update(&next)
	h.do(func() {})
	later := h.open()
	p.head(p.asked().StreamID, false, ":status", "200")
	later.stands()
	if n := h.value("upstream_cx_total"); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestAClusterThatGoesLeavesItsStreams(t *testing.T) {
	h := newHouse(t, nil)
	c, p, _ := h.answered()
	h.cluster.Close()
	h.do(func() {})
	c.talks(p)
	c.ends(p)
	if f := p.next(http2.FrameData); f != nil {
		t.Errorf("the connection goes on: %v", f)
	}
	h.cluster = nil
}

// What GOAWAY says was never looked at fails; the rest goes on.
func TestStreamsBehindGoAwayFail(t *testing.T) {
	h := newHouse(t, nil)
	c, p, id := h.answered()
	late := h.open()
	p.asked()
	h.must(p.WriteGoAway(id, http2.ErrCodeNo, nil))
	if err := late.answer(); !errors.Is(err, ErrReset) {
		t.Errorf("answered %v", err)
	}
	c.talks(p)
}

func TestResetsBreakTheirStreamAlone(t *testing.T) {
	h := newHouse(t, nil)
	c, p, id := h.answered()
	other := h.open()
	p.head(p.asked().StreamID, false, ":status", "200")
	other.stands()
	h.must(p.WriteData(id, false, []byte("some")))
	h.must(p.WriteRSTStream(id, http2.ErrCodeCancel))
	if got, err := c.read(9); got != "some" || err == nil || err == io.EOF {
		t.Errorf("read %q, %v", got, err)
	}
	h.do(func() {
		if n, errno := c.stream.Send([]byte("x")); n != 0 || errno == 0 {
			t.Errorf("sent %d, %v", n, errno)
		}
	})
	h.figure("http2.rx_reset", 1)
	h.figure("http2.streams_active", 1)
	other.talks(p)
	next := h.open()
	if f := p.asked(); f.StreamID != id+4 {
		t.Errorf("the third stream is %d", f.StreamID)
	}
	_ = next
}

// Who leaves in the middle resets the stream: the host must not take it for an end.
func TestAStreamThatIsCutOffIsReset(t *testing.T) {
	h := newHouse(t, nil)
	c, p, id := h.answered()
	c.send([]byte("half"))
	h.do(func() { c.stream.Close(false) })
	if d := p.next(http2.FrameData, http2.FrameRSTStream).(*http2.DataFrame); d.StreamEnded() || string(d.Data()) != "half" {
		t.Errorf("got %v", d)
	}
	if f, ok := p.next(http2.FrameData, http2.FrameRSTStream).(*http2.RSTStreamFrame); !ok || f.StreamID != id {
		t.Errorf("got %v", f)
	}
	h.must(p.WriteData(id, false, []byte("late"))) // is for nobody, and no error
	later := h.open()
	p.head(p.asked().StreamID, false, ":status", "200")
	later.stands()
}

func TestAHostThatTakesOneStreamGetsAConnectionForEach(t *testing.T) {
	h := newHouse(t, nil)
	c := h.open()
	p := h.accept(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	p.head(p.asked().StreamID, false, ":status", "200")
	c.stands()
	p.next(http2.FrameSettings)
	other, q, _ := h.answered()
	other.talks(q)
	c.talks(p)
	c.ends(p)
	h.figure("upstream_rq_active", 1)
	again := h.open()
	p.head(p.asked().StreamID, false, ":status", "200")
	again.stands()
}

func TestAtItsLimitOfConnectionsAHostHasStreamsWait(t *testing.T) {
	one := uint32(1)
	h := newHouse(t, func(c *api.Cluster) { c.CircuitBreakers.PerHost, c.HTTP2.MaxStreams = &one, 1 })
	c, p, _ := h.answered()
	waits := h.open()
	h.figure("upstream_cx_overflow", 1)
	h.figure("upstream_rq_pending_active", 1)
	c.ends(p)
	p.head(p.asked().StreamID, false, ":status", "200")
	waits.stands()
	if n := h.value("upstream_cx_total"); n != 1 {
		t.Errorf("%d connections", n)
	}
}
