package pair

import (
	"errors"
	"math"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"golang.org/x/sys/unix"
)

const (
	// graftReads are the reads of both directions before a pair is grafted: eight
	// requests and their answers. It costs what two exchanges
	// through user space do, which one that ends soon would not earn back.
	graftReads = 16
	// graftAgain is when a pair is asked again that was refused for a passing reason.
	graftAgain = int64(20 * time.Millisecond)
	graftTries = 16
	never      = math.MaxInt64
)

// grafting is what a pair has whose packets go from peer to peer, or that was
// refused it. User space goes on with what its sockets held at the graft (it
// drains); when that is gone the pair is frozen: nothing more arrives, and nothing
// is sent. docs/graft.md has the rules.
type grafting struct {
	bpf.Grafted
	frozen bool
	// plain are the bytes that user space had moved at the graft, counted those of
	// all that the set has counted.
	plain, counted [2]uint64
	// refused is why the pair is not grafted, next when to ask again.
	refused error
	next    int64
	tries   int
	// packets that the last scan saw, and the scans in a row that saw no more
	packets uint64
	quiet   int
}

// UseGraft has the set graft pairs, by its rule or only when they are asked (Force).
// Call it on the worker, at any time, or before it runs; the worker's thread is in the
// namespace that g is for.
func (s *Set) UseGraft(g *bpf.Graft, rule bool) error {
	s.graft, s.graftsByRule, s.askForGraft = g, rule, nil
	s.grafted = map[uint32]*Pair{}
	s.graftScan.F = s.scanGrafted
	s.parts.F = s.partAll
	return s.worker.Add(g.Ring(s.worker.ID).FD(), unix.EPOLLIN, graftEvents{s})
}

// AskForGraft has the set call f when a pair could be grafted, and wait with every
// other path for such a pair until UseGraft or NoGraft says what came of it. f returns
// at once and may be called again. Call it before the first pair.
func (s *Set) AskForGraft(f func()) { s.graftsByRule, s.askForGraft = true, f }

// NoGraft says that there will be none.
func (s *Set) NoGraft() { s.graftsByRule, s.askForGraft = false, nil }

// graftNow grafts the pair if it is time to, and tells whether that settles its path.
// It is called by a direction that holds nothing.
func (p *Pair) graftNow() bool {
	s := p.set
	switch {
	case !s.graftsByRule || p.cfg.graft != nil && p.cfg.graft.next > s.worker.Now():
		return false
	case p.direction[0].traffic.reads+p.direction[1].traffic.reads < graftReads:
		return false
	case s.graft == nil:
		if s.askForGraft == nil {
			return false
		}
		s.askForGraft()
		return true // to wait
	}
	return p.join(reasonGraft)
}

// join grafts the pair, or says why not.
func (p *Pair) join(why reason) bool {
	s := p.set
	if p.closed || s.graft == nil || p.direction[0].holds() || p.direction[1].holds() {
		return false
	}
	p.needGraft()
	g := p.cfg.graft
	if g.Taken() {
		return false
	}
	for i := range p.ends {
		p.ends[i].hurry(false) // what the server acknowledges late drains late
	}
	down, up, err := p.fits()
	if err == nil {
		g.Grafted, err = s.graft.Join(s.worker.ID, down, up)
	}
	if err != nil {
		p.notGrafted(err)
		return false
	}
	g.refused = nil
	s.Grafts.Add(1)
	s.grafted[g.Index()] = p
	if !s.graftScan.Armed() {
		s.worker.After(&s.graftScan, scanPeriod)
	}
	for i := range p.direction {
		d := &p.direction[i]
		g.plain[i] = d.handed()
		d.moved(api.PathGraft, why)
		d.backoff = 0
	}
	p.direction[0].pollSoon()
	return true
}

// needGraft gives the pair hooks of its own, if it has none, and the graft in them.
func (p *Pair) needGraft() {
	if p.cfg.hooks == &p.set.noHooks {
		p.cfg.hooks = new(hooks)
	}
	if p.cfg.graft == nil {
		p.cfg.graft = new(grafting)
	}
}

func (p *Pair) notGrafted(err error) {
	g, s := p.cfg.graft, p.set
	g.refused, g.next = err, never
	g.tries++
	var r interface{ Later() bool }
	if errors.As(err, &r) && r.Later() && g.tries < graftTries {
		g.next = s.worker.Now() + graftAgain
		return
	}
	s.GraftRefusals.Add(1)
}

// pumpGraft goes on with what the sockets held.
func (d *direction) pumpGraft() {
	p := d.p
	if p.cfg.graft.frozen && !p.thaw() {
		return
	}
	if !d.done {
		d.pumpRelay()
	}
	if !p.closed {
		p.settle()
	}
}

// thaw takes a pair that was frozen back: a packet had slipped through.
func (p *Pair) thaw() bool {
	if !p.cfg.graft.Drain() {
		p.graftChanged()
		return false
	}
	p.cfg.graft.frozen = false
	p.set.Thaws.Add(1)
	return true
}

// settle freezes a pair whose sockets hold nothing any more, or looks again.
func (p *Pair) settle() {
	g := p.cfg.graft
	if g.frozen || p.ends[0].failed || p.ends[1].failed {
		return // a broken one comes to its end by finish
	}
	if !g.Settled() || p.direction[0].holds() || p.direction[1].holds() || !p.silent() {
		if !p.closed {
			p.direction[0].pollSoon()
		}
		return
	}
	if !g.Activate() {
		p.graftChanged()
		return
	}
	g.frozen = true
	for i := range p.direction {
		d := &p.direction[i]
		d.backoff, d.due = 0, 0
	}
	p.set.Freezes.Add(1)
	_, request := g.Finished(0)
	_, response := g.Finished(1)
	if request && response {
		g.Close()
		p.graftChanged()
	}
}

// silent tells whether the sockets hold nothing: nothing to read, and nothing that
// is not acknowledged. The grace period is over, so nothing is on its way to them.
func (p *Pair) silent() bool {
	for i := range p.ends {
		e := &p.ends[i]
		if q, err := outq(e.fd); err != 0 || q > 0 {
			return false
		}
		if p.direction[i].done {
			continue
		}
		switch _, err := unread(e.fd); err {
		case unix.EAGAIN:
		case 0: // bytes, or an end, that came meanwhile
			p.direction[i].pollSoon()
			return false
		default:
			p.fail(e, false) // sk_err is told only once
			return false
		}
	}
	return true
}

// Frozen tells whether the pair is grafted and its sockets are at rest. For tests,
// the self-test among them. On the worker.
func (p *Pair) Frozen() bool { return p.cfg.graft != nil && p.cfg.graft.frozen }

// graftChanged ends a pair whose programs say that it has ended.
func (p *Pair) graftChanged() {
	g := p.cfg.graft
	switch g.State() {
	case bpf.GraftClosed, bpf.GraftOff:
		if p.firstEnd < 0 {
			p.firstEnd = int8(g.First())
		}
		p.close(Complete, true)
	case bpf.GraftReset:
		o := DownstreamReset
		if g.ResetBy() == 1 {
			o = UpstreamReset
		}
		p.close(o, true)
	}
}

// ungraft is called before the sockets are closed. It returns whether that is by
// RST: a socket at rest does not know where its stream is, so that a FIN of it would
// say nothing until the halves have parted; an RST is put right on its way, or
// swallowed where client and server have come to an end of their own. Kept says that
// the sockets are closed later.
func (p *Pair) ungraft(o Outcome, reset bool) (byReset, kept bool) {
	g := p.cfg.graft
	_, request := g.Finished(0)
	_, response := g.Finished(1)
	switch {
	case g.frozen && request && response: // they have finished with each other, unknown to us yet
		g.Close()
		return true, false
	case reset:
	case o == Complete:
		g.Back()
		return false, false
	case p.part():
		return false, true
	}
	g.End() // if no end came before
	return true, false
}

// graftedBytes are those of a direction that went from peer to peer.
func (d *direction) graftedBytes() uint64 {
	g := d.p.cfg.graft
	if g == nil || !g.Taken() {
		return 0
	}
	// User space's count also has what the sockets held.
	if all := g.plain[d.side] + g.Bytes(int(d.side)); all > d.handed() {
		return all - d.handed()
	}
	return 0
}

// graftEvents are the programs': a pair has ended, or its addresses are used again.
type graftEvents struct{ s *Set }

func (e graftEvents) Ready(uint32) {
	s := e.s
	s.graft.Ring(s.worker.ID).Drain(func(slot, generation uint32) {
		p := s.grafted[slot]
		if p == nil || p.cfg.graft.Generation() != generation {
			s.graft.Reused(slot, generation)
			return
		}
		p.graftChanged()
	})
}

// endedScans is how many scans a pair may be silent after both its ends were passed
// on, before it counts as ended although one was never acknowledged: as long as TCP
// itself remembers an end.
const endedScans = 60

// scanGrafted counts bytes, and finds ends whose events were lost, or that nobody
// saw acknowledged.
func (s *Set) scanGrafted() {
	for _, p := range s.grafted {
		p.countGrafted()
		p.graftChanged()
		if p.closed || !p.cfg.graft.frozen {
			continue
		}
		g := p.cfg.graft
		if n := g.Packets(0) + g.Packets(1); n != g.packets {
			g.packets, g.quiet = n, 0
			continue
		}
		request, _ := g.Finished(0)
		response, _ := g.Finished(1)
		if g.quiet++; request && response && g.quiet >= endedScans {
			g.Close()
			p.graftChanged()
		}
	}
	if len(s.grafted) > 0 {
		s.worker.After(&s.graftScan, scanPeriod)
	}
}

func (p *Pair) countGrafted() {
	for i := range p.direction {
		n := p.direction[i].graftedBytes()
		if was := &p.cfg.graft.counted[i]; n > *was {
			p.set.GraftedBytes.Add(n - *was)
			*was = n
		}
	}
}

// buryGraft gives the graft back, after the sockets were closed or kept.
func (p *Pair) buryGraft(kept bool) {
	p.countGrafted()
	delete(p.set.grafted, p.cfg.graft.Index())
	if !kept {
		p.cfg.graft.Rest()
	}
}
