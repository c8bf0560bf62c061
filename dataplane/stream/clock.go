package stream

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/itchyny/timefmt-go"
)

// clockFormat is a strftime format with Envoy's fractions of a second (%f, and
// %1f to %9f) and with those of absl::FormatTime: %E3S, %E3f, %E*S, %E*f, %Ez,
// %E4Y and %ET. The clock is taken to the microsecond, as Envoy does.
type clockFormat struct {
	pieces []clockPiece
	local  bool
}

// clockPiece is a strftime format, or a fraction of so many digits, with the
// seconds before it or without.
type clockPiece struct {
	layout   string
	fraction bool
	digits   int // -1: as many as are needed
	seconds  bool
}

// extended are the commands behind %E.
var extended = regexp.MustCompile(`^%E(z|T|4Y|([0-9]+|\*)([Sf]))`)

// newClockFormat reads a format; empty is Envoy's default.
func newClockFormat(s string, local bool) clockFormat {
	if s == "" {
		s = "%Y-%m-%dT%H:%M:%E3SZ"
		if local {
			s = "%Y-%m-%dT%H:%M:%E3S%z"
		}
	}
	f := clockFormat{local: local}
	start := 0
	add := func(i, end int, p clockPiece) {
		if i > start {
			f.pieces = append(f.pieces, clockPiece{layout: s[start:i]})
		}
		f.pieces = append(f.pieces, p)
		start = end
	}
	for i := 0; i+1 < len(s); i++ {
		if s[i] != '%' {
			continue
		}
		rest := s[i+1:]
		switch {
		case rest[0] == 'f':
			add(i, i+2, clockPiece{fraction: true, digits: 9})
		case len(rest) > 1 && isDigit(rest[0]) && rest[1] == 'f':
			add(i, i+3, clockPiece{fraction: true, digits: int(rest[0] - '0')})
		case isDigit(rest[0]) || rest[0] == '0':
			add(i, i+2, clockPiece{layout: "%" + s[i:i+2]}) // as it stands
		case rest[0] == 'E':
			if m := extended.FindStringSubmatch(s[i:]); m != nil {
				add(i, i+len(m[0]), extendedPiece(m))
			}
		}
		i++ // %% and the like
	}
	if start < len(s) {
		f.pieces = append(f.pieces, clockPiece{layout: s[start:]})
	}
	return f
}

func extendedPiece(m []string) clockPiece {
	switch m[1] {
	case "z":
		return clockPiece{layout: "%:z"}
	case "T":
		return clockPiece{layout: "T"}
	case "4Y":
		return clockPiece{layout: "%Y"}
	}
	p := clockPiece{fraction: true, digits: -1, seconds: m[3] == "S"}
	if m[2] != "*" {
		p.digits, _ = strconv.Atoi(m[2])
		p.digits = min(p.digits, 15)
	}
	return p
}

func isDigit(c byte) bool { return c >= '1' && c <= '9' }

func (f clockFormat) format(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	if f.local {
		t = t.Local()
	} else {
		t = t.UTC()
	}
	var b strings.Builder
	for _, p := range f.pieces {
		if !p.fraction {
			b.WriteString(timefmt.Format(t, p.layout))
			continue
		}
		digits := fmt.Sprintf("%06d", t.Nanosecond()/1000)
		switch {
		case p.digits >= 0:
			digits = (digits + "000000000")[:p.digits]
		case strings.TrimRight(digits, "0") != "" || p.seconds:
			digits = strings.TrimRight(digits, "0")
		default:
			digits = "0"
		}
		if p.seconds {
			fmt.Fprintf(&b, "%02d", t.Second())
			if digits != "" {
				b.WriteByte('.')
			}
		}
		b.WriteString(digits)
	}
	return b.String()
}
