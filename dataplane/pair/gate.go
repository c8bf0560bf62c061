package pair

// gate holds the request direction until the filters of its chain have seen what
// they have to see. The zero value is open.
type gate uint8

const (
	gateOpen gate = iota
	gateShut      // ask before the next read
	gateHeld      // asked: Open is called, or the pair is ended
)

// ask has the filters decide about bytes that wait, or about the end. True lets
// the caller read.
func (d *direction) ask() bool {
	p := d.p
	switch {
	case d.gate == gateOpen:
		return true
	case d.src().failed:
		// What came before the RST was never let through.
		p.close(p.broken, true)
		return false
	case d.gate == gateHeld:
		return false
	}
	end, come := d.arrived()
	if !come {
		return false
	}
	ok := p.cfg.Gate(end)
	switch {
	case p.closed:
	case !ok:
		d.gate, d.reading = gateHeld, false
	case !p.cfg.EveryRead:
		d.opened()
	}
	return ok && !p.closed
}

// Open lets the request direction go on after Gate said false. On the worker.
func (p *Pair) Open() {
	d := &p.direction[0]
	if p.closed || d.done || d.gate != gateHeld {
		return
	}
	d.reading = true
	d.gate = gateShut
	if !p.cfg.EveryRead {
		d.opened()
		d.pump()
	} else if d.pumpRelay(); d.src().failed && !p.closed {
		d.finish()
	}
	p.watch()
}

func (d *direction) opened() {
	d.gate = gateOpen
	d.reason = d.p.startReason()
	if d.p.set.mode == Always {
		d.promote(reasonAlways)
	}
}
