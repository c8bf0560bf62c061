package pair

import (
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"golang.org/x/sys/unix"
)

const (
	// spliceRounds bounds the reads of one overflow episode in one go.
	spliceRounds = 64
	// rescuePeriod is how often a pair that owes something is looked at
	// although nothing woke it.
	rescuePeriod = 100 * time.Millisecond
)

// splice is the kernel side of a direction. The zero value has none.
type splice struct {
	slot *bpf.Slot
	// base is the destination's enqueued count when redirected and written
	// were 0.
	base uint64
	// since when something is owed without progress, and the progress then.
	stalled  int64
	progress uint64
	// what the last scan saw.
	seen scanned
	// owned: the destination has taken in everything redirected, and the
	// verdict redirects nothing more until we have written all that it passed.
	// Valid only while passed != written has held without a break.
	owned bool
	// leaving: the way back to user space was asked for, by the path to.
	leaving bool
	to      api.Path
	// barred: the kernel refused this direction once.
	barred bool
	// barredPipe: splice(2) did.
	barredPipe bool
}

// pumpSplice does what is left to user space while the verdict has the
// direction: it writes what was passed, ends the stream, or takes the direction
// back.
func (d *direction) pumpSplice() {
	p := d.p
	for round := 0; !p.closed && !d.done; {
		if d.slot.Broken() {
			p.fault(d, "bytes are missing before a segment")
			return
		}
		if d.pending != nil && !d.give(nil) {
			return
		}
		if !d.src.fin && !d.leaving && d.slot.Passed() == d.slot.Written() {
			d.rest()
			return
		}
		if !d.owned {
			// The probe takes the source's lock: what arrived is counted now.
			if !d.probe() {
				return
			}
			if !d.src.fin && !d.leaving && d.slot.Passed() == d.slot.Written() {
				continue
			}
			if !d.drained() {
				d.awaitDrain()
				return
			}
			d.owned = true
			d.awaiting = false
			d.slot.Settle()
			p.set.Episodes.Add(1)
		}
		if round++; round > spliceRounds {
			d.reading = d.src.watched && !d.src.fin
			if !d.reading || d.leaving {
				d.backoff = 0
				d.pollSoon()
			}
			return
		}
		n, err := recv(d.src.fd, p.set.worker.Buffer()[:p.set.readSize(p.cfg.Limit)], 0)
		if n > 0 {
			p.active = p.set.worker.Now()
			d.stalled = 0
			if !d.give(p.set.worker.Buffer()[:n]) {
				return
			}
			continue
		}
		if err != 0 && err != unix.EAGAIN && !d.src.failed {
			p.fail(d.src, false)
			return
		}
		// Neither EAGAIN nor 0 means that nothing was passed: it may wait in
		// the source's queue behind the backlog of the other direction.
		if d.slot.Passed() != d.slot.Written() {
			d.reading = d.src.watched && !d.src.fin
			d.rescue()
			return
		}
		if d.src.fin {
			if !d.drained() {
				d.awaitDrain()
				return
			}
			d.finish()
			return
		}
		if d.leaving {
			if d.restore() {
				d.pumpRelay()
				return
			}
			continue
		}
		d.rest()
		return
	}
}

// accepted books n bytes that the destination took from user space.
func (d *direction) accepted(n int) {
	if d.path != api.PathSplice {
		return
	}
	// Read after the send and before the add: if we have caught up, the
	// verdict may redirect from the add on, and the destination is ours no more.
	passed := d.slot.Passed()
	d.slot.AddWritten(n)
	if d.slot.Written() >= passed {
		d.owned = false
	}
}

// rest leaves the direction to the verdict alone.
func (d *direction) rest() {
	d.reading, d.awaiting, d.owned = false, false, false
	d.stalled, d.backoff = 0, 0
}

// probe takes the source's socket lock once, so that a verdict that was running
// has ended, and the queue is looked at. sk_err is told only once, so an error
// counts here as anywhere.
func (d *direction) probe() bool {
	var b [1]byte
	if _, err := recv(d.src.fd, b[:], unix.MSG_PEEK); err != 0 && err != unix.EAGAIN && !d.src.failed {
		d.p.fail(d.src, false)
		return false
	}
	return true
}

// kick has the kernel run the verdict over what is queued on the source.
// SO_RCVLOWAT first: a recv reads copied_seq before it kicks.
func (d *direction) kick() bool {
	setsockopt(d.src.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1)
	return d.probe()
}

// awaitDrain waits for the kernel's worker to put the backlog into the
// destination's TCP: by short polls while that goes, by EPOLLOUT when the
// destination is full.
func (d *direction) awaitDrain() {
	d.reading = false
	if d.backoff >= 3*time.Millisecond {
		d.awaiting = true
	}
	d.rescue()
}

// rescue polls the pair until it owes nothing, and resets it when a destination
// that would take bytes gets none for too long: some wake-up was lost.
func (d *direction) rescue() {
	p, now := d.p, d.p.set.worker.Now()
	sum, _ := p.set.enqueued(d.dst.fd)
	progress := sum + d.slot.Written() + d.slot.Redirected() + d.slot.Passed()
	full := p.set.queued > 0 // its peer is slow, or gone: TCP's own timers see to that
	if d.stalled == 0 || progress != d.progress || full {
		d.stalled, d.progress = now, progress
	} else if now-d.stalled > int64(p.set.stuckAfter) {
		p.set.Stuck.Add(1)
		p.fault(d, "no progress")
		return
	}
	if d.backoff >= rescuePeriod {
		p.set.Rescues.Add(1)
		if !d.kick() {
			return
		}
	}
	d.pollSoon()
}

// balanced checks the ledger at an end; a difference resets the pair.
func (d *direction) balanced(finRead bool) bool {
	missing, ok := d.balance(finRead)
	if d.p.closed {
		return false
	}
	if ok && missing == 0 {
		return true
	}
	if missing > 0 && d.path == api.PathSplice && d.backoff < rescuePeriod {
		// Bytes may wait in the receive queue for a verdict that nobody ran.
		if d.kick() {
			d.pollSoon()
		}
		return false
	}
	d.p.fault(d, "ledger does not balance")
	return false
}

// fault resets a pair whose bytes do not add up.
func (p *Pair) fault(d *direction, why string) {
	p.set.Faults.Add(1)
	missing, _, _ := d.compare(d.src.fin)
	of := []any{"reason", why, "direction", directionNames[d.src.side], "missing", missing, "relayed", d.plain - d.piped, "piped", d.piped}
	if d.slot != nil {
		of = append(of, "redirected", d.slot.Redirected(), "passed", d.slot.Passed(), "written", d.slot.Written())
	}
	p.set.log.Error("reset pair", of...)
	p.close(Fault, true)
}

var directionNames = [2]string{"request", "response"}
