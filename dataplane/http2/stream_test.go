package http2

import (
	"errors"
	"io"
	"testing"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
	"golang.org/x/net/http2"
)

func TestStreamsShareAConnectionAndEndAlone(t *testing.T) {
	h := newHouse(t, nil)
	one, p, first := h.answered()
	two := h.open()
	ask := p.asked()
	if ask.StreamID != first+2 || ask.PseudoValue("method") != "CONNECT" || ask.PseudoValue("authority") != "a.example:443" ||
		len(ask.Fields) != 2 || ask.StreamEnded() {
		t.Errorf("the second request: %v", ask)
	}
	p.head(ask.StreamID, false, ":status", "200")
	two.stands()
	for _, c := range []*client{one, two} {
		if n := c.send([]byte("hello")); n != 5 {
			t.Errorf("%d bytes were taken", n)
		}
		d := p.next(http2.FrameData).(*http2.DataFrame)
		if string(d.Data()) != "hello" || d.StreamEnded() || d.StreamID != c.stream.id {
			t.Errorf("data %v %q", d, d.Data())
		}
		h.must(p.WriteData(d.StreamID, true, []byte("bye")))
		if got, err := c.read(99); got != "bye" || err != io.EOF {
			t.Errorf("read %q, %v", got, err)
		}
		h.do(c.stream.CloseWrite)
		if d := p.next(http2.FrameData).(*http2.DataFrame); len(d.Data()) > 0 || !d.StreamEnded() || d.StreamID != c.stream.id {
			t.Errorf("the end is %v", d)
		}
	}
	h.figure("http2.streams_active", 0)
	h.figure("upstream_rq_active", 0)
	if n := h.value("upstream_cx_active"); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// Who has let go of a stream that was refused at once may be gone by the time that it
// would be told.
func TestAStreamThatIsClosedIsNotAnswered(t *testing.T) {
	h := newHouse(t, func(c *api.Cluster) { c.CircuitBreakers.MaxPendingRequests = 0 })
	gone := &client{h: h, told: make(chan error, 1)}
	h.do(func() {
		gone.open()
		gone.stream.Close(false)
	})
	if err := h.open().answer(); !errors.Is(err, upstream.ErrPendingOverflow) {
		t.Errorf("answered %v", err)
	}
	select {
	case err := <-gone.told:
		t.Errorf("was answered %v after its end", err)
	default:
	}
}

func TestAStreamThatWaitsMayBeGivenUp(t *testing.T) {
	h := newHouse(t, nil)
	c := &client{h: h, told: make(chan error, 1)}
	h.do(func() {
		c.open()
		c.stream.Close(false)
	})
	h.figure("upstream_rq_cancelled", 1)
	h.figure("upstream_rq_pending_active", 0)
	p := h.accept()
	later := h.open()
	p.head(p.asked().StreamID, false, ":status", "200")
	later.stands()
	select {
	case err := <-c.told:
		t.Errorf("was answered %v after its end", err)
	default:
	}
}
