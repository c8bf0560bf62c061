package route

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/test/netns"
)

// swapWorld is a namespace in which two captured programs, one on each CPU,
// connect all the time to the addresses of many listeners, while the table is
// swapped. Every generation has other clusters, other policies and another
// address where what is captured arrives.
type swapWorld struct {
	t         *testing.T
	capture   *Capture
	listeners int
	clients   []*client

	mu sync.Mutex
	// parts are the numbers that a generation's listeners have, of the newest.
	parts map[uint64][]parts
	seen  map[uint64]int // connections that a generation decided
	taken int
	wrong []string
	news  *sync.Cond // seen changed
}

type parts struct{ listener, cluster, policy uint32 }

const (
	swapPort   = 15001
	generation = 32 // as many are remembered
)

// catchAt is where what is captured arrives in a generation.
func catchAt(g uint64) [2]netip.AddrPort {
	return [2]netip.AddrPort{
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(g >> 8), byte(g)}), swapPort),
		netip.AddrPortFrom(netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(g >> 8), 15: byte(g)}), swapPort),
	}
}

func newSwapWorld(t *testing.T, listeners, rate int) *swapWorld {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	w := &swapWorld{t: t, listeners: listeners, parts: map[uint64][]parts{}, seen: map[uint64]int{}}
	w.news = sync.NewCond(&w.mu)
	dir := newCgroup(t)
	err := netns.ForTest(t).Do(func() (err error) {
		if out, err := exec.Command("ip", "-6", "route", "add", "local", "fd00::/64", "dev", "lo").CombinedOutput(); err != nil {
			return fmt.Errorf("add route: %w: %s", err, out)
		}
		if w.capture, err = Start(Options{Cgroup: dir, Policy: Policy{ByListener: true}}); err != nil {
			return err
		}
		t.Cleanup(func() {
			if err := w.capture.Close(); err != nil {
				t.Error(err)
			}
		})
		for _, network := range []string{"tcp4", "tcp6"} {
			l, err := net.Listen(network, fmt.Sprintf(":%d", swapPort))
			if err != nil {
				return err
			}
			var accepting sync.WaitGroup
			for range 2 {
				accepting.Go(func() { w.accept(l.(*net.TCPListener)) })
			}
			t.Cleanup(func() { l.Close(); accepting.Wait() })
		}
		for cpu := range 2 {
			c, err := startClient(t, dir, cpu, rate/2, listeners)
			if err != nil {
				return err
			}
			w.clients = append(w.clients, c)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *swapWorld) accept(l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		local := c.LocalAddr().(*net.TCPAddr).AddrPort()
		o, ok, err := w.capture.hooks.Origin(c.RemoteAddr().(*net.TCPAddr).AddrPort(), netip.AddrPortFrom(local.Addr().Unmap(), swapPort))
		c.Close()
		w.check(o, local.Addr().Unmap(), ok, err)
	}
}

// check compares all parts of a decision with those of its generation.
func (w *swapWorld) check(o bpf.Origin, at netip.Addr, ok bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.news.Broadcast()
	w.taken++
	i := destinationIndex(o.Addr.Addr())
	got, known := parts{o.Listener, o.Cluster, o.Policy}, w.parts[o.Generation]
	switch {
	case err != nil || !ok:
		w.wrong = append(w.wrong, fmt.Sprintf("no origin: %v", err))
	case i >= len(known):
		w.wrong = append(w.wrong, fmt.Sprintf("%v by generation %d, of which %d listeners are known", o.Addr, o.Generation, len(known)))
	case got != known[i]:
		w.wrong = append(w.wrong, fmt.Sprintf("%v by generation %d: got %v, want %v", o.Addr, o.Generation, got, known[i]))
	case at != catchAt(o.Generation)[o.Target].Addr():
		w.wrong = append(w.wrong, fmt.Sprintf("%v by generation %d: arrived at %v", o.Addr, o.Generation, at))
	default:
		w.seen[o.Generation]++
	}
}

// next makes generation g, puts it in force by swap and waits until it has
// decided something. It returns what it took in user space, and the swap.
func (w *swapWorld) next(g uint64, swap func(generation uint64) error) (kept, took time.Duration) {
	w.t.Helper()
	start := time.Now()
	at := catchAt(g)
	catch := Listener{Listener: &api.Listener{Name: "all", UseOriginalDst: true, Direction: api.Outbound}, Bound: at[:]}
	w.capture.Set(&catch)
	for i := range w.listeners {
		w.capture.Set(&Listener{Listener: &api.Listener{
			Name: strconv.Itoa(i), HandedOnly: true, Addresses: []api.BindAddress{{Addr: destination(i)}},
			FilterChains: []*api.FilterChain{{Filters: []api.Filter{
				{RBAC: &api.RBAC{StatPrefix: strconv.FormatUint(g, 10)}},
				{TCPProxy: &api.TCPProxy{Cluster: fmt.Sprintf("%d of %d", i, g)}}}}},
		}})
	}
	kept = time.Since(start)
	known := make([]parts, w.listeners)
	for i := range known {
		e := w.capture.wanted.listeners[strconv.Itoa(i)]
		known[i] = parts{e.number, e.clusterNumber, e.policyNumber}
	}
	w.mu.Lock()
	w.parts[g] = known
	delete(w.parts, g-generation)
	before := w.taken
	w.mu.Unlock()
	start = time.Now()
	if err := swap(g); err != nil {
		w.t.Fatal(err)
	}
	took = time.Since(start)
	if g == 1 {
		for _, c := range w.clients {
			c.begin()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.seen[g] == 0 && len(w.wrong) == 0 {
		if w.taken > before+100000 {
			w.t.Fatalf("generation %d decided nothing", g)
		}
		w.news.Wait()
	}
	return kept, took
}

// end stops the clients, and says how many connected and what went wrong.
func (w *swapWorld) end() (connected int, wrong []string) {
	w.t.Helper()
	for _, c := range w.clients {
		n, failed := c.end()
		connected += n
		wrong = append(wrong, failed...)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.taken < connected {
		w.news.Wait()
	}
	return connected, append(wrong, w.wrong...)
}

// 10 000 clusters, as many swaps as SWAPS says (1 000 are the proof), and 5 000
// connections a second or as near as the machine gets.
func TestSwapsUnderLoadNeverMixGenerations(t *testing.T) {
	swaps, listeners := 50, 10000
	if n, err := strconv.Atoi(os.Getenv("SWAPS")); err == nil {
		swaps = n
	}
	w := newSwapWorld(t, listeners, 5000)
	var kept, took []time.Duration
	w.next(1, w.capture.Swap)
	start := time.Now()
	for g := range uint64(swaps) {
		k, s := w.next(g+2, w.capture.Swap)
		kept, took = append(kept, k), append(took, s)
	}
	ran := time.Since(start)
	connected, wrong := w.end()
	if len(wrong) > 0 {
		t.Errorf("%d of %d connections went wrong, the first: %s", len(wrong), connected, wrong[0])
	}
	counted, err := w.capture.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{"connect.captured": connected, "syn.noted": connected, "connect.mixed_generations": 0, "connect.no_route": 0, "connect.no_target": 0, "connect.passed_listener_gone": 0, "connect.no_memory": 0, "syn.no_memory": 0} {
		if counted[name] != uint64(want) {
			t.Errorf("%s counted %d times, want %d", name, counted[name], want)
		}
	}
	if len(w.seen) != swaps+1 || w.capture.Status().Swaps != uint64(swaps+1) {
		t.Errorf("%d generations decided, %d swaps, want %d", len(w.seen), w.capture.Status().Swaps, swaps+1)
	}
	t.Logf("%d swaps of %d listeners and clusters in %v; %d connections, %.0f/s", swaps, listeners, ran.Round(time.Millisecond), connected, float64(connected)/ran.Seconds())
	t.Logf("a swap: %s", spread(took))
	t.Logf("all %d listeners changed in user space: %s", listeners, spread(kept))
}

func TestASwapInPlaceIsCaught(t *testing.T) {
	w := newSwapWorld(t, 10000, 5000)
	w.next(1, w.capture.Swap)
	inPlace := func(g uint64) error {
		return bpf.Plant{}.SwapInPlace(w.capture.hooks, &w.capture.wanted.Build(g).kernel)
	}
	caught := func() bool {
		counted, err := w.capture.Counters()
		if err != nil {
			t.Fatal(err)
		}
		return counted["connect.mixed_generations"] > 0
	}
	g := uint64(2)
	for ; g < 200 && !caught(); g++ {
		w.next(g, inPlace)
	}
	_, wrong := w.end()
	if !caught() || len(wrong) == 0 {
		t.Errorf("after %d swaps in place: seen by the hook %v, connections that went wrong %d", g-2, caught(), len(wrong))
		return
	}
	t.Logf("caught at swap %d: %d connections went wrong, the first: %s", g-2, len(wrong), wrong[0])
}

func spread(d []time.Duration) string {
	slices.Sort(d)
	var sum time.Duration
	for _, x := range d {
		sum += x
	}
	r := func(x time.Duration) time.Duration { return x.Round(10 * time.Microsecond) }
	return fmt.Sprintf("mean %v, p50 %v, p99 %v, max %v", r(sum/time.Duration(len(d))), r(d[len(d)/2]), r(d[len(d)*99/100]), r(d[len(d)-1]))
}
