package parity

import (
	"crypto/tls"
	"io"
	"regexp"

	"github.com/sluice-proxy/sluice/test/peer"
)

// Those figures of TCP that are the same on every run: acknowledgements come as they
// like.
const ofTCPStats = `(listener|cluster)\.[^.]+\.tcp_stats\.cx_((rx_bytes_received|tx_bytes_sent|[rt]x_data_segments|tx_retransmitted_segments)|tx_unsent_bytes|tx_unacked_segments)`

// tcpStats is that transport socket over another one.
func tcpStats(inner, more obj) obj {
	return obj{"name": "envoy.transport_sockets.tcp_stats", "typed_config": obj{
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tcp_stats.v3.Config", "transport_socket": inner}.with(more)}
}

func rawBuffer() obj {
	return obj{"name": "envoy.transport_sockets.raw_buffer", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}
}

// keptTCP is a proxy that keeps the figures of both sides.
func (r *run) keptTCP(more obj, to obj) {
	r.Helper()
	l := listener("l", chain(tcpProxy("c")).with(obj{"transport_socket": tcpStats(rawBuffer(), more)}))
	r.start(static([]obj{l}, []obj{to.with(obj{"transport_socket": tcpStats(rawBuffer(), more)})}))
}

var tcpFigure = regexp.MustCompile(`\.tcp_stats\.`)

// gatheredTCP are figures of the kernel's.
var gatheredTCP = []scenario{
	{"tcp_stats_of_an_echo", func(r *run) {
		r.keptTCP(nil, cluster("c", endpoint(r.serve("server", peer.Echo))))
		c := r.talk("l")
		r.moved(ofTCPStats)
		c.leave()
		r.moved(ofTCPStats)
	}},
	{"tcp_stats_while_it_is_open", func(r *run) {
		r.keptTCP(obj{"update_period": "0.1s"}, cluster("c", endpoint(r.serve("server", peer.Echo))))
		c := r.talk("l")
		r.awaitTrue(func() bool {
			return r.stats()["cluster.c.tcp_stats.cx_rx_bytes_received"]+r.stats()["listener.l.tcp_stats.cx_rx_bytes_received"] == 10
		})
		r.moved(ofTCPStats)
		c.send("again").expect("again").leave()
		r.moved(ofTCPStats)
	}},
	{"tcp_stats_of_a_client_that_resets", func(r *run) {
		r.keptTCP(nil, cluster("c", endpoint(r.serve("server", peer.Echo))))
		r.talk("l").reset()
		r.moved(ofTCPStats)
	}},
	{"tcp_stats_of_a_refused_connect", func(r *run) {
		r.keptTCP(nil, cluster("c", endpoint(r.refused())))
		r.dial("l").end()
		r.moved(`(listener|cluster)\.[^.]+\.tcp_stats\..*`)
	}},
	{"tcp_stats_of_nobody", func(r *run) {
		r.keptTCP(nil, cluster("c"))
		r.dial("l").end()
		r.moved(ofTCPStats)
	}},
	{"tcp_stats_are_all_there", func(r *run) {
		r.keptTCP(nil, cluster("c"))
		r.get("/stats?filter=tcp_stats", tcpFigure)
	}},
	{"tcp_stats_behind_tls", func(r *run) {
		c, config := r.behindTLS(nil, tcpProxy("c"))
		c["transport_socket"] = tcpStats(c["transport_socket"].(obj), nil)
		r.start(static([]obj{listener("l", c)}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		s := tls.Client(r.dial("l"), config)
		_, err := s.Write([]byte("hello"))
		b := make([]byte, 5)
		n, _ := io.ReadFull(s, b)
		r.note("client: got %q, %v", b[:n], err)
		_ = s.CloseWrite()
		_, _ = io.ReadAll(s)
		_ = s.Close()
		r.moved(ofListener, `listener\.l\.tcp_stats\.cx_(tx_unsent_bytes|tx_unacked_segments)`, ofTLS)
		r.note("bytes are counted: %t", r.stats()["listener.l.tcp_stats.cx_rx_bytes_received"] > 200)
	}},
	{"reject_tcp_stats_of_nothing", func(r *run) {
		r.rejects(static([]obj{listener("l", chain(tcpProxy("c")).with(obj{"transport_socket": tcpStats(nil, nil)}))}, []obj{cluster("c")}), "TransportSocket: value is required")
	}},
	{"reject_tcp_stats_too_often", func(r *run) {
		r.rejects(static([]obj{listener("l", chain(tcpProxy("c")).with(obj{"transport_socket": tcpStats(rawBuffer(), obj{"update_period": "0.0005s"})}))}, []obj{cluster("c")}), "value must be greater than or equal to")
	}},
	{"reject_tcp_stats_of_what_is_unknown", func(r *run) {
		r.rejects(static([]obj{listener("l", chain(tcpProxy("c")).with(obj{"transport_socket": tcpStats(obj{"name": "x", "typed_config": obj{"@type": "type.googleapis.com/google.protobuf.Int32Value", "value": 1}}, nil)}))}, []obj{cluster("c")}),
			"Didn't find a registered implementation for 'x' with type URL: 'google.protobuf.Int32Value'")
	}},
}
