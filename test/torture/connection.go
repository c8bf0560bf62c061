package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/pair"
	"github.com/sluice-proxy/sluice/test/peer"
)

// patience is how long a connection may last: the slowest script over the worst
// wire takes a fraction of it. A stall is longer.
const patience = 90 * time.Second

// connection is one connection through the proxy, with both its ends.
type connection struct {
	n      uint64
	wire   *wire
	family *family
	script script
	run    *run
	server chan *net.TCPConn // closed if there is none

	// of the worker's thread
	pair    *pair.Pair
	index   int
	history [2]history
	fds     [2]int
	drift   [2]bool // the account of a socket was seen to be off
	began   time.Time

	// of the watchdog too
	ports [4]atomic.Int32 // of the client, the proxy's two sockets, and the server
	ends  [2]*end

	done    chan struct{} // closed when the pair has ended
	ended   bool
	outcome pair.Outcome
}

// history is what happened to the path of a direction.
type history struct {
	path    api.Path
	changes []change
	next    int // into changes, once it is full
	pending change
	any     bool // pending is set
}

type change struct {
	pair.Change
	after time.Duration // since the pair's start
	moved bool          // bytes had moved since the change before
}

const keptChanges = 32

// due tells whether to force the next change: before a byte has moved it proves
// less, and happens less often.
func (h *history) due(handed uint64, random *rand.Rand) bool {
	return !h.any || handed > h.pending.Handed || random.IntN(100) == 0
}

// changed and finished are called on the worker.
func (k *connection) changed(c pair.Change) {
	h := &k.history[0]
	if c.Response {
		h = &k.history[1]
	}
	before := uint64(0)
	if h.any {
		before = h.pending.Handed
	}
	k.settle(h, c.Handed)
	h.pending, h.any = change{c, time.Since(k.began), c.Handed > before}, true
	h.path = c.To
	if len(h.changes) < keptChanges {
		h.changes = append(h.changes, h.pending)
	} else {
		h.changes[h.next] = h.pending
		h.next = (h.next + 1) % keptChanges
	}
}

// settle counts the change before, now that it is known what moved after it.
func (k *connection) settle(h *history, handed uint64) {
	if h.any {
		k.run.tally.change(k.family.name, h.pending.From, h.pending.To, h.pending.moved && handed > h.pending.Handed)
	}
}

func (k *connection) finished(p *pair.Pair, o pair.Outcome) {
	request, response := p.Bytes()
	k.settle(&k.history[0], request)
	k.settle(&k.history[1], response)
	k.ended, k.outcome = true, o
	close(k.done)
}

// connection drives one connection to its end.
func (r *run) connection(n uint64, w *wire, s script, random *rand.Rand) {
	k := &connection{n: n, wire: w, family: &w.families[random.IntN(2)], script: s, run: r,
		server: make(chan *net.TCPConn, 1), done: make(chan struct{})}
	w.dialing[0].Lock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	c, err := w.client.Dial(ctx, k.family.name, k.family.front.Addr().String())
	cancel()
	if err == nil {
		k.uses(0, c.LocalAddr())
		k.uses(1, c.RemoteAddr())
		w.waiting.Store(c.LocalAddr().String(), k)
	}
	w.dialing[0].Unlock()
	if err != nil {
		r.fail("connection %d: dial proxy: %v", n, err)
		return
	}
	k.ends = [2]*end{newEnd(k, 0, random), newEnd(k, 1, random)}
	ends := k.ends
	defer r.watch(k)()
	var wg sync.WaitGroup
	left := make(chan struct{})
	wg.Go(func() { ends[0].live(c.(*net.TCPConn)); close(left) })
	select {
	case sc := <-k.server:
		if sc == nil {
			c.Close()
			wg.Wait()
			return
		}
		wg.Go(func() { ends[1].live(sc) })
	case <-k.forgotten(left):
		if why := ends[0].judge(ends[1]); why != "" {
			r.fail("%s", k.tell(why))
		}
		return
	case <-time.After(patience):
		r.fail("%s", k.tell("the server was never reached"))
		c.Close()
		wg.Wait()
		return
	}
	wg.Wait()
	select {
	case <-k.done:
	case <-time.After(patience):
		r.fail("%s", k.tell("the pair did not end: "+w.via.status(k)))
		return
	}
	for i, e := range ends {
		if why := e.judge(ends[1-i]); why != "" {
			r.fail("%s", k.tell(why))
		}
	}
	if s.orderly() && k.outcome != pair.Complete || k.outcome == pair.Killed && !s.cut {
		r.fail("%s", k.tell("pair ended by "+k.outcome.String()))
	}
	r.tally.connection(w.name, k.outcome, ends[0].check.Good()+ends[1].check.Good())
}

// forgotten is closed when the server will not be reached any more, and it is
// nobody's fault: the last ACK of a handshake was lost, with all that came after it,
// and then the client's RST arrived. A listener forgets such a connection.
func (k *connection) forgotten(left <-chan struct{}) <-chan struct{} {
	if len(k.wire.boxes) == 0 || k.script.end[0].ending == fin {
		return nil
	}
	c := make(chan struct{})
	go func() {
		<-left
		time.AfterFunc(10*time.Second, func() { close(c) })
	}()
	return c
}

// end is one end of a connection at work.
type end struct {
	k       *connection
	side    int
	conduct conduct
	random  [2]*rand.Rand // of the writer and of the reader
	check   *peer.Checker

	// clean is how many bytes were sent before an orderly end, -1 if there was none.
	clean   int64
	readErr error // nil is EOF
	// robbed: the writer was told of the RST. The kernel tells it once, so that
	// the reader sees what looks like a clean end.
	robbed   bool
	otherEnd chan struct{}
	news     chan struct{} // something was read

	// what the watchdog sees: positions, and what the writer and the reader do
	sent, got atomic.Int64
	doing     [2]atomic.Pointer[string]
}

func newEnd(k *connection, side int, random *rand.Rand) *end {
	e := &end{k: k, side: side, conduct: k.script.end[side], clean: -1, check: peer.NewChecker(2*k.n + uint64(1-side)), otherEnd: make(chan struct{}), news: make(chan struct{}, 1)}
	for i := range e.random {
		e.random[i] = rand.New(rand.NewPCG(random.Uint64(), 0))
	}
	return e
}

func (e *end) name() string { return [...]string{"client", "server"}[e.side] }

func (e *end) live(c *net.TCPConn) {
	c.SetDeadline(time.Now().Add(patience))
	c.SetNoDelay(true)
	if e.conduct.narrow {
		c.SetReadBuffer(4 << 10)
	}
	var wg sync.WaitGroup
	wg.Go(func() { e.write(c); e.does(0, "ended") })
	wg.Go(func() { e.read(c); e.does(1, "ended"); close(e.otherEnd) })
	wg.Wait()
	c.Close()
	e.does(0, "closed")
}

func (e *end) does(part int, what string) { e.doing[part].Store(&what) }

func (e *end) write(c *net.TCPConn) {
	if e.conduct.answer {
		e.does(0, "waits for the other's end")
		<-e.otherEnd
	}
	e.does(0, "writes")
	random := e.random[0]
	buf := make([]byte, max(e.conduct.sizes[1], 512))
	sent := int64(0)
	for i := 0; sent < e.conduct.total; i++ {
		n := e.conduct.sizes[0] + random.IntN(e.conduct.sizes[1]-e.conduct.sizes[0]+1)
		if i < len(e.conduct.turns) {
			if n = e.conduct.turns[i]; !e.takesTurns(i) {
				return
			}
		}
		n = int(min(int64(n), e.conduct.total-sent))
		peer.Stamp(buf[:n], 2*e.k.n+uint64(e.side), sent)
		m, err := c.Write(buf[:n])
		sent += int64(m)
		e.sent.Store(sent)
		if err != nil {
			e.robbed = errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
			return
		}
		if e.conduct.pause > 0 && random.IntN(e.conduct.often) == 0 {
			time.Sleep(time.Duration(random.Int64N(int64(e.conduct.pause))))
		}
	}
	if e.conduct.last {
		<-e.otherEnd
	}
	switch e.conduct.ending {
	case fin:
		if c.CloseWrite() == nil {
			e.clean = sent
		}
	case reset:
		peer.Reset(c)
	case death:
		if c.Close() == nil {
			e.clean = sent // or RST, if something was unread
		}
	}
}

func (e *end) read(c *net.TCPConn) {
	random := e.random[1]
	time.Sleep(e.conduct.lateRead)
	e.does(1, "reads")
	buf := make([]byte, e.conduct.buffer)
	stalled := e.conduct.stall == 0
	for {
		if !stalled && e.check.Good() >= e.conduct.stallAt {
			stalled = true
			time.Sleep(e.conduct.stall)
		}
		n, err := c.Read(buf)
		if _, wrong := e.check.Write(buf[:n]); wrong != nil {
			e.readErr = wrong
			peer.Reset(c)
			return
		}
		e.got.Store(e.check.Good())
		select {
		case e.news <- struct{}{}:
		default:
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			e.readErr = err
			return
		}
		if e.conduct.nap > 0 && random.IntN(4) == 0 {
			time.Sleep(time.Duration(random.Int64N(int64(e.conduct.nap))))
		}
	}
}

// judge says what is wrong with what this end read, given what the other wrote.
func (e *end) judge(other *end) string {
	var wrong *peer.Mismatch
	switch got := e.check.Good(); {
	case errors.As(e.readErr, &wrong):
		return fmt.Sprintf("%s: %v", e.name(), wrong)
	case errors.Is(e.readErr, net.ErrClosed):
		return "" // closed by itself
	case e.readErr == nil && e.robbed && !e.k.script.orderly():
		return ""
	case e.readErr == nil && e.k.script.cut && got <= other.sent.Load():
		return "" // the proxy's end; what came before it is a beginning of what was sent
	case e.readErr == nil && got != other.clean:
		return fmt.Sprintf("%s: clean end after %d bytes, of %d sent before a clean end (-1: there was none)", e.name(), got, other.clean)
	case e.readErr == nil:
		return ""
	case errors.Is(e.readErr, syscall.ECONNRESET), errors.Is(e.readErr, syscall.EPIPE):
		if e.k.script.orderly() {
			return fmt.Sprintf("%s: reset after %d of %d bytes, by nobody", e.name(), got, other.conduct.total)
		}
		return ""
	case e.k.script.orderly():
		return fmt.Sprintf("%s: %v after %d of %d bytes; pair: %s", e.name(), e.readErr, got, other.conduct.total, e.k.wire.via.status(e.k))
	default: // a deadline: an end that died leaves no other one waiting
		return fmt.Sprintf("%s: %v after %d bytes though the other end broke off", e.name(), e.readErr, got)
	}
}

// tell describes a connection for a failure.
func (k *connection) tell(why string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "connection %d (%s, %s, worker %d): %s\n  script: %v\n", k.n, k.wire.name, k.family.name, k.n%uint64(len(workerModes)), why, k.script)
	k.wire.via.workers[int(k.n)%len(k.wire.via.workers)].Do(func() {
		for i, name := range []string{"request", "response"} {
			h := &k.history[i]
			fmt.Fprintf(&b, "  %s, now %v:", name, h.path)
			for j := range h.changes {
				c := h.changes[(h.next+j)%len(h.changes)]
				fmt.Fprintf(&b, " [%v at byte %d: %v to %v, %s]", c.after.Round(10*time.Microsecond), c.Handed, c.From, c.To, c.Reason)
			}
			b.WriteByte('\n')
		}
	})
	return b.String()
}
