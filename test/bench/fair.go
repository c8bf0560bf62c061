package main

import (
	"fmt"

	"github.com/sluice-proxy/sluice/test/bench/load"
)

// What was measured on this kind of machine before there was a Sluice: the
// lowest figure of each peer over the highest of direct (docs/performance.md). A peer that
// shows less than nine tenths of that was not given a fair chance.
type floor struct {
	kind              load.Kind
	size, connections int
	direct            float64 // the highest
	peers             map[string]float64
}

var floors = []floor{
	{load.Requests, 64, 1, 88, map[string]float64{"haproxy": 39, "haproxy-splice": 39, "nginx": 34, "envoy": 28, "go": 35}},
	{load.Requests, 1 << 10, 16, 350, map[string]float64{"haproxy": 88, "haproxy-splice": 88, "nginx": 91, "envoy": 84, "go": 69}},
	{load.Bulk, 0, 1, 62, map[string]float64{"haproxy": 24, "haproxy-splice": 38, "nginx": 22, "envoy": 27, "go": 34}},
	{load.Bulk, 0, 4, 126, map[string]float64{"haproxy": 24, "haproxy-splice": 50, "nginx": 20, "envoy": 25, "go": 40}},
}

const fairShare = 0.9

// unfair says why a cell is void; empty if it is not.
func (m *Measured) unfair() (why []string) {
	c := m.Cell
	// On loopback, going through a proxy is never faster, but for streams both
	// ways, which one thread at each end may not fill: something slowed direct.
	if c.Setting.Topology != loopback || c.Kind == load.Duplex {
		return nil
	}
	for _, n := range m.proxies() {
		if got, ok := m.ratio(n, direct, perSecond); ok && isPeer(n) && got > 1/fairShare {
			why = append(why, fmt.Sprintf("%s makes %.2f of direct, which cannot be: direct was disturbed", labelOf(n), got))
		}
	}
	if c.Setting != (Setting{loopback, 2}) {
		return why // the table is of loopback with two CPUs
	}
	for _, f := range floors {
		if f.kind != c.Kind || f.size != c.Size || f.connections != c.Connections {
			continue
		}
		for _, n := range m.proxies() {
			low, ok := f.peers[n]
			if !ok {
				continue
			}
			need := fairShare * low / f.direct
			if got, ok := m.ratio(n, direct, perSecond); !ok || got < need {
				why = append(why, fmt.Sprintf("%s makes %.2f of direct, and %.2f is the least that counts as fair", labelOf(n), got, need))
			}
		}
	}
	return why
}
