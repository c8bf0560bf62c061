package pair

import (
	"errors"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"golang.org/x/sys/unix"
)

// promote gives the direction to the verdict. It needs a relay that holds no
// byte; the order of the steps matters at each line. On any refusal the
// direction stays on the relay and says why.
func (d *direction) promote(why reason) bool {
	p := d.p
	if p.set.splice == nil || p.stays() || d.gate != gateOpen || d.done || d.src().fin || d.dst().fin || d.holds() || d.path == api.PathSplice || d.path == api.PathGraft {
		if d.src().fin || d.dst().fin {
			d.reason = reasonHalfClosed
		}
		return false
	}
	if p.set.pressed() {
		p.set.Pressed.Add(1)
		d.reason = reasonMemory
		return false
	}
	if err := p.adopt(); err != nil {
		d.refused(err)
		return false
	}
	d.dst().hurry(false)
	if !d.slot.Taken() {
		if err := d.takeSlot(); err != nil {
			d.refused(err)
			return false
		}
	}
	enqueued, ok := p.set.enqueuedExact(d.dst().fd)
	if !ok {
		d.reason = reasonInsert
		return false
	}
	d.base = enqueued - d.slot.Redirected()
	d.slot.Rebase()
	d.leaving, d.stalled = false, 0
	if err := d.slot.Intercept(); err != nil {
		d.refused(err)
		return false
	}
	d.moved(api.PathSplice, why)
	p.set.Promotions.Add(1)
	p.set.track(p)
	d.reading = false
	if d.kick() {
		d.pumpSplice()
	}
	return true
}

// adopt makes both sockets targets, once, for the rest of their lives.
func (p *Pair) adopt() error {
	for i := range p.ends {
		e := &p.ends[i]
		if e.adopted {
			continue
		}
		if err := p.set.splice.Adopt(e.fd); err != nil {
			return err
		}
		e.adopted = true
	}
	return nil
}

func (d *direction) takeSlot() error {
	s := d.p.set
	target, err := bpf.Cookie(d.dst().fd)
	if err != nil {
		return err
	}
	limit := min(d.p.cfg.Limit, maxBacklog)
	slot, err := s.splice.NewSlot(s.worker.ID, d.src().fd, target, limit, limit+s.reach)
	if err != nil {
		return err
	}
	d.slot = slot
	s.bySlot[slot.Index()] = d.p.index
	return nil
}

// bury gives the slot back, after the sockets were closed.
func (d *direction) bury() {
	d.uncount()
	if !d.slot.Taken() {
		return
	}
	d.look()
	delete(d.p.set.bySlot, d.slot.Index())
	if err := d.slot.Free(); err != nil {
		d.p.set.log.Error("free slot", "error", err)
	}
}

func (d *direction) refused(err error) {
	s := d.p.set
	s.Refusals.Add(1)
	switch {
	case errors.Is(err, bpf.ErrHalfClosed):
		d.reason = reasonHalfClosed
	case errors.Is(err, bpf.ErrNoSlot):
		d.reason = reasonNoSlot
	default:
		d.reason = reasonInsert
		s.log.Warn("splice refused", "error", err)
	}
	// Not asked again for this pair: what refused it does not change often,
	// and the relay serves it well.
	d.barred = true
}

func (d *direction) moved(to api.Path, why reason) {
	if f := d.p.cfg.Changed; f != nil {
		f(Change{Response: d.src().side == 1, From: d.path, To: to, Reason: d.p.set.say(why), Handed: d.handed() + d.graftedBytes()})
	}
	d.uncount()
	d.path, d.reason = to, why
	d.changes++
	d.changed = d.p.set.worker.Now()
	d.traffic = traffic{}
	d.emptied = false
	if d.slot.Taken() {
		d.look()
		d.seen.quiet = 0
	}
}

// shift moves a direction that holds no byte between recv and splice(2). Both
// take from the same queue in order, so only the ledger has to agree.
func (d *direction) shift(to api.Path, why reason) {
	if d.holds() || d.path == to || d.path == api.PathGraft || d.done || to == api.PathPipe && (d.barredPipe || d.gate != gateOpen) {
		return
	}
	switch missing, ok := d.balance(false); {
	case d.p.closed || d.src().failed:
	case missing != 0:
		d.p.fault(d, "ledger does not balance between relay and pipe")
	case ok: // else bytes keep coming in: another time
		d.moved(to, why)
	}
}

// demote asks for the way back to user space, by recv or by splice(2); it is
// gone when the backlog has drained.
func (d *direction) demote(to api.Path, why reason) {
	if d.path != api.PathSplice || d.leaving || d.src().fin || d.done {
		return
	}
	d.backoff = 0
	d.leave(to, why)
	d.pumpSplice()
}

// leave begins the way back to user space.
func (d *direction) leave(to api.Path, why reason) {
	d.leaving, d.to, d.reason = true, to, why
	d.reading = false
	d.slot.Recall()
}

// released tells whether the verdict has been taken away: from then on bytes stay
// in the source's own receive queue, and its window closes. Nobody reads them until
// what was redirected before has drained. False asks again later, or says that the
// source broke.
func (d *direction) released() bool {
	if d.slot.Left() {
		return true
	}
	// To send nothing has the kernel take it away now, under the source's lock.
	// It cannot be done after a FIN of ours (EPIPE); then the next
	// acknowledgement does it.
	if _, err := send(d.src().fd, nil); err != 0 && err != unix.EPIPE && err != unix.EAGAIN && !d.src().failed {
		d.p.fail(d.src(), false)
		return false
	}
	if d.slot.Left() {
		return true
	}
	if !d.src().failed {
		if d.backoff < rescuePeriod {
			d.rescue()
			return false
		}
		// A source that sends nothing for so long receives nothing, and no
		// verdict is running. Or the socket is not of this process's cgroup, and
		// one may be; then the ledger sees what it loses.
		d.p.set.Ungated.Add(1)
	}
	if err := d.slot.Restore(); err != nil {
		d.p.fault(d, err.Error())
		return false
	}
	return true
}

// settled checks the ledger before the first byte behind the verdict's last is
// read. False asks again later, for bytes keep coming in (their window closes
// soon), or says that the pair was reset.
func (d *direction) settled() bool {
	missing, ok := d.balance(false)
	switch {
	case d.p.closed:
	case d.src().failed && !ok:
		return true // nothing can be compared; it ends in a reset
	case !ok:
		d.rescue()
	case missing != 0:
		d.p.fault(d, "ledger does not balance after the splice was left")
	default:
		return true
	}
	return false
}

// left ends leaving: the direction is user space's.
func (d *direction) left() {
	d.moved(d.to, d.reason)
	d.leaving, d.awaiting = false, false
	d.stalled, d.backoff = 0, 0
	d.reading = true
	d.p.set.Demotions.Add(1)
}

// Force asks a direction (0 request, 1 response) onto a path, whatever the rule
// says; it goes there when that can be done, or stays where it is. For tests,
// the self-test among them. On the worker.
func (p *Pair) Force(direction int, to api.Path) {
	if d := &p.direction[direction]; !p.closed && d.gate == gateOpen {
		switch to {
		case api.PathGraft:
			p.join(reasonAsked)
		case api.PathSplice:
			d.promote(reasonAsked)
		case api.PathRelay, api.PathPipe:
			d.demote(to, reasonAsked)
			if d.path != api.PathSplice {
				d.shift(to, reasonAsked)
			}
		}
		p.watch()
	}
}

// Unsplice asks both directions back to the relay. Status tells when they are
// there. On the worker.
func (p *Pair) Unsplice() {
	for i := range p.direction {
		p.Force(i, api.PathRelay)
	}
}

// Resplice gives both directions to the verdict, if they can be. On the worker.
func (p *Pair) Resplice() {
	for i := range p.direction {
		p.Force(i, api.PathSplice)
	}
}
