package pair

import (
	"time"

	"github.com/sluice-proxy/sluice/api"
	"golang.org/x/sys/unix"
)

// resetGrace is how long the bytes that came before an RST get to be delivered
// before the RST is handed on.
const resetGrace = time.Second

// Outcome says how a pair ended.
type Outcome uint8

// The ways a pair ends.
const (
	// Complete: both sides sent FIN and every byte was handed on.
	Complete Outcome = iota
	// DownstreamReset, UpstreamReset: that side's connection broke; the other
	// one was reset.
	DownstreamReset
	UpstreamReset
	// IdleTimeout: no byte for the idle timeout.
	IdleTimeout
	// Fault: the ledger, or the verdict, found bytes missing; both were reset.
	Fault
	// Killed: the proxy ended it.
	Killed
)

func (o Outcome) String() string {
	return [...]string{"complete", "downstream_reset", "upstream_reset", "idle_timeout", "fault", "killed"}[o]
}

// Config is what a pair is born with. Both sockets are connected, plain TCP and
// non-blocking, have TCP_NODELAY and SO_LINGER{1,0}, belong to the pair from
// now on, and are registered nowhere.
type Config struct {
	Downstream, Upstream int // an upstream of -1 is a transport alone, and Wake tells of it
	// Watched says that the upstream is parked on the worker, edge-triggered for
	// all events (upstream.Events), and has had none but that it stands.
	Watched bool
	// Nagle says that the upstream has no TCP_NODELAY yet.
	Nagle bool
	// Limit bounds what is taken from one side and not yet accepted by the
	// other, per direction: bytes in user space, memory in the kernel.
	Limit uint32
	// IdleTimeout 0 means never.
	IdleTimeout time.Duration
	// Consumed are the bytes of the downstream that were read before, Heard those
	// of the upstream.
	Consumed, Heard uint64
	// Transports of the two sockets, nil where the stream is what is on the wire.
	Transports [2]Transport
	// Unix says that one of the sockets is a Unix socket: the pair never leaves
	// user space.
	Unix bool
	// Gate, if set, is asked before the first bytes of the client, or its end,
	// are read (end says that it has ended its stream), and before every later
	// read if EveryRead is set. False holds the direction until Open is called.
	// It may close the pair.
	Gate      func(end bool) bool
	EveryRead bool
	// Moved, if set, is called after bytes went either way and none of them is
	// left in hand. The pair never leaves user space then. It may close the pair.
	Moved func()
	// Changed, if there is one, is told of every change of a direction's path,
	// on the worker; it must not touch the pair.
	Changed func(Change)
	// Ended is called once, on the worker, when both sockets are closed.
	Ended func(*Pair, Outcome)
}

// Change is a change of the path of one direction.
type Change struct {
	Response bool // the direction; else it is the request
	From, To api.Path
	Reason   string
	// Handed are the bytes of the direction that travelled before.
	Handed uint64
}

// terms are what a pair needs of its Config after its start.
type terms struct {
	IdleTimeout time.Duration
	Consumed    uint64
	Ended       func(*Pair, Outcome)
	*hooks      // the set's empty ones for most
	Limit       uint32
	Unix        bool
}

// hooks are what few pairs have.
type hooks struct {
	Gate       func(end bool) bool
	EveryRead  bool
	Moved      func()
	Changed    func(Change)
	Transports [2]Transport
	Heard      uint64
	told       uint64 // bytes of both directions that Moved knows of
	// graft is nil for a pair that was never asked whether it can be grafted.
	graft *grafting
}

// Pair is a downstream and an upstream socket that belong together. There are
// thousands that do nothing, so what a pair at rest does not need is pointed to.
type Pair struct {
	set *Set
	cfg terms

	ends      [2]end       // downstream, upstream
	direction [2]direction // request, response: direction[i] has source ends[i]

	active int64  // when user space last saw a byte
	alarm  *alarm // nil while the pair waits for no time

	index     int32 // in the set's list of pairs
	scanIndex int32 // in the set's list of spliced pairs, -1 when not
	closed    bool
	firstEnd  int8 // side whose stream was handed on to its end first, -1 before
	broken    Outcome
}

// end is one of the two sockets.
type end struct {
	p       *Pair
	fd      int
	mask    uint32
	side    uint8
	watched bool
	parting bool // watched, but as good as not any more
	adopted bool // a target, for life
	// edge: the socket is watched edge-triggered for everything, as it was from
	// its connect on. That does as long as only bytes and the end are waited for
	// and each look empties the queue; mask is what it stands for.
	edge bool
	// delays: what is left of Nagle's algorithm, which never holds back the
	// first send; so one that is the only one need not pay for the option.
	delays delay
	// fin: no more bytes will come. failed: because the connection broke.
	fin, failed bool
}

type delay uint8

const (
	delayNone  delay = iota // TCP_NODELAY is set
	delayNext               // something was sent, and the next may be held back
	delayFirst              // nothing was sent yet
)

// hurry is called before bytes go to the socket: by send, once, or by others.
func (e *end) hurry(once bool) {
	if e.delays == delayFirst && once {
		e.delays = delayNext
	} else if e.delays != delayNone {
		e.delays = delayNone
		setsockopt(e.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
}

// direction carries bytes from one end to the other.
type direction struct {
	p    *Pair
	side uint8 // of the source

	path   api.Path
	reason reason
	gate   gate
	// reading asks for EPOLLIN on the source; awaiting for EPOLLOUT on the
	// destination although nothing is pending.
	reading, awaiting bool
	// done: the end of the stream was handed on, or cannot be any more.
	done bool
	// emptied: the last read left nothing in the source's queue.
	emptied  bool
	changes  uint32
	lastLook uint32 // the last that found it talking on the relay, 0 for none
	changed  int64  // when the path last changed
	// plain are the bytes that the relay took from the source, piped those of
	// them that it took by splice(2).
	plain, piped uint64
	traffic      traffic // for the rule
	// pending was read and not accepted by the destination yet. So is what is
	// in the pipe, if the direction has one. It never has both.
	pending *block
	pipe    *pipe
	// due is when the direction is pumped without an event, 0 for never.
	due     int64
	backoff time.Duration

	splice
}

// src and dst are the ends that it carries bytes between.
func (d *direction) src() *end { return &d.p.ends[d.side] }
func (d *direction) dst() *end { return &d.p.ends[1-d.side] }

// Start makes a pair go. It never fails: what is wrong with a socket shows as
// its end.
func (s *Set) Start(cfg Config) *Pair {
	p := &Pair{set: s, active: s.worker.Now(), scanIndex: -1, firstEnd: -1}
	p.cfg = terms{IdleTimeout: cfg.IdleTimeout, Consumed: cfg.Consumed, Ended: cfg.Ended, hooks: &s.noHooks, Limit: cfg.Limit, Unix: cfg.Unix}
	if cfg.Gate != nil || cfg.Moved != nil || cfg.Changed != nil || cfg.Heard != 0 || cfg.Transports != [2]Transport{} {
		p.cfg.hooks = &hooks{Gate: cfg.Gate, EveryRead: cfg.EveryRead, Moved: cfg.Moved, Changed: cfg.Changed, Heard: cfg.Heard, Transports: cfg.Transports}
	}
	fds := [2]int{cfg.Downstream, cfg.Upstream}
	for i := range p.ends {
		p.ends[i] = end{p: p, fd: fds[i], side: uint8(i)}
		p.direction[i] = direction{p: p, side: uint8(i), reading: true, changed: p.active, reason: p.startReason()}
	}
	if p.secured() {
		p.direction[0].path, p.direction[1].path = api.PathTLS, api.PathTLS
	}
	if cfg.Nagle {
		p.ends[1].delays = delayFirst
	}
	if d := &p.direction[0]; cfg.Gate != nil {
		d.gate, d.reason = gateShut, reasonFilter
	}
	s.add(p)
	p.watchIdle()
	for i := range p.ends {
		e := &p.ends[i]
		e.mask = p.interest(e)
		if e.fd < 0 {
			continue
		}
		if i == 1 && cfg.Watched && e.mask == edgeMask && s.worker.Inherit(e.fd, e) {
			e.edge, e.watched, p.direction[1].emptied = true, true, true
			continue
		}
		if err := s.worker.Add(e.fd, e.mask, e); err != nil {
			s.log.Error("watch socket", "error", err)
			p.close(Killed, true)
			return p
		}
		e.watched = true
	}
	for i := range p.ends {
		if p.ends[i].transport() != nil {
			p.direction[i].pumpNext() // the handshake may have read ahead
		}
	}
	if s.mode == Always {
		for i := range p.direction {
			if !p.closed {
				p.direction[i].promote(reasonAlways)
			}
		}
		p.watch()
	}
	return p
}

// Wake tells of an upstream without a descriptor that it may have bytes or its end
// (EPOLLIN), or may take some (EPOLLOUT).
func (p *Pair) Wake(events uint32) {
	if !p.closed {
		p.ends[1].Ready(events)
	}
}

// Ready is called by the worker with the events of one socket.
func (e *end) Ready(events uint32) {
	p := e.p
	in, out := &p.direction[e.side], &p.direction[1-e.side]
	broken := events&unix.EPOLLERR != 0
	if broken && !in.reads() {
		if e.broke() {
			return
		}
		broken = false
	}
	if events&unix.EPOLLHUP != 0 && !broken && !out.done && e.dead() {
		p.fail(e, false)
		p.watch()
		return
	}
	if e.edge {
		if events &^= unix.EPOLLOUT; events == 0 { // nobody waits for it
			return
		}
		in.emptied = false
	}
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP) != 0 {
		e.fin = true
	}
	if events&unix.EPOLLOUT != 0 && !p.closed {
		out.awaiting = false
		out.backoff = 0
		out.pump()
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP) != 0 && !p.closed && !in.done {
		in.pump()
	}
	if p.closed || broken && !e.failed && e.broke() {
		return
	}
	if events&unix.EPOLLPRI != 0 {
		in.emptied = false // a read stops short of urgent data
	}
	if events&unix.EPOLLHUP != 0 && e.watched {
		// Both ways are shut: EPOLLHUP cannot be masked and would spin. What is
		// left to do is driven by the other socket and by the poll timer.
		p.set.worker.Del(e.fd)
		e.watched = false
		if !in.done {
			in.pollSoon()
		}
	}
	if p.tell(); p.closed {
		return
	}
	p.watch()
}

// broke looks for the error behind an EPOLLERR and ends the connection if there
// is one. Reading the error takes it from the socket: from here on recv tells
// what is left in the queue and then 0, which is no clean end.
func (e *end) broke() bool {
	if err, _ := getsockopt(e.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == 0 {
		return false
	}
	e.p.fail(e, false)
	e.p.watch()
	return true
}

// dead says that the connection broke although there is no error to be read: the
// kernel's worker met it first when it sent (sk_psock_backlog takes it for a while).
// Only while our side has not been shut, for then an orderly end looks the same.
func (e *end) dead() bool {
	info := &e.p.set.info
	return tcpInfo(e.fd, info) == 0 && info.State == tcpClose
}

// reads tells whether a pump will read from the source, and so learn what is
// wrong with it.
func (d *direction) reads() bool {
	return (d.path == api.PathRelay || d.path == api.PathTLS || d.path == api.PathGraft) && d.gate == gateOpen && d.reading && !d.done && !d.holds()
}

// tell calls Moved if there is something to tell.
func (p *Pair) tell() {
	if p.cfg.Moved == nil {
		return
	}
	if n := p.direction[0].plain + p.direction[1].plain; n != p.cfg.told && !p.owes() {
		p.cfg.told = n
		p.cfg.Moved()
	}
}

// pump moves what can be moved now.
func (d *direction) pump() {
	switch {
	case d.p.closed:
	case d.path == api.PathGraft:
		d.pumpGraft()
	case d.done:
	case d.path == api.PathSplice:
		d.pumpSplice()
	case d.ask():
		// The gate may have let the direction go straight to the splice.
		if d.path == api.PathSplice {
			d.pumpSplice()
			return
		}
		d.pumpRelay()
	}
}

// edgeMask is what an end that is watched edge-triggered may wait for.
const edgeMask = unix.EPOLLIN | unix.EPOLLRDHUP

// interest is the epoll mask that an end needs now (level-triggered).
func (p *Pair) interest(e *end) uint32 {
	in, out := &p.direction[e.side], &p.direction[1-e.side]
	var m uint32
	if !in.done {
		if !e.fin {
			m |= unix.EPOLLRDHUP
		}
		if in.reading && !in.holds() {
			m |= unix.EPOLLIN
		}
	}
	if !out.done && (out.holds() || out.awaiting) {
		m |= unix.EPOLLOUT
	}
	return m
}

// watch brings the epoll masks in line with what the pair waits for.
func (p *Pair) watch() {
	if p.closed {
		return
	}
	for i := range p.ends {
		e := &p.ends[i]
		m := p.interest(e)
		if e.edge && !(m == edgeMask && p.direction[i].emptied) {
			e.edge, e.mask = false, 0
		}
		if m != e.mask && e.watched {
			e.mask = m
			if err := p.set.worker.Mod(e.fd, m); err != nil {
				p.set.log.Error("watch socket", "error", err)
				p.close(Killed, true)
				return
			}
		}
	}
}

// fail is called when a connection broke (RST, time-out). What was received
// before still goes to the other side, which then is reset; read says that
// nothing of it is left in the queue.
func (p *Pair) fail(e *end, read bool) {
	if p.closed || e.failed {
		return
	}
	other := &p.ends[1-e.side]
	first := !other.failed
	e.failed, e.fin = true, true
	if first {
		p.broken = DownstreamReset
		if e.side == 1 {
			p.broken = UpstreamReset
		}
		p.needAlarm().deadline = p.set.worker.Now() + int64(resetGrace)
	}
	if e.watched {
		e.watched, e.parting = false, true
		defer p.unwatch(e)
	}
	out := &p.direction[1-e.side]
	out.drop()
	in := &p.direction[e.side]
	switch {
	case in.done || !first:
		p.close(p.broken, true)
	case read && !in.holds():
		in.finish()
	default:
		in.pump()
	}
	if !p.closed {
		p.arm()
	}
}

// unwatch takes the socket of a broken connection out of the epoll set, unless
// the pair has come to its end already and closed it.
func (p *Pair) unwatch(e *end) {
	if !p.closed {
		e.parting = false
		p.set.worker.Del(e.fd)
	}
}

// drop gives a direction up: its destination cannot take any more.
func (d *direction) drop() {
	d.done = true
	d.release()
}

// finish is called when every byte of the source was handed to the
// destination's TCP.
func (d *direction) finish() {
	p := d.p
	if d.src().failed {
		// An RST discards what the other side's TCP has not sent yet: let it
		// go out first, but do not wait for a reader that does not read.
		if q, err := outq(d.dst().fd); err == 0 && q > 0 && p.set.worker.Now() < p.deadline() {
			d.pollSoon()
			return
		}
		p.close(p.broken, true)
		return
	}
	if !d.balanced(true) {
		return
	}
	last := d.p.direction[1-d.src().side].done
	if last && !d.dst().farewell() || !last && !d.dst().endStream() {
		d.awaiting = !p.closed
		return
	}
	d.done = true
	d.reading = false
	if p.firstEnd < 0 {
		p.firstEnd = int8(d.src().side)
	}
	if last {
		p.close(Complete, false) // which sends the FIN
	}
}

// owes tells whether bytes were taken from one side that the other side's TCP
// does not have.
func (p *Pair) owes() bool {
	for i := range p.direction {
		d := &p.direction[i]
		if d.done {
			continue
		}
		if d.holds() || d.path == api.PathSplice && !d.drained() {
			return true
		}
	}
	return false
}

// Kill ends the pair at once, by RST.
func (p *Pair) Kill() { p.close(Killed, true) }

// Close ends the pair at once and in order: by FIN on both sides, or by RST
// where bytes wait unread.
func (p *Pair) Close() { p.close(Killed, p.owes()) }

// close ends the pair. By reset, both sides see an RST (SO_LINGER{1,0} has been
// set from the start, so that a killed process does the same).
func (p *Pair) close(o Outcome, reset bool) {
	if p.closed {
		return
	}
	p.closed = true
	p.dropAlarm()
	grafted, kept := p.cfg.graft != nil && p.cfg.graft.Taken(), false
	if grafted {
		reset, kept = p.ungraft(o, reset)
	}
	if !kept {
		p.closeSockets(reset)
	}
	for i := range p.direction {
		d := &p.direction[i]
		d.release()
		d.bury()
	}
	if grafted {
		p.buryGraft(kept)
	}
	p.set.forget(p)
	if p.cfg.Ended != nil {
		p.cfg.Ended(p, o)
	}
}

// closeSockets closes both, by RST or in order.
func (p *Pair) closeSockets(reset bool) {
	for i := range p.ends {
		e := &p.ends[i]
		if e.watched || e.parting {
			p.set.worker.Forget(e.fd)
		}
		if !reset {
			e.farewell()
			lingerOff(e.fd)
		}
		if e.fd >= 0 {
			unix.Close(e.fd)
		}
	}
}
