package pair

// reason is why a direction is on its path, as /connections shows it.
type reason uint8

const (
	reasonNew reason = iota
	reasonOff
	reasonUnavailable // the set has the words
	reasonFilter
	reasonAlways
	reasonChatty
	reasonBulk
	reasonSmall
	reasonCrowd
	reasonSlow
	reasonNoPipe
	reasonMemory
	reasonHalfClosed
	reasonInsert
	reasonNoSlot
	reasonAsked
	reasonUnix
	reasonTLS
	reasonGraft
)

var reasons = [...]string{
	reasonNew:        "few messages so far",
	reasonOff:        "operator: splice off",
	reasonFilter:     "a filter must see its bytes",
	reasonAlways:     "operator: splice always",
	reasonChatty:     "conversation",
	reasonBulk:       "bulk",
	reasonSmall:      "small pieces",
	reasonSlow:       "its destination is slow",
	reasonCrowd:      "one of many busy conversations",
	reasonNoPipe:     "no pipe to be had",
	reasonMemory:     "TCP is short of memory",
	reasonHalfClosed: "half-closed",
	reasonInsert:     "kernel refused the socket",
	reasonNoSlot:     "splice maps are full",
	reasonAsked:      "asked for",
	reasonUnix:       "unix",
	reasonTLS:        "TLS",
	reasonGraft:      "both sides speak one TCP",
}

// say puts a reason into words.
func (s *Set) say(r reason) string {
	if r == reasonUnavailable {
		return s.unavailable
	}
	return reasons[r]
}

// stays says that the pair never leaves user space.
func (p *Pair) stays() bool { return p.cfg.Unix || p.cfg.Moved != nil || p.secured() }

// startReason is that of a direction that has not moved anything yet.
func (p *Pair) startReason() reason {
	s := p.set
	switch {
	case p.secured():
		return reasonTLS
	case p.cfg.Unix:
		return reasonUnix
	case p.cfg.Moved != nil:
		return reasonFilter
	case s.mode == Off:
		return reasonOff
	case s.splice == nil:
		return reasonUnavailable
	}
	return reasonNew
}
