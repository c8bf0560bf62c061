package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/sluice-proxy/sluice/test/bench/load"
)

func TestSamplesAreSharedOutByTheInnermostKnownFrame(t *testing.T) {
	const script = `bench    77 
	ffffffff81b6a2b0 _copy_to_iter
	ffffffff81e49d00 tcp_recvmsg_locked
	    7f0000000000 [unknown]

my proxy    78 
	ffffffff81e49d00 memset_orig
	ffffffff81e49d00 tcp_v4_rcv
	ffffffff81e49d00 __x64_sys_sendto

my proxy    78 
	          4a0000 main.main

kworker/1:2-events   900 
	ffffffff81ece0e0 sk_psock_backlog

swapper     0 
	ffffffff81ece0e0 default_idle

swapper     0 
	ffffffff81ece0e0 tcp_v4_rcv
	ffffffff81ece0e0 handle_softirqs
	ffffffff81ece0e0 default_idle

compile  5555 
	          4a0000 main.main
`
	got, err := readSamples(strings.NewReader(script), map[int]string{77: theClient, 78: theProxy})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]map[string]int{
		theClient:  {"copying": 1},
		theProxy:   {"receiving in TCP and IP": 1, userSpace: 1},
		theWorkers: {"verdict and psock": 1},
		inIdle:     {"receiving in TCP and IP": 1},
		others:     {userSpace: 1},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("samples (-want +got):\n%s", d)
	}
	var b strings.Builder
	m := &Measured{Cell: Cell{Setting{loopback, 2}, load.Requests, 64, 1}}
	profileTable(&b, "envoy", m, Run{PerSecond: 1}, got)
	// One sample in 2 s at one operation a second is half of 1/1999 s.
	if !strings.Contains(b.String(), "| copying | 0.0 | 0.0 | 0.0 | 250.1 | 0.0 |") {
		t.Errorf("table:\n%s", b.String())
	}
}
