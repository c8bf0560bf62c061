package pair

import (
	"github.com/sluice-proxy/sluice/api"
	"golang.org/x/sys/unix"
)

// relayRounds is how often one direction may read before others get their turn.
const relayRounds = 4

// tlsRead bounds the turn of a direction whose bytes are encrypted or decrypted:
// at about a microsecond for each KiB and side.
const tlsRead = 64 << 10

// pumpRelay reads from the source and writes to the destination until the
// source is empty or the destination is full.
func (d *direction) pumpRelay() {
	p := d.p
	if !d.flush() {
		return
	}
	if d.path == api.PathPipe && !d.src().failed {
		d.pumpPipe()
		return
	}
	buf, rounds := p.set.worker.Buffer()[:p.set.readSize(p.cfg.Limit)], relayRounds
	if d.path == api.PathTLS {
		buf, rounds = buf[:min(len(buf), tlsRead)], 1
	}
	for range rounds {
		n, err := d.src().recv(buf)
		switch {
		case err == unix.EAGAIN:
			if d.src().failed {
				d.finish()
				return
			}
			d.emptied = true
			d.choose(true)
			return
		case err != 0 && !d.src().failed:
			p.fail(d.src(), true) // errors come after the bytes
			return
		case n == 0:
			d.src().fin = true
			d.finish()
			return
		}
		p.active = p.set.worker.Now()
		d.plain += uint64(n)
		p.set.RelayedBytes.Add(uint64(n))
		d.traffic.saw(n, p.active)
		if !d.give(buf[:n]) {
			return
		}
		if n < len(buf) && !d.src().fin && d.src().transport() == nil {
			// A short read has emptied the queue: asking again would only say so.
			d.emptied = true
			d.choose(true)
			return
		}
	}
	d.yield()
}

// yield ends a turn that could go on, for fairness: the rest comes with the next
// event, or, if the source is not watched any more, with the next poll.
func (d *direction) yield() {
	if d.src().transport() != nil { // which may have read all that the socket had
		d.pumpNext()
		return
	}
	d.choose(false)
	if !d.src().watched && !d.p.closed {
		d.backoff = 0
		d.pollSoon()
	}
}

// pumpNext has the direction pumped in the next round of events, whatever they are.
func (d *direction) pumpNext() {
	if !d.p.closed {
		d.due = d.p.set.worker.Now() + 1
		d.p.arm()
	}
}

// holds tells whether user space, or a pipe, has bytes that the destination's
// TCP has not: then nothing more may be read, and no path changed.
func (d *direction) holds() bool {
	return d.pending != nil || d.pipe != nil || d.dst().keeps()
}

// flush writes what the direction holds; false says that some is left.
func (d *direction) flush() bool {
	if d.pipe != nil {
		return d.empty()
	}
	return (d.pending == nil || d.give(nil)) && d.dst().flush()
}

// give writes what is pending and then b. What the destination does not take is
// kept, and false returned: nothing more may be read until it is gone. False
// also says that the destination broke.
func (d *direction) give(b []byte) bool {
	for d.pending != nil {
		d.dst().hurry(true)
		n, err := d.dst().send(d.pending.left)
		if err == unix.EAGAIN {
			return false
		}
		if err != 0 {
			d.p.fail(d.dst(), false)
			return false
		}
		if d.pending.left = d.pending.left[n:]; len(d.pending.left) == 0 {
			d.release()
		}
	}
	for len(b) > 0 {
		d.dst().hurry(true)
		n, err := d.dst().send(b)
		if err == unix.EAGAIN {
			d.pending = d.p.set.buffers.get(len(b))
			d.pending.left = d.pending.whole[:copy(d.pending.whole, b)]
			return false
		}
		if err != 0 {
			d.p.fail(d.dst(), false)
			return false
		}
		b = b[n:]
	}
	return true
}

// release gives the pending buffer back, with what is in it.
func (d *direction) release() {
	if d.pending != nil {
		d.p.set.buffers.put(d.pending)
		d.pending = nil
	}
	if d.pipe != nil {
		d.p.set.pipes.discard(d.pipe)
		d.pipe = nil
	}
}
