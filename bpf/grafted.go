package bpf

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
)

// graftLinger is how long packets of a pair that has ended are still translated:
// as long as TCP itself lets an end rest (TIME_WAIT), for a lost last
// acknowledgement is sent again.
const graftLinger = 60 * time.Second

// GraftState is what a graft is in.
type GraftState uint32

// The states, as the programs have them.
const (
	GraftOff     = GraftState(graftStateSTATE_OFF)
	GraftDrain   = GraftState(graftStateSTATE_DRAIN)
	GraftActive  = GraftState(graftStateSTATE_ACTIVE)
	GraftParting = GraftState(graftStateSTATE_PARTING)
	GraftClosed  = GraftState(graftStateSTATE_CLOSED)
	GraftReset   = GraftState(graftStateSTATE_RESET)
	GraftEnded   = GraftState(graftStateSTATE_ENDED)
	GraftBack    = GraftState(graftStateSTATE_BACK)
	GraftParted  = GraftState(graftStateSTATE_PARTED)
)

// Grafted is one pair in the kernel. It is a small value; methods that write are
// for the worker that owns the pair.
type Grafted struct {
	owner      *Graft
	slot       uint32
	generation uint32
	grace      uint64
}

// Taken says that there is a graft: the zero value is none.
func (p *Grafted) Taken() bool { return p.owner != nil }

// Index and Generation name the graft in an event.
func (p *Grafted) Index() uint32      { return p.slot }
func (p *Grafted) Generation() uint32 { return p.generation }

func (p *Grafted) words() *graftGraft { return p.owner.graft(p.slot) }

func (p *Grafted) state() *uint32 { return (*uint32)(&p.words().State) }

// State is what the graft is in now.
func (p *Grafted) State() GraftState { return GraftState(atomic.LoadUint32(p.state())) }

// Settled says that no CPU is still giving the pair's sockets a packet that came
// before the graft. What they hold now is all that they will ever hold.
func (p *Grafted) Settled() bool { return p.owner.grace.over(p.grace) }

// Activate says that the sockets hold nothing. They say nothing any more either.
func (p *Grafted) Activate() bool {
	return atomic.CompareAndSwapUint32(p.state(), uint32(GraftDrain), uint32(GraftActive))
}

// Drain takes Activate back: something arrived at a socket after all.
func (p *Grafted) Drain() bool {
	p.grace = p.owner.grace.begin()
	return atomic.CompareAndSwapUint32(p.state(), uint32(GraftActive), uint32(GraftDrain))
}

// Back says that both ends of the stream came to the sockets while they drained,
// and with them every byte: packets are theirs again.
func (p *Grafted) Back() {
	atomic.CompareAndSwapUint32(p.state(), uint32(GraftDrain), uint32(GraftBack))
}

// Close says that both ends were acknowledged: the sockets may be closed, and
// their RSTs are swallowed.
func (p *Grafted) Close() { p.leave(GraftClosed) }

// End says that the sockets are being closed by RST. These reach both sides, and
// the kernel answers what still comes.
func (p *Grafted) End() { p.leave(GraftEnded) }

func (p *Grafted) leave(to GraftState) {
	for _, from := range []GraftState{GraftActive, GraftDrain, GraftParting} {
		if atomic.CompareAndSwapUint32(p.state(), uint32(from), uint32(to)) {
			return
		}
	}
}

// Bytes are the bytes of a direction (0 request, 1 response) that came since the
// graft, by their positions: those that the sockets held at that moment count too.
func (p *Grafted) Bytes(direction int) uint64 {
	return atomic.LoadUint64(&p.words().Way[direction].Bytes)
}

// Packets are those of a direction that were translated.
func (p *Grafted) Packets(direction int) uint64 {
	return atomic.LoadUint64(&p.words().Way[direction].Packets)
}

// Last is when the last new byte came either way, in nanoseconds of
// CLOCK_MONOTONIC, exact to a tick; 0 if none came.
func (p *Grafted) Last() int64 {
	w := &p.words().Way
	return int64(max(atomic.LoadUint64(&w[0].Last), atomic.LoadUint64(&w[1].Last)))
}

// Finished says that a FIN of the direction was acknowledged, or at least passed.
func (p *Grafted) Finished(direction int) (passed, acknowledged bool) {
	f := graftFin(atomic.LoadUint32((*uint32)(&p.words().Way[direction].Fin)))
	return f != graftFinFIN_NONE, f == graftFinFIN_ACKED
}

// First is the direction whose FIN came first, -1 if none came.
func (p *Grafted) First() int { return int(atomic.LoadUint32(&p.words().First)) - 1 }

// ResetBy is the direction whose source reset a pair in GraftReset.
func (p *Grafted) ResetBy() int { return int(atomic.LoadUint32(&p.words().ResetBy)) & 1 }

// String is all that the programs know of the pair, for whoever looks into a fault.
func (p *Grafted) String() string {
	if !p.Taken() {
		return "no graft"
	}
	w := p.words()
	s := fmt.Sprintf("slot %d generation %d (of %d) state %d settled %v first %d reset by %d copies %d devices %v",
		p.slot, p.generation, w.Generation, p.State(), p.Settled(), w.First, w.ResetBy, w.Copies, w.Devices)
	for i := range w.Way {
		d := &w.Way[i]
		s += fmt.Sprintf("\n    way %d: seq %+d time %+d device %d scale %d shift %d; bytes %d packets %d high %d acked %d (of the other, %d) edge %d (%+d from high) window %d time %d fin %d at %d last %d",
			i, d.Seq, d.Time, d.Device, d.Scale, d.Shift, atomic.LoadUint64(&d.Bytes), atomic.LoadUint64(&d.Packets), d.High, d.Acked,
			d.Acked-w.Way[1-i].Seq, d.Edge, int32(d.Edge-d.High), d.Window, d.TimeHigh, d.Fin, d.FinEnd, d.Last)
	}
	return s
}

// Rest gives the graft back when the sockets are closed. Its packets are handled
// as before until the linger time is over.
func (p *Grafted) Rest() {
	g := p.owner
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	if p.State() == GraftOff { // the addresses are somebody else's already
		g.forgetLocked(p.slot, now)
		return
	}
	g.resting.put(p.slot, p.generation, now)
}

// Reused is called when an event tells that the addresses of a graft that rests
// have a new connection.
func (g *Graft) Reused(slot, generation uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.resting.remove(slot, generation) {
		g.forgetLocked(slot, time.Now())
	}
}

// sweepLocked ends the rest of what has rested for long enough, and of the oldest
// where there are too many.
func (g *Graft) sweepLocked(now time.Time) {
	most := int(g.objects.Grafts.MaxEntries()) / 2
	for {
		slot, ok := g.resting.take(now.Add(-g.linger), most)
		if !ok {
			return
		}
		g.forgetLocked(slot, now)
	}
}

// forgetLocked has packets pass again, and frees the slot.
func (g *Graft) forgetLocked(slot uint32, now time.Time) {
	w := g.graft(slot)
	atomic.StoreUint32((*uint32)(&w.State), uint32(GraftOff))
	for i := range w.Key {
		k := w.Key[i]
		turned := k.turned()
		for _, key := range []*graftTuple{&k, &turned} {
			// A key that is not there was not ours to begin with.
			_ = g.objects.Places.Delete(key)
		}
	}
	g.free.put(slot, now)
}

// Sizes counts what the maps hold: addresses, grafts in use, and grafts that rest.
func (g *Graft) Sizes() (places, used, resting int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sweepLocked(time.Now())
	var key graftTuple
	var place graftPlace
	for it := g.objects.Places.Iterate(); it.Next(&key, &place); {
		places++
	}
	resting = g.resting.len()
	return places, int(g.free.fresh) - (len(g.free.rested) - g.free.head) - resting, resting
}

// restQueue is what rests, the oldest first.
type restQueue struct {
	queue []resting
	since map[uint32]uint32 // generation by slot, of those that still rest
}

type resting struct {
	slot, generation uint32
	since            time.Time
}

func (q *restQueue) len() int { return len(q.since) }

func (q *restQueue) put(slot, generation uint32, now time.Time) {
	if q.since == nil {
		q.since = map[uint32]uint32{}
	}
	q.since[slot] = generation
	q.queue = append(q.queue, resting{slot, generation, now})
}

func (q *restQueue) remove(slot, generation uint32) bool {
	if g, ok := q.since[slot]; !ok || g != generation {
		return false
	}
	delete(q.since, slot)
	return true
}

// take returns the oldest if it rests since before, or if more than most rest.
func (q *restQueue) take(before time.Time, most int) (slot uint32, ok bool) {
	for len(q.queue) > 0 {
		r := q.queue[0]
		if g, still := q.since[r.slot]; !still || g != r.generation {
			q.queue = q.queue[1:]
			continue
		}
		if !r.since.Before(before) && len(q.since) <= most {
			return 0, false
		}
		q.queue = q.queue[1:]
		delete(q.since, r.slot)
		return r.slot, true
	}
	q.queue = nil
	return 0, false
}

// Counters reads how packets came to their ends (`passage.local`, …), what
// happened on the way (`incident.options`, …), what Join was told (`refusal.mss`, …),
// and what Parted was (`parting.done`, …), summed over the CPUs.
func (g *Graft) Counters() (map[string]uint64, error) {
	out := map[string]uint64{}
	for _, group := range []struct {
		prefix string
		names  []string
		m      *ebpf.Map
	}{
		{"passage.", passageNames[:], g.objects.Passages},
		{"incident.", incidentNames[:], g.objects.Incidents},
		{"refusal.", refusalNames[:], g.joining.Refusals},
		{"parting.", partingNames[:], g.parting.Partings},
	} {
		for i, name := range group.names {
			var perCPU []uint64
			if err := group.m.Lookup(uint32(i), &perCPU); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return nil, fmt.Errorf("read counter %s%s: %w", group.prefix, name, err)
			}
			for _, n := range perCPU {
				out[group.prefix+name] += n
			}
		}
	}
	return out, nil
}

var passageNames = [graftPassagePASSAGE_MAX]string{
	graftPassagePASSAGE_OTHER:      "other",
	graftPassagePASSAGE_MALFORMED:  "malformed",
	graftPassagePASSAGE_MARKED:     "marked",
	graftPassagePASSAGE_OFF:        "off",
	graftPassagePASSAGE_ENDED:      "ended",
	graftPassagePASSAGE_BACK:       "back",
	graftPassagePASSAGE_HELD:       "held",
	graftPassagePASSAGE_PARTED:     "parted",
	graftPassagePASSAGE_REUSED:     "reused",
	graftPassagePASSAGE_LOCAL:      "local",
	graftPassagePASSAGE_LOOPBACK:   "loopback",
	graftPassagePASSAGE_NEIGHBOUR:  "neighbour",
	graftPassagePASSAGE_RESET:      "reset",
	graftPassagePASSAGE_COPIED:     "copied",
	graftPassagePASSAGE_UNCOPIED:   "uncopied",
	graftPassagePASSAGE_OWN:        "own",
	graftPassagePASSAGE_OWN_LIFTED: "own_lifted",
	graftPassagePASSAGE_OWN_RESET:  "own_reset",
	graftPassagePASSAGE_OWN_PARTED: "own_parted",
	graftPassagePASSAGE_OWN_STALE:  "own_stale",
	graftPassagePASSAGE_SHORT:      "short",
}

var incidentNames = [graftIncidentINCIDENT_MAX]string{
	graftIncidentINCIDENT_OPTIONS:   "options",
	graftIncidentINCIDENT_ODD:       "odd_option",
	graftIncidentINCIDENT_FLOOR:     "floor",
	graftIncidentINCIDENT_BEHIND:    "behind",
	graftIncidentINCIDENT_OUTSIDE:   "outside",
	graftIncidentINCIDENT_NARROW:    "narrow",
	graftIncidentINCIDENT_WOKEN:     "woken",
	graftIncidentINCIDENT_WAKE_LOST: "wake_lost",
}

var refusalNames = [joinRefusalREFUSAL_MAX]string{
	joinRefusalREFUSAL_NONE:         "none",
	joinRefusalREFUSAL_REQUEST:      "request",
	joinRefusalREFUSAL_NO_SOCKET:    "no_socket",
	joinRefusalREFUSAL_STATE:        "state",
	joinRefusalREFUSAL_OUT_OF_ORDER: "out_of_order",
	joinRefusalREFUSAL_REPAIR:       "repair",
	joinRefusalREFUSAL_TIMESTAMPS:   "timestamps",
	joinRefusalREFUSAL_TIME_UNIT:    "time_unit",
	joinRefusalREFUSAL_SACK:         "sack",
	joinRefusalREFUSAL_ECN:          "ecn",
	joinRefusalREFUSAL_SIGNED:       "signed",
	joinRefusalREFUSAL_MPTCP:        "mptcp",
	joinRefusalREFUSAL_ULP:          "ulp",
	joinRefusalREFUSAL_URGENT:       "urgent",
	joinRefusalREFUSAL_MSS:          "mss",
	joinRefusalREFUSAL_MTU:          "mtu",
	joinRefusalREFUSAL_NO_ROUTE:     "no_route",
	joinRefusalREFUSAL_ASYMMETRIC:   "asymmetric",
	joinRefusalREFUSAL_BOUND:        "bound",
	joinRefusalREFUSAL_XFRM:         "xfrm",
	joinRefusalREFUSAL_NO_ETHERNET:  "no_ethernet",
	joinRefusalREFUSAL_DEVICE:       "device",
	joinRefusalREFUSAL_LOCAL:        "local",
	joinRefusalREFUSAL_TAKEN:        "taken",
}
