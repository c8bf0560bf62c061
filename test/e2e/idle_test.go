package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/test/peer"
)

// What an idle spliced pair costs in user space. PAIRS=9000 for the whole, 1000
// otherwise. GOGC=10 keeps what is allocated close to what is alive.
func TestIdlePairsAreLean(t *testing.T) {
	needRoot(t)
	pairs := 1000
	if n, err := strconv.Atoi(os.Getenv("PAIRS")); err == nil {
		pairs = n
	}
	at := free(t)
	config := static(at, echo(t, peer.Echo).Addr(), "") + "    circuit_breakers: {thresholds: [{max_connections: 20000, max_pending_requests: 20000}]}\n"
	p := start(t, sluice, config, []string{"GOGC=10"}, "--splice", "always")
	memory := func() (allocated, resident int64) {
		_, body := p.get("/memory")
		var m struct {
			Allocated int64 `json:"allocated,string"`
		}
		if err := json.Unmarshal([]byte(body), &m); err != nil {
			t.Fatal(err)
		}
		return m.Allocated, p.status("RssAnon") << 10
	}
	// What the first connections bring along belongs to no pair.
	var cs []net.Conn
	open := func(n int) {
		for range n {
			c := dial(t, at)
			if err := pingPong(c, 1); err != nil {
				t.Fatal(err)
			}
			cs = append(cs, c)
		}
	}
	open(100)
	allocated, resident := memory()
	threads := p.status("Threads")
	open(pairs)
	p.await("the last pair is spliced", func() bool {
		_, body := p.get("/stats?filter=splice.promotions")
		return strings.Contains(body, fmt.Sprint(2*len(cs)))
	})
	var perPair, rssPerPair int64
	p.await("garbage is gone", func() bool {
		a, r := memory()
		perPair, rssPerPair = (a-allocated)/int64(pairs), (r-resident)/int64(pairs)
		return perPair <= maxPerPair
	})
	t.Logf("%d idle spliced pairs: %d bytes of heap each, %d resident, %d threads more", pairs, perPair, rssPerPair, p.status("Threads")-threads)
	for i, c := range cs {
		if i%100 == 0 {
			if err := pingPong(c, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// maxPerPair is where it stands, with some air; the goal is 1024. A quarter of
// it is the pair's, a third what is known of the connection for access logs.
const maxPerPair = 3072

// status is a figure of /proc/PID/status, in its own unit.
func (p *proxy) status(name string) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name+":" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return n
		}
	}
	p.t.Fatalf("no %s in /proc status", name)
	return 0
}
