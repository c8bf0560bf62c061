package tlsinspector

import (
	"encoding/binary"

	"golang.org/x/crypto/cryptobyte"
)

// state is what the bytes so far are.
type state uint8

const (
	partial state = iota // a ClientHello may come of them
	none                 // they are none
	whole
)

// RFC 8446, sections 4.1.2 and 5.1.
const (
	recordHeader    = 5
	recordHandshake = 22
	clientHello     = 1
	maxRecord       = 16<<10 + 256
	extServerName   = 0
	extGroups       = 10
	extPoints       = 11
	extSignatures   = 13
	extALPN         = 16
	extVersions     = 43
)

// hello is what is read of a ClientHello.
type hello struct {
	version    uint16
	ciphers    []uint16
	extensions []uint16
	groups     []uint16
	points     []uint8
	signatures []uint16
	versions   []uint16
	serverName string
	protocols  []string
}

// parse reads a ClientHello from the first bytes of a connection. It may be
// spread over several records, and over any number of segments.
func parse(b []byte) (*hello, state) {
	// Envoy decides nothing before it has seen a record header.
	if len(b) < recordHeader {
		return nil, partial
	}
	var message []byte
	for {
		if len(b) < recordHeader {
			return nil, partial
		}
		size := int(binary.BigEndian.Uint16(b[3:]))
		if b[0] != recordHandshake || b[1] != 3 || size > maxRecord {
			return nil, none
		}
		b = b[recordHeader:]
		part := b[:min(size, len(b))]
		message = append(message, part...)
		if len(message) > 0 && message[0] != clientHello {
			return nil, none
		}
		if len(message) >= 4 {
			length := int(message[1])<<16 | int(message[2])<<8 | int(message[3])
			if len(message) >= 4+length {
				h, ok := parseBody(message[4 : 4+length])
				if !ok {
					return nil, none
				}
				return h, whole
			}
		}
		if len(part) < size {
			return nil, partial
		}
		b = b[size:]
	}
}

func parseBody(b []byte) (*hello, bool) {
	h := &hello{}
	s := cryptobyte.String(b)
	var random []byte
	var session, ciphers, compressions, extensions cryptobyte.String
	if !s.ReadUint16(&h.version) || !s.ReadBytes(&random, 32) || !s.ReadUint8LengthPrefixed(&session) || len(session) > 32 ||
		!s.ReadUint16LengthPrefixed(&ciphers) || !s.ReadUint8LengthPrefixed(&compressions) || len(compressions) == 0 || !numbers(&ciphers, &h.ciphers) || len(h.ciphers) == 0 {
		return nil, false
	}
	if s.Empty() {
		return h, true
	}
	if !s.ReadUint16LengthPrefixed(&extensions) || !s.Empty() {
		return nil, false
	}
	seen := map[uint16]bool{}
	for !extensions.Empty() {
		var kind uint16
		var body cryptobyte.String
		if !extensions.ReadUint16(&kind) || !extensions.ReadUint16LengthPrefixed(&body) || seen[kind] {
			return nil, false
		}
		seen[kind] = true
		h.extensions = append(h.extensions, kind)
		if !h.extension(kind, body) {
			return nil, false
		}
	}
	return h, true
}

func (h *hello) extension(kind uint16, body cryptobyte.String) bool {
	var list cryptobyte.String
	switch kind {
	case extServerName:
		// RFC 6066, section 3: one host name is all that anybody sends.
		var name cryptobyte.String
		var form uint8
		if !body.ReadUint16LengthPrefixed(&list) || !body.Empty() || !list.ReadUint8(&form) || form != 0 || !list.ReadUint16LengthPrefixed(&name) || !list.Empty() || len(name) == 0 || len(name) > 255 {
			return false
		}
		for _, c := range name {
			if c == 0 {
				return false
			}
		}
		h.serverName = string(name)
	case extALPN:
		if !body.ReadUint16LengthPrefixed(&list) || !body.Empty() || list.Empty() {
			return false
		}
		for !list.Empty() {
			var name cryptobyte.String
			if !list.ReadUint8LengthPrefixed(&name) || len(name) == 0 {
				return false
			}
			h.protocols = append(h.protocols, string(name))
		}
	case extGroups:
		return body.ReadUint16LengthPrefixed(&list) && numbers(&list, &h.groups)
	case extSignatures:
		return body.ReadUint16LengthPrefixed(&list) && numbers(&list, &h.signatures)
	case extVersions:
		return body.ReadUint8LengthPrefixed(&list) && numbers(&list, &h.versions)
	case extPoints:
		if !body.ReadUint8LengthPrefixed(&list) {
			return false
		}
		h.points = list
	}
	return true
}

func numbers(s *cryptobyte.String, out *[]uint16) bool {
	for !s.Empty() {
		var n uint16
		if !s.ReadUint16(&n) {
			return false
		}
		*out = append(*out, n)
	}
	return true
}
