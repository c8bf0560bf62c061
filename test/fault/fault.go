// Package fault is a middlebox between two network namespaces that treats
// packets as bad networks do: it loses, delays, reorders and repeats them, and
// sends TCP payload again in other cuts than the sender made, so that a segment
// begins with bytes that were delivered and goes on with new ones. What happens
// to the nth packet of a direction follows from the seed.
//
// It joins the namespaces by two TUN devices whose other ends it holds; no
// packet goes by without it.
package fault

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/test/netns"
)

// Plan says what happens. The chances are those of one packet, 0 to 1.
type Plan struct {
	// Loss spares RSTs.
	Loss, Duplicate, Reorder float64
	// Overlap is the chance that a segment is sent with bytes of the one before
	// in front.
	Overlap float64
	// Delay is what every packet waits, Jitter what it may wait besides, in
	// order. A reordered packet waits Late more, and others pass it.
	Delay, Jitter, Late time.Duration
	// Ethernet has the devices carry Ethernet frames (TAP), else bare packets.
	Ethernet bool
}

// Counts are the packets so far, of both directions.
type Counts struct{ Packets, Lost, Duplicated, Reordered, Overlapped, Oversized uint64 }

// Box is a running middlebox.
type Box struct {
	mtu  int
	tuns [2]*os.File
	wg   sync.WaitGroup
	halt chan struct{}

	packets, lost, duplicated, reordered, overlapped, oversized atomic.Uint64
}

// Join joins two namespaces by a box. The ends name the devices to make.
func Join(a, b netns.End, mtu int, plan Plan, seed uint64) (_ *Box, err error) {
	box := &Box{mtu: mtu, halt: make(chan struct{})}
	defer func() {
		if err != nil {
			box.Close()
		}
	}()
	for i, e := range []netns.End{a, b} {
		if box.tuns[i], err = tun(e, plan.Ethernet); err != nil {
			return nil, err
		}
		if err := e.Configure(mtu); err != nil {
			return nil, err
		}
	}
	for i := range box.tuns {
		l := &lane{box: box, plan: plan, random: rand.New(rand.NewPCG(seed, uint64(i))),
			from: box.tuns[i], to: box.tuns[1-i], flows: flows{}, late: make(chan delayed, 4096)}
		box.wg.Go(l.read)
		box.wg.Go(l.write)
	}
	return box, nil
}

// Counts reads the counters.
func (b *Box) Counts() Counts {
	return Counts{b.packets.Load(), b.lost.Load(), b.duplicated.Load(), b.reordered.Load(), b.overlapped.Load(), b.oversized.Load()}
}

// Close takes the devices away and waits for the box's end.
func (b *Box) Close() error {
	close(b.halt)
	var errs []error
	for _, f := range b.tuns {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	b.wg.Wait()
	return errors.Join(errs...)
}

// lane carries the packets of one direction.
type lane struct {
	box      *Box
	plan     Plan
	random   *rand.Rand
	from, to *os.File
	flows    flows
	late     chan delayed
	last     time.Time // when the last packet in order is due
}

type delayed struct {
	due    time.Time
	packet []byte
}

func (l *lane) chance(p float64) bool { return l.random.Float64() < p }

func (l *lane) read() {
	defer close(l.late)
	buf := make([]byte, 64<<10)
	for {
		n, err := l.from.Read(buf)
		if err != nil {
			return
		}
		if !l.plan.Ethernet {
			l.treat(nil, buf[:n])
		} else if n >= frameHeader {
			l.treat(append([]byte(nil), buf[:frameHeader]...), buf[frameHeader:n])
		}
	}
}

// frameHeader is the length of Ethernet's.
const frameHeader = 14

// treat decides about one packet, which has a frame's header before it. Each decision is drawn whether it matters or
// not, so that what happens to the nth depends on the seed alone.
func (l *lane) treat(frame, packet []byte) {
	l.box.packets.Add(1)
	lose, twice, late, overlap := l.chance(l.plan.Loss), l.chance(l.plan.Duplicate), l.chance(l.plan.Reorder), l.chance(l.plan.Overlap)
	jitter := time.Duration(0)
	if j := l.random.Int64N(int64(l.plan.Jitter) + 1); l.plan.Jitter > 0 {
		jitter = time.Duration(j)
	}
	back := 1 + l.random.IntN(maxOverlap)

	packets := [][]byte{append([]byte(nil), packet...)}
	if s, ok := parse(packets[0]); ok {
		// Nobody sends an RST again: a peer that only waits would do so for ever,
		// on any path.
		lose = lose && s.flags()&flagRST == 0
		if len(packets[0]) > l.box.mtu {
			l.box.oversized.Add(1) // segmentation offload got through: the plan is not kept
		}
		if again := l.flows.remember(s, overlap, back, l.box.mtu); again != nil {
			packets = again
			l.box.overlapped.Add(1)
		}
	}
	if lose {
		l.box.lost.Add(1)
		return
	}
	due := time.Now().Add(l.plan.Delay + jitter)
	if late {
		l.box.reordered.Add(1)
		due = due.Add(l.plan.Late)
	} else if due.Before(l.last) {
		due = l.last
	} else {
		l.last = due
	}
	if twice {
		l.box.duplicated.Add(1)
		packets = append(packets, packets...)
	}
	for _, p := range packets {
		select {
		case l.late <- delayed{due, append(frame[:len(frame):len(frame)], p...)}:
		case <-l.box.halt:
			return
		}
	}
}

// write sends each packet when it is due.
func (l *lane) write() {
	var q queue
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		for now := time.Now(); q.len() > 0 && !q.first().due.After(now); {
			// A full or vanished device loses the packet, as devices do.
			_, _ = l.to.Write(q.take().packet)
		}
		wait := time.Hour
		if q.len() > 0 {
			wait = time.Until(q.first().due)
		}
		timer.Reset(wait)
		select {
		case d, ok := <-l.late:
			if !ok {
				return
			}
			q.put(d)
		case <-timer.C:
		case <-l.box.halt:
			return
		}
	}
}

func (p Plan) String() string {
	return fmt.Sprintf("loss %g duplicate %g reorder %g overlap %g delay %v+%v", p.Loss, p.Duplicate, p.Reorder, p.Overlap, p.Delay, p.Jitter)
}
