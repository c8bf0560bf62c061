package parity

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

// lines of text that a server of figures was sent.
type sent struct {
	mu    sync.Mutex
	lines map[string]bool
}

func (s *sent) add(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines[line] = true
}

func (s *sent) has(line string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines[line] {
		return true
	}
	for l := range s.lines { // a time is what it is
		if head, rest, ok := strings.Cut(line, "*"); ok && strings.HasPrefix(l, head) && strings.HasSuffix(l, rest) {
			return true
		}
	}
	return false
}

func (r *run) datagrams() (at netip.AddrPort, s *sent) {
	r.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { c.Close() })
	s = &sent{lines: map[string]bool{}}
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			for l := range strings.SplitSeq(string(buf[:n]), "\n") {
				s.add(l)
			}
		}
	}()
	return c.LocalAddr().(*net.UDPAddr).AddrPort(), s
}

// sinkOf has a proxy with a sink, and notes which of the lines come.
func (r *run) sinkOf(s *sent, typed obj, clusters []obj, lines ...string) {
	r.Helper()
	typed["@type"] = "type.googleapis.com/envoy.config.metrics.v3." + typed["@type"].(string)
	b := static([]obj{proxyTo("l", "c")}, append(clusters, cluster("c", endpoint(r.serve("server", peer.Echo)))))
	// Few figures: a burst of all of them may be more than the socket holds.
	b["stats_config"] = obj{"stats_matcher": obj{"inclusion_list": obj{"patterns": []obj{{"prefix": "tcp.c."}, {"prefix": "cluster.c."}, {"exact": "server.concurrency"}}}}}
	r.start(b.with(obj{"stats_flush_interval": "0.1s", "stats_sinks": []obj{{"name": "s", "typed_config": typed}}}))
	r.echoed("l")
	for _, l := range lines {
		seen := s.has(l)
		for deadline := time.Now().Add(4 * time.Second); !seen && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			seen = s.has(l)
		}
		r.note("%s: %t", l, seen)
	}
}

// sinks are told what the proxy counts.
var sinks = []scenario{
	{"stats_sink_statsd", func(r *run) {
		at, s := r.datagrams()
		r.sinkOf(s, obj{"@type": "StatsdSink", "address": address(at)}, nil,
			"envoy.tcp.c.downstream_cx_total:1|c", "envoy.tcp.c.downstream_cx_total:0|c", "envoy.cluster.c.membership_total:1|g",
			"envoy.cluster.c.upstream_cx_length_ms:*|ms", "envoy.cluster.c.upstream_cx_rx_bytes_total:5|c")
	}},
	{"stats_sink_dog_statsd", func(r *run) {
		at, s := r.datagrams()
		r.sinkOf(s, obj{"@type": "DogStatsdSink", "address": address(at), "prefix": "here", "max_bytes_per_datagram": 300}, nil,
			"here.tcp.downstream_cx_total:1|c|#envoy.tcp_prefix:c", "here.cluster.membership_total:1|g|#envoy.cluster_name:c",
			"here.cluster.upstream_cx_length_ms:*|ms|#envoy.cluster_name:c", "here.server.concurrency:1|g")
	}},
	{"stats_sink_statsd_on_a_connection", func(r *run) {
		s := &sent{lines: map[string]bool{}}
		at := r.serve("statsd", func(_ context.Context, c *net.TCPConn) {
			for in := bufio.NewScanner(c); in.Scan(); {
				s.add(in.Text())
			}
		})
		r.sinkOf(s, obj{"@type": "StatsdSink", "tcp_cluster_name": "statsd", "prefix": "p"}, []obj{cluster("statsd", endpoint(at))},
			"p.tcp.c.downstream_cx_total:1|c", "p.cluster.c.membership_total:1|g", "p.cluster.c.upstream_cx_length_ms:*|ms")
	}},
}
