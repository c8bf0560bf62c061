package torture

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/pair"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
	"github.com/sluice-proxy/sluice/test/netns"
	"golang.org/x/sys/unix"
)

// proxy is what is tortured: workers with their pairs, in this process, so that
// paths can be changed at any moment and every change is seen.
type proxy struct {
	run     *run
	graft   *bpf.Graft // nil: it splices
	workers []*loop.Worker
	sets    []*pair.Set
	live    [][]*connection // of each worker, on its thread
	stop    chan struct{}
	wg      sync.WaitGroup
}

// forcedPaths are the paths that pairs are asked onto.
var forcedPaths = []api.Path{api.PathRelay, api.PathSplice, api.PathPipe}

// graftedPaths are those of pairs that are grafted in the end.
var graftedPaths = []api.Path{api.PathRelay, api.PathPipe, api.PathGraft}

func (p *proxy) paths() []api.Path {
	if p.graft != nil {
		return graftedPaths
	}
	return forcedPaths
}

// newProxy makes one that splices, or, in a namespace, one that grafts.
func newProxy(r *run, in *netns.NS) (_ *proxy, err error) {
	p := &proxy{run: r, stop: make(chan struct{}), live: make([][]*connection, len(workerModes))}
	crowd := pair.NewCrowd()
	if in != nil {
		if err := in.Do(func() (err error) { p.graft, err = bpf.LoadGraft(len(workerModes), nil); return err }); err != nil {
			return nil, err
		}
	}
	for i, mode := range workerModes {
		w, err := loop.New(i, r.Log)
		if err != nil {
			p.close()
			return nil, err
		}
		if in != nil {
			go in.Do(func() error { w.Run(); return nil })
		} else {
			go w.Run()
		}
		p.workers = append(p.workers, w)
		var set *pair.Set
		w.Do(func() {
			if p.graft == nil {
				set, err = pair.NewSet(w, r.splice, mode, "", crowd, r.Log)
				return
			}
			if set, err = pair.NewSet(w, nil, pair.Off, "", crowd, r.Log); err == nil {
				err = set.UseGraft(p.graft, mode == pair.Auto)
			}
		})
		if err != nil {
			p.close()
			return nil, err
		}
		p.sets = append(p.sets, set)
		force := p.force
		if r.Soak {
			force = p.forceGrafts
			p.wg.Go(func() { p.cut(i, rand.New(rand.NewPCG(r.Seed, 1<<41+uint64(i)))) })
		}
		p.wg.Go(func() { force(i, rand.New(rand.NewPCG(r.Seed, 1<<40+uint64(i)))) })
	}
	return p, nil
}

func (p *proxy) close() {
	close(p.stop)
	p.wg.Wait()
	for i, w := range p.workers {
		if i < len(p.sets) {
			w.Do(func() { p.sets[i].KillAll(); p.sets[i].Close() })
		}
		w.Close()
	}
	if p.graft == nil {
		return
	}
	if places, used, resting := p.graft.Sizes(); used != 0 || places > 4*resting {
		p.run.fail("left over: %d addresses, %d grafts in use, %d at rest", places, used, resting)
	}
	p.graft.Close()
}

// force asks random directions of random pairs onto other paths.
func (p *proxy) force(worker int, random *rand.Rand) {
	for {
		select {
		case <-p.stop:
			return
		case <-time.After(time.Duration(random.IntN(500)) * time.Microsecond):
		}
		p.workers[worker].Do(func() {
			live := p.live[worker]
			for range min(len(live), 16) {
				k := live[random.IntN(len(live))]
				p.audit(k)
				direction := random.IntN(2)
				to := p.paths()[random.IntN(len(p.paths()))]
				var handed [2]uint64
				handed[0], handed[1] = k.pair.Bytes()
				if h := &k.history[direction]; to != h.path && h.due(handed[direction], random) {
					k.pair.Force(direction, to)
					if live = p.live[worker]; len(live) == 0 {
						return
					}
				}
			}
		})
	}
}

// forceGrafts asks for grafts at random moments, on workers that have no rule for
// them.
func (p *proxy) forceGrafts(worker int, random *rand.Rand) {
	for workerModes[worker] != pair.Auto {
		select {
		case <-p.stop:
			return
		case <-time.After(time.Duration(random.IntN(800)) * time.Microsecond):
		}
		p.workers[worker].Do(func() {
			for _, k := range slices.Clone(p.live[worker]) {
				if !k.ended && k.history[0].path != api.PathGraft && random.IntN(2) == 0 {
					k.pair.Force(0, api.PathGraft)
				}
			}
		})
	}
}

// cut ends pairs in order whose scripts say so, in mid-conversation or in bulk.
func (p *proxy) cut(worker int, random *rand.Rand) {
	for {
		select {
		case <-p.stop:
			return
		case <-time.After(time.Duration(random.IntN(1000)) * time.Microsecond):
		}
		p.workers[worker].Do(func() {
			for _, k := range slices.Clone(p.live[worker]) {
				if k.script.cut && !k.ended && k.pair.Frozen() && random.IntN(8) == 0 {
					k.pair.Close()
				}
			}
		})
	}
}

// audit looks at the kernel's account of a pair's sockets: with nothing queued,
// what TCP holds in advance is whole pages, or an update of it was lost. SO_MEMINFO
// is read without the socket's lock, and TCP writes the queue and the account one
// after the other, with interrupts between: a single look can be wrong for as long
// as those last, so one that is off is looked at again, for as long as it stays so.
func (p *proxy) audit(k *connection) {
	for i, fd := range k.fds {
		if !k.drift[i] && lastingDrift(fd) {
			k.drift[i] = true
			p.run.tally.drift(k.wire.name)
		}
	}
}

// lastingDrift is whether the account of a socket at rest is off, and so it is in
// every look of the next 50 ms that meets it at rest.
func lastingDrift(fd int) bool {
	if atRest, off := drift(fd); !atRest || off == 0 {
		return false
	}
	again := 0
	for range 25 {
		time.Sleep(2 * time.Millisecond)
		switch atRest, off := drift(fd); {
		case atRest && off == 0:
			return false
		case atRest:
			again++
		}
	}
	return again >= 5
}

func drift(fd int) (atRest bool, off int) {
	last := meminfo(fd)
	for range 20 {
		m := meminfo(fd)
		if m != last || m[0]|m[5]|m[7] != 0 {
			return false, 0
		}
	}
	return true, int(last[4]) & 4095
}

// meminfo reads rmem_alloc, rcvbuf, wmem_alloc, sndbuf, fwd_alloc, wmem_queued,
// optmem, backlog and drops (linux/sock_diag.h), without the socket's lock.
func meminfo(fd int) (m [9]int32) {
	size := uint32(unsafe.Sizeof(m))
	unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO, uintptr(unsafe.Pointer(&m)), uintptr(unsafe.Pointer(&size)), 0)
	return m
}

// join makes a pair of an accepted connection and one to the server.
func (p *proxy) join(k *connection, c *net.TCPConn) {
	time.Sleep(k.script.dawdle)
	w := k.wire
	w.dialing[1].Lock()
	up, err := w.dialServer(k.family)
	if err == nil {
		k.uses(2, up.LocalAddr())
		k.uses(3, up.RemoteAddr())
		w.serving.Store(up.LocalAddr().String(), k)
	}
	w.dialing[1].Unlock()
	if err != nil {
		p.run.fail("connection %d: dial server: %v", k.n, err)
		c.Close()
		close(k.server)
		return
	}
	fds := [2]int{}
	for i, c := range []*net.TCPConn{c, up.(*net.TCPConn)} {
		if fds[i], err = take(c); err != nil {
			p.run.fail("connection %d: take socket: %v", k.n, err)
		}
	}
	worker := int(k.n) % len(p.workers)
	p.workers[worker].Do(func() {
		k.began = time.Now()
		cfg := pair.Config{
			Downstream: fds[0], Upstream: fds[1], Limit: k.script.limit,
			Changed: k.changed,
			Ended: func(pr *pair.Pair, o pair.Outcome) {
				p.forget(worker, k)
				k.finished(pr, o)
			},
		}
		k.fds = fds
		k.index = len(p.live[worker])
		p.live[worker] = append(p.live[worker], k)
		if k.n%2 == 0 { // as upstream.Dial hands it over
			if err := p.workers[worker].Add(fds[1], upstream.Events, nobody{}); err != nil {
				p.run.fail("connection %d: watch socket: %v", k.n, err)
			}
			p.workers[worker].Park(fds[1])
			cfg.Watched = true
		}
		k.pair = p.sets[worker].Start(cfg)
		if k.script.early && !k.ended {
			k.pair.Force(0, api.PathGraft)
		}
	})
}

type nobody struct{}

func (nobody) Ready(uint32) {}

func (p *proxy) forget(worker int, k *connection) {
	live := p.live[worker]
	last := live[len(live)-1]
	live[k.index], last.index = last, k.index
	p.live[worker] = live[:len(live)-1]
}

// take duplicates the descriptor, makes it ready to be one side of a pair, and
// closes the connection that it was.
func take(c *net.TCPConn) (fd int, err error) {
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	if cerr := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) }); cerr != nil {
		return -1, cerr
	}
	if err == nil {
		err = upstream.Prepare(fd)
	}
	if err == nil { // which Go turns on
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
	}
	return fd, err
}

func (p *proxy) status(k *connection) (s string) {
	worker := int(k.n) % len(p.workers)
	p.workers[worker].Do(func() {
		if k.pair == nil {
			s = "no pair"
			return
		}
		if k.ended {
			s = "ended " + k.outcome.String()
			return
		}
		var c api.Connection
		k.pair.Status(&c)
		s = fmt.Sprintf("%s request %+v response %+v refused %q\n  pair: %s", c.State, c.Request, c.Response, c.GraftRefused, k.pair.Told())
	})
	return s
}

func (p *proxy) into(r *Report) {
	var t pair.Totals
	for _, s := range p.sets {
		t.Add(&s.Counters)
	}
	for name, n := range t.Named() {
		r.Pairs[name] += n
	}
	counters := p.run.splice.Counters
	if p.graft != nil {
		counters = p.graft.Counters
	}
	counted, err := counters()
	if err != nil {
		p.run.fail("%v", err)
	}
	for name, n := range counted {
		r.Programs[name] += n
	}
}
