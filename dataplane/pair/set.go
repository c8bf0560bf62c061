package pair

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"golang.org/x/sys/unix"
)

const (
	// scanPeriod is how often spliced pairs are looked at, through shared
	// memory and without a system call each: for the rule, and for what a lost
	// wake-up should have told.
	scanPeriod = time.Second
	// alwaysScanPeriod is the same where the rule has no say, and only a lost
	// wake-up could be found.
	alwaysScanPeriod = 5 * time.Second
	// minRead is what one read may take however small the limit.
	minRead = 16 << 10
	// pipeRest is how long pipes that nobody uses are kept.
	pipeRest = time.Second
	// quietScans is how many scans a direction may be quiet before its source
	// is asked whether bytes came that the verdict never saw.
	quietScans = 8
	// stuckAfter is how long a pair may owe bytes, with a destination that
	// would take them and none moving, before it is reset.
	stuckAfter = 30 * time.Second
)

// Set is the pairs of one worker and what they share.
type Set struct {
	// read-only after NewSet
	worker      *loop.Worker
	splice      *bpf.Splice // nil when every pair relays
	mode        Mode
	unavailable string // why splice is nil
	log         *slog.Logger
	crowd       *Crowd

	busy atomic.Int32 // conversations, for the other workers

	// of the worker's thread
	pairs   []*Pair
	noHooks hooks // of pairs that have none; never written
	// sweep ends pairs that are idle for too long, next at sweepAt.
	sweep   loop.Timer
	sweepAt int64
	bySlot  map[uint32]int32 // places in pairs
	spliced []*Pair          // those with a slot
	scan    loop.Timer
	buffers buffers
	pipes   pipes
	info    unix.TCPInfo
	queued  int // of the last enqueued
	// the last reading of TCP's memory: when, and what it said
	memoryRead int64
	pressure   bool
	// looks numbers the looks, talking are the conversations that the last and
	// this one found on the relay, splicedBusy those that are spliced.
	looks       uint32
	look        loop.Timer
	talking     [2]int
	splicedBusy int

	// graft is nil where no pair is grafted; grafted are those that are, by slot.
	graft        *bpf.Graft
	graftsByRule bool
	askForGraft  func() // nil unless it may yet come
	grafted      map[uint32]*Pair
	graftScan    loop.Timer
	// partings are grafted pairs that have ended, whose sockets are open still.
	partings []parting
	parts    loop.Timer
	// the last look at netfilter, and what it said
	trackedRead int64
	isTracked   bool

	// replaced by tests, before the first pair
	memory     func() (Memory, error)
	sweepFrom  time.Duration
	stuckAfter time.Duration
	partWithin time.Duration
	reach      uint32

	Counters
}

// Counters are what happened to the pairs of a set; safe to read anywhere.
type Counters struct {
	Promotions, Demotions, Refusals atomic.Uint64
	// Overflows are the directions taken back because their backlog was full;
	// Ungated the verdicts taken away without their source's lock.
	Overflows, Ungated atomic.Uint64
	// Rescues are polls that went on for a rescue period, and lost wake-ups
	// found; Stuck the pairs that were reset because nothing helped; Faults
	// those that were reset because bytes did not add up.
	Rescues, Stuck, Faults atomic.Uint64
	// NoPipe are the times that a direction found no pipe and relayed; Pressed
	// those that it was not promoted because TCP was short of memory.
	NoPipe, Pressed atomic.Uint64
	// Grafts are the pairs that were grafted, Freezes those whose sockets came to
	// hold nothing, Thaws those that something arrived at after all, Parted those
	// that ended in order.
	Grafts, GraftRefusals, Freezes, Thaws, Parted atomic.Uint64
	// Bytes by the path that they took; those of the splice and the graft are a
	// scan behind.
	RelayedBytes, PipedBytes, SplicedBytes, GraftedBytes atomic.Uint64
}

// Totals are the counters of several sets, added up.
type Totals struct{ named map[string]uint64 }

// Add adds a set's counters.
func (t *Totals) Add(c *Counters) {
	if t.named == nil {
		t.named = map[string]uint64{}
	}
	for name, n := range map[string]*atomic.Uint64{
		"promotions": &c.Promotions, "demotions": &c.Demotions, "refusals": &c.Refusals, "overflows": &c.Overflows, "ungated": &c.Ungated,
		"rescues": &c.Rescues, "stuck": &c.Stuck, "faults": &c.Faults, "no_pipe": &c.NoPipe, "memory_pressure": &c.Pressed,
		"bytes_relay": &c.RelayedBytes, "bytes_pipe": &c.PipedBytes, "bytes_splice": &c.SplicedBytes,
		"grafts": &c.Grafts, "graft_refusals": &c.GraftRefusals, "graft_freezes": &c.Freezes, "graft_thaws": &c.Thaws, "graft_parted": &c.Parted, "bytes_graft": &c.GraftedBytes,
	} {
		t.named[name] += n.Load()
	}
}

// Named are the sums by name.
func (t *Totals) Named() map[string]uint64 { return t.named }

// scanned is what the scan saw last in a direction.
type scanned struct {
	bytes    uint64
	segments uint32 // wraps
	quiet    uint32 // scans in a row that saw nothing
}

// NewSet makes the set of a worker. splice may be nil: then pairs relay, for the
// reason in unavailable. The crowd is shared with the sets of other workers. Call
// it before the worker runs, or on it.
func NewSet(w *loop.Worker, splice *bpf.Splice, mode Mode, unavailable string, crowd *Crowd, log *slog.Logger) (*Set, error) {
	if mode == Off {
		splice = nil
	}
	s := &Set{worker: w, splice: splice, mode: mode, unavailable: unavailable, log: log, crowd: crowd, bySlot: map[uint32]int32{},
		memory: TCPMemory, looks: 2, sweepFrom: sweepFrom, stuckAfter: stuckAfter, partWithin: partWithin, reach: reach}
	crowd.join(s)
	s.scan.F = s.scanSpliced
	s.look.F = s.looked
	s.sweep.F = s.sweepIdle
	s.pipes.timer.F = s.restPipes
	if splice != nil {
		if err := w.Add(splice.Ring(w.ID).FD(), unix.EPOLLIN, wakeups{s}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Set) scanPeriod() time.Duration {
	if s.mode == Always {
		return alwaysScanPeriod
	}
	return scanPeriod
}

// readSize bounds one read, so that a small buffer limit is kept.
func (s *Set) readSize(limit uint32) int {
	return min(loop.BufferSize, max(minRead, int(limit)))
}

// choose asks the rule about a direction that user space moves and that holds no
// byte. empty says that its source was found empty.
func (d *direction) choose(empty bool) {
	if d.path == api.PathTLS || d.path == api.PathGraft || d.p.graftNow() || d.src().fin || d.done || d.p.closed {
		return
	}
	to, why := d.p.set.mode.fromUserSpace(d.path, &d.traffic, d.situation(empty))
	switch {
	case to == d.path:
		if why != 0 {
			d.reason = why
		}
	case to == api.PathSplice:
		busy := d.traffic.busy(d.p.set.worker.Now())
		d.promote(why)
		d.countSpliced(busy && d.path == api.PathSplice && !d.p.closed)
	default:
		d.shift(to, why)
	}
}

func (d *direction) situation(empty bool) situation {
	s := d.p.set
	at := situation{changes: d.changes, stayed: s.worker.Now() - d.changed, empty: empty, splice: s.splice != nil && !d.barred && !d.p.stays(), crowded: s.crowd.here.Load()}
	at.known = s.mode != Auto || !at.splice || d.path == api.PathSplice || !d.traffic.talks() || !d.traffic.busy(s.worker.Now()) || d.talks()
	return at
}

// wakeups are the verdict's: a direction is to be taken back, or is broken.
type wakeups struct{ s *Set }

func (w wakeups) Ready(uint32) {
	s := w.s
	s.splice.Ring(s.worker.ID).Drain(func(slot, generation uint32) {
		d := s.find(slot)
		if d == nil || d.slot.Generation() != generation || d.path != api.PathSplice || d.done || d.p.closed {
			return
		}
		d.backoff = 0
		d.pumpSplice()
		d.p.watch()
	})
}

func (s *Set) track(p *Pair) {
	if p.scanIndex >= 0 {
		return
	}
	p.scanIndex = int32(len(s.spliced))
	s.spliced = append(s.spliced, p)
	if !s.scan.Armed() {
		s.worker.After(&s.scan, s.scanPeriod())
	}
}

func (s *Set) add(p *Pair) {
	p.index = int32(len(s.pairs))
	s.pairs = append(s.pairs, p)
}

// find is the direction that has the slot, or nil.
func (s *Set) find(slot uint32) *direction {
	i, ok := s.bySlot[slot]
	if !ok {
		return nil
	}
	d := &s.pairs[i].direction[0]
	if !d.slot.Taken() || d.slot.Index() != slot {
		d = &s.pairs[i].direction[1]
	}
	return d
}

func (s *Set) forget(p *Pair) {
	end := len(s.pairs) - 1
	if moved := s.pairs[end]; moved != p {
		s.pairs[p.index], moved.index = moved, p.index
		for i := range moved.direction {
			if d := &moved.direction[i]; d.slot.Taken() {
				s.bySlot[d.slot.Index()] = moved.index
			}
		}
	}
	s.pairs[end] = nil
	s.pairs = s.pairs[:end]
	if end == 0 {
		s.worker.Stop(&s.sweep)
	}
	if p.scanIndex < 0 {
		return
	}
	last := len(s.spliced) - 1
	s.spliced[p.scanIndex] = s.spliced[last]
	s.spliced[p.scanIndex].scanIndex = p.scanIndex
	s.spliced[last] = nil
	s.spliced = s.spliced[:last]
	p.scanIndex = -1
}

// scanSpliced asks the rule about every spliced direction, and finds those that
// owe something although no wake-up came.
func (s *Set) scanSpliced() {
	for i := len(s.spliced) - 1; i >= 0; i-- {
		p := s.spliced[i]
		for j := range p.direction {
			if !p.closed {
				p.direction[j].scan()
			}
		}
		p.watch()
	}
	s.judge()
	if len(s.spliced) > 0 {
		s.worker.After(&s.scan, s.scanPeriod())
	}
}

func (d *direction) scan() {
	if d.path != api.PathSplice || d.done {
		d.countSpliced(false)
		return
	}
	s := d.p.set
	if _, broken := d.slot.Broken(); broken || d.slot.Overflowed() && !d.leaving {
		s.Rescues.Add(1)
		d.backoff = 0
		d.pumpSplice()
		return
	}
	moved := d.look()
	if d.leaving {
		return
	}
	d.countSpliced(moved.segments >= busyMessages)
	if moved.bytes == 0 {
		if d.seen.quiet++; d.seen.quiet == 1 || d.seen.quiet%quietScans == 0 {
			d.checkQuiet()
		}
		return
	}
	d.seen.quiet = 0
	if to, why := s.mode.fromSplice(moved, d.situation(false)); to != api.PathSplice {
		d.demote(to, why)
	}
}

// look returns what the verdict moved since the last look, and counts it.
func (d *direction) look() (moved scanned) {
	now := scanned{bytes: d.slot.Redirected(), segments: d.slot.Segments(), quiet: d.seen.quiet}
	moved = scanned{bytes: now.bytes - d.seen.bytes, segments: now.segments - d.seen.segments}
	d.seen = now
	d.p.set.SplicedBytes.Add(moved.bytes)
	return moved
}

// checkQuiet looks for bytes that came in while the verdict counted nothing: a
// lost data_ready. A kick has the kernel look again.
func (d *direction) checkQuiet() {
	if d.slot.Charged() > 0 && d.drained() {
		d.slot.Settle()
	}
	if d.src().fin || !d.probe() {
		return
	}
	if missing, ok := d.balance(false); !ok || missing == 0 {
		// In the receive queue counts as there, but nobody is to read it.
		if n, err := unread(d.src().fd); err != 0 || n == 0 {
			return
		}
	}
	d.p.set.Rescues.Add(1)
	if d.kick() && !d.p.closed {
		d.pumpSplice()
	}
}

// Close gives back what the set keeps for reuse; its pairs have ended. On the
// worker.
func (s *Set) Close() {
	s.worker.Stop(&s.pipes.timer)
	s.worker.Stop(&s.sweep)
	s.worker.Stop(&s.look)
	s.partNone()
	s.pipes.close()
}

// restPipes closes the pipes that nobody has used for a while.
func (s *Set) restPipes() {
	if !s.pipes.used {
		s.pipes.close()
	}
	s.pipes.used = false
	if s.pipes.made > 0 {
		s.worker.After(&s.pipes.timer, pipeRest)
	}
}

// KillAll ends every pair by RST. On the worker.
func (s *Set) KillAll() {
	for i := len(s.pairs) - 1; i >= 0; i-- {
		s.pairs[i].Kill()
	}
}
