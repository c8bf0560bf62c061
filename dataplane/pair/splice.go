package pair

import (
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"golang.org/x/sys/unix"
)

const (
	// rescuePeriod is how often a pair that owes something is looked at
	// although nothing woke it.
	rescuePeriod = 100 * time.Millisecond
	// reach is what a backlog may grow by beyond its limit while the worker is
	// on its way to take the direction back: at the 4 GB/s that a loopback
	// makes, 8 ms. Past it the pair is reset.
	reach = 32 << 20
	// maxBacklog bounds the limit of a backlog: the verdict counts in 32 bits.
	maxBacklog = 1 << 30
)

// splice is the kernel side of a direction. The zero value has none.
type splice struct {
	slot bpf.Slot
	// base is the destination's enqueued count when redirected was 0.
	base uint64
	// since when something is owed without progress, and the progress then.
	stalled  int64
	progress uint64
	// what the last scan saw.
	seen scanned
	// leaving: the verdict is to go, or has gone, to go on by the path to. What
	// it redirected has to drain first.
	leaving bool
	to      api.Path
	// barred: the kernel refused this direction once.
	barred bool
	// barredPipe: splice(2) did.
	barredPipe bool
	// counted among the busy conversations, as a spliced one.
	counted bool
}

// pumpSplice does what is left to user space while the verdict has the
// direction: it takes the direction back, and ends the stream.
func (d *direction) pumpSplice() {
	p := d.p
	if why, broken := d.slot.Broken(); broken {
		p.fault(d, why)
		return
	}
	switch {
	case d.leaving:
	case d.slot.Overflowed():
		p.set.Overflows.Add(1)
		to := api.PathRelay
		if d.slot.Redirected() > uint64(d.slot.Segments())*maxMeanMessage {
			to = api.PathPipe
		}
		d.leave(to, reasonSlow)
	case !d.src().fin:
		d.rest()
		return
	// The probe takes the source's lock: what came before a FIN is counted now.
	case !d.probe():
		return
	}
	if d.leaving && !d.released() {
		return
	}
	if !d.drained() {
		d.awaitDrain()
		return
	}
	d.slot.Settle()
	if !d.leaving {
		d.finish()
	} else if d.settled() {
		d.left()
		d.pumpRelay()
	}
}

// rest leaves the direction to the verdict alone.
func (d *direction) rest() {
	d.reading, d.awaiting = false, false
	d.stalled, d.backoff = 0, 0
}

// probe takes the source's socket lock once, so that a verdict that was running
// has ended, and the queue is looked at. sk_err is told only once, so an error
// counts here as anywhere.
func (d *direction) probe() bool {
	var b [1]byte
	if _, err := recv(d.src().fd, b[:], unix.MSG_PEEK); err != 0 && err != unix.EAGAIN && !d.src().failed {
		d.p.fail(d.src(), false)
		return false
	}
	return true
}

// kick has the kernel run the verdict over what is queued on the source.
// SO_RCVLOWAT first: a recv reads copied_seq before it kicks.
func (d *direction) kick() bool {
	setsockopt(d.src().fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1)
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
	sum, ok := p.set.enqueued(d.dst().fd)
	if ok && p.set.info.State == tcpClose && !d.dst().failed {
		p.fail(d.dst(), false)
		return
	}
	progress := sum + d.slot.Redirected()
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
	missing, _, _ := d.compare(d.src().fin)
	of := []any{"reason", why, "direction", directionNames[d.src().side], "missing", missing, "relayed", d.plain - d.piped, "piped", d.piped}
	if d.slot.Taken() {
		of = append(of, "redirected", d.slot.Redirected(), "backlog", d.slot.MaxBacklog())
	}
	p.set.log.Error("reset pair", of...)
	p.close(Fault, true)
}

var directionNames = [2]string{"request", "response"}
