package e2e

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/test/peer"
	"golang.org/x/sys/unix"
)

// maxPerPair is what an idle spliced pair may cost in user space.
const maxPerPair = 1024

// The heap of a whole proxy, told by itself, with thousands of idle spliced pairs
// and with few. What the kernel counts as resident goes along as a check: with
// GOGC=10 the heap holds a tenth of garbage, and the runtime has its books.
func TestIdlePairsAreLean(t *testing.T) {
	needRoot(t)
	pairs := idlePairs(t)
	at := free(t)
	config := static(at, echo(t, peer.Echo).Addr(), "") + "    circuit_breakers: {thresholds: [{max_connections: 20000, max_pending_requests: 20000}]}\n"
	p := start(t, sluice, config, []string{"GOGC=10"}, "--splice", "always")
	var cs []net.Conn
	open := func(n int) {
		for range n {
			c := dial(t, at)
			if err := pingPong(c, 1); err != nil {
				t.Fatal(err)
			}
			cs = append(cs, c)
		}
		p.await("the last pair is spliced", func() bool {
			_, body := p.get("/stats?filter=splice.promotions")
			return strings.Contains(body, fmt.Sprint(2*len(cs)))
		})
	}
	open(100) // what the first connections bring along belongs to no pair
	before, threads := p.leastHeap(), p.status("Threads")
	anon, file := p.status("RssAnon"), p.status("RssFile")+p.status("RssShmem")
	open(pairs)
	after := p.leastHeap()
	perPair := (after - before) / int64(pairs)
	resident := (p.status("RssAnon") - anon) << 10 / int64(pairs)
	shared := (p.status("RssFile") + p.status("RssShmem") - file) << 10 / int64(pairs)
	t.Logf("%d idle spliced pairs: %d bytes of heap each; %d resident, and %d in shared memory; %d threads more", pairs, perPair, resident, shared, p.status("Threads")-threads)
	if perPair > maxPerPair {
		t.Errorf("%d bytes of heap for a pair, want %d at most", perPair, maxPerPair)
	}
	if resident > maxPerPair*5/4 {
		t.Errorf("%d resident bytes for a pair, want %d at most", resident, maxPerPair*5/4)
	}
	for i := 0; i < len(cs); i += 100 {
		if err := pingPong(cs[i], 1); err != nil {
			t.Fatal(err)
		}
	}
}

// idlePairs is 9000, or what the limit on descriptors leaves to this process,
// which has both far ends of each pair.
func idlePairs(t *testing.T) int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return min(9000, (int(limit.Max)-1000)/2)
}

// leastHeap is what the proxy has allocated when its garbage is gone: the least
// that it tells while answers keep its collector at work.
func (p *proxy) leastHeap() int64 {
	p.t.Helper()
	least := int64(math.MaxInt64)
	for still := 0; still < 40; still++ {
		for range 3 {
			p.get("/stats/prometheus")
		}
		_, body := p.get("/memory")
		var m struct {
			Allocated int64 `json:"allocated,string"`
		}
		if err := json.Unmarshal([]byte(body), &m); err != nil {
			p.t.Fatal(err)
		}
		if m.Allocated < least-least/500 {
			still = 0
		}
		least = min(least, m.Allocated)
	}
	return least
}

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
