package torture

import (
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/test/netns"
)

// stillness is how long a connection may show nothing new at either end. A lost
// packet is sent again within a second or so, also the third time; scripts pause
// for parts of a second.
const stillness = 20 * time.Second

// sight is what the watchdog saw of a connection last.
type sight struct {
	picture string
	since   time.Time
	told    bool
}

// watch has the watchdog look at a connection until the function is called.
func (r *run) watch(k *connection) (over func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watched == nil {
		r.watched = map[*connection]*sight{}
	}
	r.watched[k] = &sight{since: time.Now()}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watched, k)
	}
}

// watchdog fails the run for each connection that stands still, with all that is
// known of it while it does, until the function is called.
func (r *run) watchdog() (over func()) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
			}
			for _, k := range r.still() {
				r.fail("%s", k.tell(fmt.Sprintf("nothing happened for %v\n%s", stillness, k.everything())))
			}
		}
	})
	return func() {
		close(stop)
		wg.Wait()
	}
}

// still returns the connections that have stood still since too long, each once.
func (r *run) still() (out []*connection) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, s := range r.watched {
		if now := k.picture(); now != s.picture {
			s.picture, s.since = now, time.Now()
		} else if !s.told && time.Since(s.since) > stillness {
			s.told = true
			out = append(out, k)
		}
	}
	return out
}

// uses notes the port of one of the four sockets.
func (k *connection) uses(socket int, a net.Addr) {
	k.ports[socket].Store(int32(a.(*net.TCPAddr).Port))
}

// picture is where both ends stand.
func (k *connection) picture() string {
	var b strings.Builder
	for _, e := range k.ends {
		fmt.Fprintf(&b, "  %s: sent %d, got %d", e.name(), e.sent.Load(), e.got.Load())
		for i, part := range []string{"writer", "reader"} {
			if what := e.doing[i].Load(); what != nil {
				fmt.Fprintf(&b, ", %s %s", part, *what)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// everything is what can be learnt of a connection that stands still: its ends, its
// pair, and the kernel's sockets in all its namespaces.
func (k *connection) everything() string {
	var b strings.Builder
	b.WriteString(k.picture())
	fmt.Fprintf(&b, "  %s\n", k.wire.via.status(k))
	if g := k.wire.via.graft; g != nil {
		counted, err := g.Counters()
		fmt.Fprintf(&b, "  programs of the wire: %v (%v)\n", counted, err)
	}
	for _, c := range k.wire.boxes {
		fmt.Fprintf(&b, "  middlebox: %+v\n", c.Counts())
	}
	// All sockets of the connection have one of the two ports that nobody listens on.
	filter := fmt.Sprintf("sport = :%d or dport = :%[1]d or sport = :%[2]d or dport = :%[2]d", k.ports[0].Load(), k.ports[2].Load())
	seen := []*netns.NS{}
	for i, ns := range []*netns.NS{k.wire.client, k.wire.proxy, k.wire.server} {
		if slices.Contains(seen, ns) {
			continue
		}
		seen = append(seen, ns)
		var out []byte
		err := ns.Do(func() (err error) {
			out, err = exec.Command("ss", "-tieomnaH", filter).CombinedOutput()
			return err
		})
		fmt.Fprintf(&b, "  sockets, %s's namespace (%v):\n", []string{"client", "proxy", "server"}[i], err)
		for line := range strings.Lines(string(out)) {
			fmt.Fprintf(&b, "    %s\n", strings.TrimSpace(line))
		}
	}
	return b.String()
}
