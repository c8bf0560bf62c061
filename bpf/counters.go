package bpf

import "fmt"

// exitNames are the ends of the verdict as metrics and docs call them.
var exitNames = [...]string{
	spliceExitEXIT_REDIRECTED: "redirected",
	spliceExitEXIT_EMPTY:      "empty",
	spliceExitEXIT_UNKNOWN:    "unknown",
	spliceExitEXIT_NO_SLOT:    "no_slot",
	spliceExitEXIT_DUPLICATE:  "duplicate",
	spliceExitEXIT_GAP:        "gap",
	spliceExitEXIT_UNTRIMMED:  "untrimmed",
	spliceExitEXIT_NO_SEQ:     "no_seq",
	spliceExitEXIT_NO_TARGET:  "no_target",
	spliceExitEXIT_FULL:       "full",
	spliceExitEXIT_REFUSED:    "refused",
	spliceExitEXIT_BROKEN:     "broken",
}

var eventNames = [...]string{
	spliceEventEVENT_TRIMMED:     "trimmed",
	spliceEventEVENT_OVERFLOW:    "overflow",
	spliceEventEVENT_BUDGET:      "budget",
	spliceEventEVENT_WOKEN:       "woken",
	spliceEventEVENT_WAKE_LOST:   "wake_lost",
	spliceEventEVENT_ARMED:       "armed",
	spliceEventEVENT_LEFT:        "left",
	spliceEventEVENT_LEAVE_LATER: "leave_later",
}

// Counters reads how often the verdict ended in each way (`exit.redirected`, …)
// and what happened on the way (`event.trimmed`, …), summed over the CPUs.
func (s *Splice) Counters() (map[string]uint64, error) {
	out := make(map[string]uint64, len(exitNames)+len(eventNames))
	read := func(prefix string, names []string, lookup func(i uint32, v *[]uint64) error) error {
		for i, name := range names {
			if name == "" {
				continue // EXIT_NONE
			}
			var perCPU []uint64
			if err := lookup(uint32(i), &perCPU); err != nil {
				return fmt.Errorf("read counter %s.%s: %w", prefix, name, err)
			}
			for _, n := range perCPU {
				out[prefix+"."+name] += n
			}
		}
		return nil
	}
	if err := read("exit", exitNames[:], func(i uint32, v *[]uint64) error { return s.objects.Exits.Lookup(i, v) }); err != nil {
		return nil, err
	}
	if err := read("event", eventNames[:], func(i uint32, v *[]uint64) error { return s.objects.Events.Lookup(i, v) }); err != nil {
		return nil, err
	}
	return out, nil
}

// Sizes counts what the maps hold now: after the last pair has ended all are 0.
// For tests and metrics; it walks the maps.
func (s *Splice) Sizes() (intercepted, targets, slots int) {
	var key, value uint64
	for it := s.objects.Intercepted.Iterate(); it.Next(&key, &value); {
		intercepted++
	}
	for it := s.objects.Targets.Iterate(); it.Next(&key, &value); {
		targets++
	}
	var slot uint32
	for it := s.objects.Slots.Iterate(); it.Next(&key, &slot); {
		slots++
	}
	return intercepted, targets, slots
}
