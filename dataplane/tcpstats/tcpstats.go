// Package tcpstats is the transport socket envoy.transport_sockets.tcp_stats: what the
// kernel's TCP tells of sockets (TCP_INFO), as figures of a listener or a cluster. It
// looks at a socket and takes no part in its stream.
package tcpstats

import (
	"github.com/sluice-proxy/sluice/api/stats"
)

// Stats are the `tcp_stats.` figures of a listener or a cluster.
type Stats struct {
	scope *stats.Scope

	txSegments, rxSegments, txDataSegments, rxDataSegments, txRetransmitted *stats.Counter
	rxBytes, txBytes                                                        *stats.Counter
	unsent, unacked                                                         *stats.Gauge
	percentRetransmitted, rtt, rttVariance                                  *stats.Histogram
}

// New finds the figures under `listener.<...>.` or `cluster.<...>.`, which path is.
func New(store *stats.Store, path ...any) *Stats {
	sc := store.Scope(append(path[:len(path):len(path)], "tcp_stats")...)
	return &Stats{
		scope:      sc,
		txSegments: sc.Counter("cx_tx_segments"), rxSegments: sc.Counter("cx_rx_segments"),
		txDataSegments: sc.Counter("cx_tx_data_segments"), rxDataSegments: sc.Counter("cx_rx_data_segments"),
		txRetransmitted: sc.Counter("cx_tx_retransmitted_segments"),
		rxBytes:         sc.Counter("cx_rx_bytes_received"), txBytes: sc.Counter("cx_tx_bytes_sent"),
		unsent: sc.Gauge("cx_tx_unsent_bytes"), unacked: sc.Gauge("cx_tx_unacked_segments"),
		percentRetransmitted: sc.Histogram("cx_tx_percent_retransmitted_segments"),
		rtt:                  sc.Histogram("cx_rtt_us"), rttVariance: sc.Histogram("cx_rtt_variance_us"),
	}
}

// Release gives the figures back.
func (s *Stats) Release() { s.scope.Release() }

// record counts what has come to pass between two looks at a socket.
func (s *Stats) record(was, now *info) {
	// A share of nothing is none.
	if now.Data_segs_out > was.Data_segs_out && now.Total_retrans >= was.Total_retrans {
		s.percentRetransmitted.Record(float64(now.Total_retrans-was.Total_retrans) / float64(now.Data_segs_out-was.Data_segs_out))
	}
	add(s.txSegments, was.Segs_out, now.Segs_out)
	add(s.rxSegments, was.Segs_in, now.Segs_in)
	add(s.txDataSegments, was.Data_segs_out, now.Data_segs_out)
	add(s.rxDataSegments, was.Data_segs_in, now.Data_segs_in)
	add(s.txRetransmitted, was.Total_retrans, now.Total_retrans)
	add(s.rxBytes, was.Bytes_received, now.Bytes_received)
	add(s.txBytes, was.Bytes_sent, now.Bytes_sent)
	s.left(was, now)
	s.rtt.Record(float64(now.Rtt))
	s.rttVariance.Record(float64(now.Rttvar))
}

// left brings the gauges up to date.
func (s *Stats) left(was, now *info) {
	s.unsent.Add(int64(now.Notsent_bytes) - int64(was.Notsent_bytes))
	s.unacked.Add(int64(now.Unacked) - int64(was.Unacked))
}

// add counts what has grown.
func add[N uint32 | uint64](c *stats.Counter, was, now N) {
	if now > was {
		c.Add(uint64(now - was))
	}
}
