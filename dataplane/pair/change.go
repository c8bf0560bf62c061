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
	if p.set.splice == nil || p.stays() || d.gate != gateOpen || d.done || d.src.fin || d.dst.fin || d.holds() || d.path == api.PathSplice {
		if d.src.fin || d.dst.fin {
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
	d.dst.hurry(false)
	if d.slot == nil {
		if err := d.takeSlot(); err != nil {
			d.refused(err)
			return false
		}
	}
	enqueued, ok := p.set.enqueuedExact(d.dst.fd)
	if !ok {
		d.reason = reasonInsert
		return false
	}
	d.base = enqueued - d.slot.Redirected() - d.slot.Written()
	d.slot.Rebase()
	d.owned, d.leaving, d.stalled = false, false, 0
	d.slot.SetSplice(true)
	if err := d.slot.Intercept(); err != nil {
		d.slot.SetSplice(false)
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
	target, err := bpf.Cookie(d.dst.fd)
	if err != nil {
		return err
	}
	slot, err := s.splice.NewSlot(s.worker.ID, d.src.fd, target, d.p.cfg.Limit)
	if err != nil {
		return err
	}
	d.slot = slot
	s.bySlot[slot.Index()] = d
	return nil
}

// bury gives the slot back, after the sockets were closed.
func (d *direction) bury() {
	if d.slot == nil {
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
		f(Change{Response: d.src.side == 1, From: d.path, To: to, Reason: d.p.set.say(why), Handed: d.handed()})
	}
	d.path, d.reason = to, why
	d.changes++
	d.changed = d.p.set.worker.Now()
	d.traffic = traffic{}
	d.emptied = false
	if d.slot != nil {
		d.look()
		d.seen.quiet = 0
	}
}

// shift moves a direction that holds no byte between recv and splice(2). Both
// take from the same queue in order, so only the ledger has to agree.
func (d *direction) shift(to api.Path, why reason) {
	if d.holds() || d.path == to || d.done || to == api.PathPipe && (d.barredPipe || d.gate != gateOpen) {
		return
	}
	switch missing, ok := d.balance(false); {
	case d.p.closed || d.src.failed:
	case missing != 0:
		d.p.fault(d, "ledger does not balance between relay and pipe")
	case ok: // else bytes keep coming in: another time
		d.moved(to, why)
	}
}

// demote asks for the way back to user space, by recv or by splice(2); it is
// gone when the backlog has drained and what was passed has been written.
func (d *direction) demote(to api.Path, why reason) {
	if d.path != api.PathSplice || d.leaving || d.src.fin || d.done {
		return
	}
	d.leaving, d.to = true, to
	d.reason = why
	d.slot.SetSplice(false)
	d.backoff = 0
	d.pumpSplice()
}

// restore is the last step of leaving: the verdict is taken away while nothing
// can be redirected (pass mode), nothing passed is unread, and the destination
// is ours. False means try again, or not at all if leaving was given up, or
// that the pair was reset.
func (d *direction) restore() bool {
	p, s := d.p, d.p.set
	// FIN came, or we sent one: the way back would never be possible, and the
	// stream is at its end anyway.
	if tcpInfo(d.src.fd, &s.info) != 0 || s.info.State != tcpEstablished {
		d.stay()
		return false
	}
	// The gate: below this mark tcp_data_ready does not call the verdict, so
	// that it is not running when it goes. A quarter of the buffer does not
	// make the kernel grow the buffer.
	size, _ := getsockopt(d.src.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	setsockopt(d.src.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, max(1, size/4))
	if d.slot.Passed() != d.slot.Written() {
		setsockopt(d.src.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1)
		return false
	}
	if err := d.slot.Restore(); err != nil {
		p.fault(d, err.Error())
		return false
	}
	tcpInfo(d.src.fd, &s.info) // takes the lock: a running verdict has ended
	if d.slot.Passed() != d.slot.Written() {
		// One slipped in. The target map still holds its bytes: put the
		// verdict back and read them.
		s.Races.Add(1)
		d.retake()
		return false
	}
	d.moved(d.to, d.reason)
	d.leaving, d.owned, d.awaiting = false, false, false
	d.reading = true
	s.Demotions.Add(1)
	setsockopt(d.src.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1)
	missing, ok := d.balance(false)
	if !p.closed && !d.src.failed && (!ok || missing != 0) {
		p.fault(d, "ledger does not balance after the splice was left")
	}
	return !p.closed
}

// retake puts the verdict back after a race. It cannot once a FIN has come; but
// then nothing more comes either: the target map's hold on the socket lets what
// was passed be read, and the ledger tells whether that was all.
func (d *direction) retake() {
	switch err := d.slot.Intercept(); {
	case err == nil:
		d.kick()
	case errors.Is(err, bpf.ErrHalfClosed):
		d.stay()
	default:
		d.p.fault(d, err.Error())
	}
}

// stay gives up leaving.
func (d *direction) stay() {
	d.leaving, d.owned = false, false
	d.reason = reasonHalfClosed
	d.slot.SetSplice(true)
}

// Force asks a direction (0 request, 1 response) onto a path, whatever the rule
// says; it goes there when that can be done, or stays where it is. For tests,
// the self-test among them. On the worker.
func (p *Pair) Force(direction int, to api.Path) {
	if d := &p.direction[direction]; !p.closed && d.gate == gateOpen {
		switch to {
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
