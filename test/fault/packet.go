package fault

import (
	"encoding/binary"
	"net/netip"
)

// maxOverlap is how many bytes of the segments before are sent again at most.
const maxOverlap = 3000

// Flags of TCP (RFC 9293, section 3.1).
const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagPSH = 0x08
)

// segment is a TCP packet taken apart; header is IP's and TCP's together.
type segment struct {
	packet  []byte
	ip      int // length of the IP header
	payload []byte
	flow    flow
}

// flow is one direction of a connection.
type flow struct{ from, to netip.AddrPort }

func (s segment) seq() uint32 { return binary.BigEndian.Uint32(s.packet[s.ip+4:]) }
func (s segment) flags() byte { return s.packet[s.ip+13] }
func (s segment) headers() int {
	return len(s.packet) - len(s.payload)
}

// parse takes a packet apart. False if it is not a whole TCP segment, or one in
// fragments or behind extension headers.
func parse(p []byte) (s segment, ok bool) {
	if len(p) < 20 {
		return s, false
	}
	var from, to netip.Addr
	switch p[0] >> 4 {
	case 4:
		s.ip = int(p[0]&15) * 4
		fragment := binary.BigEndian.Uint16(p[6:]) & 0x3fff
		if p[9] != 6 || fragment != 0 || int(binary.BigEndian.Uint16(p[2:])) != len(p) {
			return s, false
		}
		from, to = netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
	case 6:
		s.ip = 40
		if len(p) < 40 || p[6] != 6 || int(binary.BigEndian.Uint16(p[4:]))+40 != len(p) {
			return s, false
		}
		from, to = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
	default:
		return s, false
	}
	if len(p) < s.ip+20 {
		return s, false
	}
	headers := s.ip + int(p[s.ip+12]>>4)*4
	if headers < s.ip+20 || headers > len(p) {
		return s, false
	}
	s.packet, s.payload = p, p[headers:]
	s.flow = flow{
		netip.AddrPortFrom(from, binary.BigEndian.Uint16(p[s.ip:])),
		netip.AddrPortFrom(to, binary.BigEndian.Uint16(p[s.ip+2:])),
	}
	return s, true
}

// with makes a packet of the segment's headers and another payload.
func (s segment) with(seq uint32, flags byte, payload []byte) []byte {
	h := s.headers()
	p := make([]byte, h+len(payload))
	copy(p, s.packet[:h])
	copy(p[h:], payload)
	if s.ip == 40 {
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
	} else {
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		binary.BigEndian.PutUint16(p[10:], 0)
		binary.BigEndian.PutUint16(p[10:], fold(sum(0, p[:s.ip])))
	}
	t := p[s.ip:]
	binary.BigEndian.PutUint32(t[4:], seq)
	t[13] = flags
	binary.BigEndian.PutUint16(t[16:], 0)
	pseudo := uint32(6) + uint32(len(t))
	if s.ip == 40 {
		pseudo = sum(pseudo, p[8:40])
	} else {
		pseudo = sum(pseudo, p[12:20])
	}
	binary.BigEndian.PutUint16(t[16:], fold(sum(pseudo, t)))
	return p
}

// sum and fold are the Internet checksum (RFC 1071).
func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return ^uint16(s)
}

// sent is what a flow sent last: the bytes before next, up to maxOverlap.
type sent struct {
	next uint32
	tail []byte
}

type flows map[flow]*sent

// remember notes the segment's payload. If again is wanted and the bytes before
// the segment are known, it returns the segment in other cuts: up to back bytes
// of what came before, joined with the segment's own, in packets of mtu at most.
func (f flows) remember(s segment, again bool, back, mtu int) (packets [][]byte) {
	if s.flags()&flagSYN != 0 {
		f[s.flow] = &sent{next: s.seq() + 1}
		return nil
	}
	if s.flags()&flagRST != 0 {
		delete(f, s.flow)
		return nil
	}
	if len(s.payload) == 0 {
		return nil
	}
	t := f[s.flow]
	if t == nil {
		t = &sent{next: s.seq()}
		f[s.flow] = t
	}
	if s.seq() != t.next {
		// A retransmit, or bytes after a gap: what lies before it is not the tail.
		if int32(s.seq()+uint32(len(s.payload))-t.next) > 0 {
			t.next, t.tail = s.seq()+uint32(len(s.payload)), append(t.tail[:0], s.payload[max(0, len(s.payload)-maxOverlap):]...)
		}
		return nil
	}
	if back = min(back, len(t.tail)); again && back > 0 {
		all := append(append([]byte(nil), t.tail[len(t.tail)-back:]...), s.payload...)
		seq := s.seq() - uint32(back)
		room := mtu - s.headers()
		// Each cut but the last leaves a remainder that begins in old bytes if
		// it can: the first packet holds old and new.
		for len(all) > 0 {
			n := min(room, len(all))
			flags := s.flags()
			if n < len(all) {
				flags &^= flagFIN | flagPSH
			}
			packets = append(packets, s.with(seq, flags, all[:n]))
			all, seq = all[n:], seq+uint32(n)
		}
	}
	t.next += uint32(len(s.payload))
	t.tail = append(t.tail, s.payload...)
	if extra := len(t.tail) - maxOverlap; extra > 0 {
		t.tail = append(t.tail[:0], t.tail[extra:]...)
	}
	return packets
}
