package upstream

import (
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/loop"
)

// headStart is what an attempt has before the next address is tried beside it
// (Envoy's HappyEyeballsConnectionImpl).
const headStart = 300 * time.Millisecond

// race tries the addresses of one host one after the other, without waiting for
// the slow ones: RFC 8305. The first connection that stands is the host's.
type race struct {
	parent *Dial
	left   []netip.AddrPort
	way    *Way
	runs   []*Dial
	timer  loop.Timer
	again  func() // called before every attempt but the first
}

// newRace starts a connection to one of several addresses.
func newRace(w *loop.Worker, to []netip.AddrPort, way *Way, timeout time.Duration, again func(), done func(fd int, err error)) *Dial {
	d := &Dial{worker: w, fd: -1, done: done}
	d.race = &race{parent: d, left: to, way: way, again: again}
	d.race.timer.F = d.race.next
	d.timer.F = func() { d.end(ErrConnectTimeout) }
	w.After(&d.timer, timeout)
	d.race.start()
	return d
}

// next starts another attempt.
func (r *race) next() {
	r.again()
	r.start()
}

func (r *race) start() {
	to := r.left[0]
	r.left = r.left[1:]
	var run *Dial
	run = newDial(r.parent.worker, to, r.way, 0, func(fd int, err error) { r.ran(run, fd, err) })
	r.runs = append(r.runs, run)
	if len(r.left) > 0 {
		r.parent.worker.After(&r.timer, headStart)
	}
}

func (r *race) ran(run *Dial, fd int, err error) {
	d := r.parent
	r.runs = slices.DeleteFunc(r.runs, func(o *Dial) bool { return o == run })
	if err == nil {
		d.race = nil
		r.cancel()
		d.worker.Stop(&d.timer)
		d.fd, d.seen = fd, run.seen
		d.done(fd, nil)
		return
	}
	switch {
	case len(r.left) > 0:
		d.worker.Stop(&r.timer)
		r.next()
	case len(r.runs) == 0:
		d.end(err)
	}
}

func (r *race) cancel() {
	r.parent.worker.Stop(&r.timer)
	for _, run := range r.runs {
		run.Cancel()
	}
	r.runs = nil
}

// interleaved orders addresses: so many of the first family, one of the other,
// and so on; each family keeps its order (HappyEyeballsConnectionProvider).
func interleaved(h api.HappyEyeballs, own netip.AddrPort, more []netip.AddrPort) []netip.AddrPort {
	four := own.Addr().Is4()
	switch h.First {
	case api.IPv4:
		four = true
	case api.IPv6:
		four = false
	}
	var first, other []netip.AddrPort
	for _, a := range append([]netip.AddrPort{own}, more...) {
		if a.Addr().Is4() == four {
			first = append(first, a)
		} else {
			other = append(other, a)
		}
	}
	count := max(int(h.Count), 1)
	var out []netip.AddrPort
	for len(first)+len(other) > 0 {
		n := min(count, len(first))
		out = append(out, first[:n]...)
		first = first[n:]
		if len(other) > 0 {
			out = append(out, other[0])
			other = other[1:]
		}
	}
	return out
}
