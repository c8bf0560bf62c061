package statsd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/api/stats"
)

// wire keeps every Write; it fails while down.
type wire struct {
	net.Conn
	*net.UDPConn // deadlines
	writes       []string
	down         bool
}

func (w *wire) Write(b []byte) (int, error) {
	if w.down {
		return 0, errors.New("down")
	}
	w.writes = append(w.writes, string(b))
	return len(b), nil
}
func (w *wire) Close() error { return nil }

func sink(t *testing.T, o Options) (*Sink, *wire) {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	w := &wire{UDPConn: c}
	o.Dial = func(context.Context) (net.Conn, error) { return w.asConn(), nil }
	o.Log = slog.New(slog.DiscardHandler)
	return New(o), w
}

// asConn hides that a wire has two of everything.
func (w *wire) asConn() net.Conn {
	type conn struct{ *net.UDPConn }
	return struct {
		conn
		writer
	}{conn{w.UDPConn}, w}
}

type writer interface {
	Write([]byte) (int, error)
	Close() error
}

func figures() *stats.Store {
	st := stats.New()
	sc := st.Scope("cluster", stats.Tag{Name: "envoy.cluster_name", Value: "c"})
	sc.Counter("total").Add(2)
	sc.Counter("unused")
	sc.Gauge("active").Set(0)
	sc.Gauge("unused_gauge")
	st.Scope("listener", stats.Tag{Name: "envoy.listener_address", Value: "l"}, stats.Infix{Prefix: "worker_", Tag: stats.Tag{Name: "envoy.worker_id", Value: "0"}}).Counter("total").Inc()
	return st
}

func TestLines(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		want []string
	}{
		"plain, a datagram each": {Options{Prefix: "envoy"},
			[]string{"envoy.cluster.c.active:0|g", "envoy.cluster.c.total:2|c", "envoy.listener.l.worker_0.total:1|c"}},
		"dog": {Options{Prefix: "p", Dialect: Dog},
			[]string{"p.cluster.active:0|g|#envoy.cluster_name:c", "p.cluster.total:2|c|#envoy.cluster_name:c",
				"p.listener.worker_total:1|c|#envoy.listener_address:l,envoy.worker_id:0"}},
		"graphite": {Options{Prefix: "p", Dialect: Graphite},
			[]string{"p.cluster.active;envoy.cluster_name=c:0|g", "p.cluster.total;envoy.cluster_name=c:2|c",
				"p.listener.worker_total;envoy.listener_address=l;envoy.worker_id=0:1|c"}},
		"joined up to a size": {Options{Prefix: "e", Max: 50},
			[]string{"e.cluster.c.active:0|g\ne.cluster.c.total:2|c", "e.listener.l.worker_0.total:1|c"}},
		"a stream": {Options{Prefix: "e", Stream: true},
			[]string{"e.cluster.c.active:0|g\ne.cluster.c.total:2|c\ne.listener.l.worker_0.total:1|c\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, w := sink(t, c.o)
			s.Flush(figures().All())
			if !slices.Equal(w.writes, c.want) {
				t.Errorf("got  %q\nwant %q", w.writes, c.want)
			}
		})
	}
}

func TestCountersTellWhatTheyHaveGrownBy(t *testing.T) {
	st := stats.New()
	n := st.Scope("a").Counter("n")
	s, w := sink(t, Options{Prefix: "e"})
	for _, add := range []uint64{3, 0, 4} {
		n.Add(add)
		s.Flush(st.All())
	}
	st.ResetCounters()
	n.Add(1)
	s.Flush(st.All())
	if got := strings.Join(w.writes, " "); got != "e.a.n:3|c e.a.n:0|c e.a.n:4|c e.a.n:1|c" {
		t.Error(got)
	}
}

func TestValuesOfHistogramsAreToldOneByOne(t *testing.T) {
	st := stats.New()
	s, w := sink(t, Options{Prefix: "e", Dialect: Dog, Max: 1000})
	st.Observe(func(x *stats.Stat, v float64) { s.Record(x, v) })
	h := st.Scope("cluster", stats.Tag{Name: "envoy.cluster_name", Value: "c"}).Histogram("connect_ms")
	h.Record(7)
	h.Record(0)
	want := []string{"e.cluster.connect_ms:7|ms|#envoy.cluster_name:c", "e.cluster.connect_ms:0|ms|#envoy.cluster_name:c"}
	if !slices.Equal(w.writes, want) {
		t.Errorf("got  %q\nwant %q", w.writes, want)
	}
}

func TestAFailureDoesNotEndIt(t *testing.T) {
	st := figures()
	s, w := sink(t, Options{Prefix: "e", Stream: true})
	w.down = true
	s.Flush(st.All())
	w.down = false
	s.Flush(st.All())
	if len(w.writes) != 1 || !strings.Contains(w.writes[0], "e.cluster.c.active:0|g\n") {
		t.Errorf("%q", w.writes)
	}
}
