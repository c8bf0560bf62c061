package parity

import (
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

// run is one scenario given to one proxy. What it sees it writes down, line by
// line; two proxies agree if their records do.
type run struct {
	testing.TB
	kind   kind
	plant  bool // see TestEveryScenarioCanFail
	proxy  *proxy
	before map[string]int64
	since  time.Time
	record []string
	info   []string
	expect []string // the record that it should come to, if there is one to go by
	names  []string // old, new: addresses as the record calls them
}

// note adds a line that both proxies must agree on.
func (r *run) note(format string, args ...any) {
	r.record = append(r.record, r.rename(fmt.Sprintf(format, args...)))
}

func (r *run) rename(s string) string { return strings.NewReplacer(r.names...).Replace(s) }

// start launches the proxy.
func (r *run) start(bootstrap obj) {
	r.Helper()
	r.proxy = launch(r.TB, r.kind, bootstrap)
	r.before = r.stats()
	r.mark()
}

func (r *run) stats() map[string]int64 {
	r.Helper()
	s, err := r.proxy.stats()
	if err != nil {
		r.Fatal(err)
	}
	return s
}

// mark starts the clock that the ends are measured by.
func (r *run) mark() { r.since = time.Now() }

// when tells the time since mark in half seconds: finer would be chance.
func (r *run) when(at time.Time) string {
	halves := math.Round(at.Sub(r.since).Seconds() * 2)
	if halves < 1 {
		return "at once"
	}
	return fmt.Sprintf("after %.1f s", halves/2)
}

// serve starts a back end. Its address is called name in the record.
func (r *run) serve(name string, h peer.Handler) netip.AddrPort {
	r.Helper()
	return r.serveOn("127.0.0.1:0", name, h)
}

func (r *run) serveOn(addr, name string, h peer.Handler) netip.AddrPort {
	r.Helper()
	s, err := peer.Listen(addr, h)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { s.Close() })
	r.call(s.Addr(), name)
	return s.Addr()
}

func (r *run) call(ap netip.AddrPort, name string) {
	r.names = append(r.names, ap.String(), "<"+name+">")
}

// recorder starts a back end that runs h, reads to the end and reports; see saw.
func (r *run) recorder(h peer.Handler) (netip.AddrPort, <-chan peer.Seen) {
	r.Helper()
	seen := make(chan peer.Seen, 16)
	return r.serve("server", peer.Record(seen, h)), seen
}

// saw notes what the back end saw of one connection.
func (r *run) saw(seen <-chan peer.Seen) {
	select {
	case s := <-seen:
		r.note("server: got %s, then %s %s", short(s.Data), s.End, r.when(s.At))
	case <-time.After(4 * time.Second):
		r.note("server: sees no end")
	}
}

// client is a connection to a listener of the proxy.
type client struct {
	*net.TCPConn
	r    *run
	name string
}

// dial connects to the listener and starts the clock.
func (r *run) dial(listener string) *client {
	r.Helper()
	return r.dialAt(r.bound(listener))
}

// bound waits for the listener's first address.
func (r *run) bound(listener string) netip.AddrPort {
	r.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		bound, err := r.proxy.listening()
		if err != nil {
			r.Fatal(err)
		}
		if aps := bound[listener]; len(aps) > 0 {
			return aps[0]
		}
		if time.Now().After(deadline) {
			r.Fatalf("%s does not listen for %q", r.kind.name, listener)
		}
	}
}

func (r *run) dialAt(ap netip.AddrPort) *client {
	r.Helper()
	if r.plant {
		ap = r.serve("impostor", peer.ResetAfter("impostor", 0, 20*time.Millisecond))
	}
	return r.connect(netip.AddrPort{}, ap)
}

func (r *run) connect(from, to netip.AddrPort) *client {
	r.Helper()
	r.mark()
	c, err := peer.Dial(from, to, 5*time.Second)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { c.Close() })
	return &client{TCPConn: c, r: r, name: "client"}
}

// as gives the client another name in the record.
func (c *client) as(name string) *client { c.name = name; return c }

// send writes s; that it cannot is seen at the end.
func (c *client) send(s string) *client {
	_, _ = io.WriteString(c, s)
	return c
}

// fin half-closes.
func (c *client) fin() *client {
	_ = c.CloseWrite() // the other end may be gone: seen at the end
	return c
}

// reset closes by RST.
func (c *client) reset() { _ = peer.Reset(c.TCPConn) }

// expect notes the next bytes, as many as want has; it waits for them.
func (c *client) expect(want string) *client {
	buf := make([]byte, len(want))
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, err := io.ReadFull(c, buf)
	_ = c.SetReadDeadline(time.Time{})
	if err != nil {
		c.r.note("%s: got %q, then %s", c.name, buf[:n], endText(err))
		return c
	}
	c.r.note("%s: got %q", c.name, buf)
	return c
}

// end notes everything up to the end, for which it waits.
func (c *client) end() *client { return c.endWithin(4 * time.Second) }

func (c *client) endWithin(d time.Duration) *client {
	data, end, err := peer.ReadToEnd(c, d)
	switch {
	case err != nil:
		c.r.note("%s: got %s, then error %v", c.name, short(data), err)
	case end == peer.Open:
		c.r.note("%s: got %s, still open after %v", c.name, short(data), d)
	default:
		c.r.note("%s: got %s, then %s %s", c.name, short(data), end, c.r.when(time.Now()))
	}
	return c
}

func endText(err error) string {
	if end, ok := peer.EndOf(err); ok {
		return string(end)
	}
	return err.Error()
}

func short(data []byte) string {
	if len(data) > 40 {
		return fmt.Sprintf("%d bytes", len(data))
	}
	return fmt.Sprintf("%q", data)
}

// moved notes the counters and gauges that changed since start and whose names
// match one of the patterns, once they have come to rest: at what the record has
// next, or else when nothing has moved for as long as a busy proxy may take. Those
// of the admin's own listener are ours: how many connections our questions take is
// chance.
func (r *run) moved(patterns ...string) {
	r.Helper()
	want := regexp.MustCompile("^(?:" + strings.Join(patterns, "|") + ")$")
	due := r.dueFigures(want)
	var last []string
	calm := time.Now()
	for deadline := time.Now().Add(6 * time.Second); time.Now().Before(deadline); time.Sleep(25 * time.Millisecond) {
		var now []string
		for name, v := range r.stats() {
			d := v - r.before[name]
			if d != 0 && !strings.HasPrefix(name, "listener.admin.") && want.MatchString(name) {
				now = append(now, fmt.Sprintf("%s %+d", name, d))
			}
		}
		slices.Sort(now)
		for i := range now {
			now[i] = r.rename(now[i])
		}
		if !slices.Equal(now, last) {
			last, calm = now, time.Now()
		}
		patience := 200 * time.Millisecond
		if due != nil && !slices.Equal(now, due) {
			patience = 2 * time.Second
		}
		if time.Since(calm) > patience {
			break
		}
	}
	for _, l := range last {
		r.note("%s", l)
	}
}

// dueFigures are the figures of these names that the record has next, nil if it
// cannot tell.
func (r *run) dueFigures(names *regexp.Regexp) []string {
	if !r.asExpected() {
		return nil
	}
	due := []string{}
	for _, l := range r.expect[len(r.record):] {
		name, _, _ := strings.Cut(l, " ")
		if !names.MatchString(name) || len(due) > 0 && l <= due[len(due)-1] {
			break
		}
		due = append(due, l)
	}
	return due
}

// asExpected says whether the record so far is as it should be.
func (r *run) asExpected() bool {
	return len(r.expect) >= len(r.record) && slices.Equal(r.expect[:len(r.record)], r.record)
}

// The counters that a connection moves; most scenarios state these.
const (
	ofListener = `listener\.[^.]+\.(downstream_cx_(total|destroy|active|overflow)|no_filter_chain_match|network_extension_config_missing)`
	ofTCP      = `tcp\..+\.(downstream_cx_(total|no_route|[rt]x_bytes_total)|idle_timeout)`
	ofCluster  = `cluster\.[^.]+\.(upstream_cx_(total|active|overflow|none_healthy|connect_fail|connect_timeout|connect_attempts_exceeded|[rt]x_bytes_total|destroy(_local|_remote)?(_with_active_rq)?)|upstream_rq_(total|active|pending_(total|active|overflow|failure_eject))|lb_healthy_panic)`
	ofMembers  = `cluster\.[^.]+\.membership_(total|healthy|degraded|excluded|change)`
	ofBreakers = `cluster\.[^.]+\.circuit_breakers\.default\.(cx_open|rq_pending_open)`
	// The bytes depend on chance where an end cuts a stream short.
	ofTCPNoBytes     = `tcp\..+\.(downstream_cx_(total|no_route)|idle_timeout)`
	ofClusterNoBytes = `cluster\.[^.]+\.(upstream_cx_(total|active|overflow|none_healthy|connect_fail|connect_timeout|connect_attempts_exceeded|destroy(_local|_remote)?(_with_active_rq)?)|upstream_rq_(total|active|pending_(total|active|overflow|failure_eject))|lb_healthy_panic)`
)

// movedByConnections is moved with the usual list.
func (r *run) movedByConnections() {
	r.Helper()
	r.moved(ofListener, ofTCP, ofCluster)
}

// sortLast sorts the last n lines of the record.
func (r *run) sortLast(n int) {
	slices.Sort(r.record[max(0, len(r.record)-n):])
}
