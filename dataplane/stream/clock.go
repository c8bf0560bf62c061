package stream

import (
	"fmt"
	"strings"
	"time"

	"github.com/itchyny/timefmt-go"
)

// clockFormat is a strftime format with Envoy's fractions of a second: %f and
// %1f to %9f, and %E1S to %E9S and %E*S for seconds with a fraction.
type clockFormat struct {
	pieces []clockPiece
	local  bool
}

// clockPiece is a strftime format, or a fraction of so many digits, with the
// seconds before it or without.
type clockPiece struct {
	layout  string
	digits  int
	seconds bool
}

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
			add(i, i+2, clockPiece{digits: 9})
		case len(rest) > 1 && isDigit(rest[0]) && rest[1] == 'f':
			add(i, i+3, clockPiece{digits: int(rest[0] - '0')})
		case len(rest) > 2 && rest[0] == 'E' && rest[2] == 'S' && (isDigit(rest[1]) || rest[1] == '*'):
			d := 9
			if rest[1] != '*' {
				d = int(rest[1] - '0')
			}
			add(i, i+4, clockPiece{digits: d, seconds: true})
		}
		i++ // %% and the like
	}
	if start < len(s) {
		f.pieces = append(f.pieces, clockPiece{layout: s[start:]})
	}
	return f
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
		if p.digits == 0 {
			b.WriteString(timefmt.Format(t, p.layout))
			continue
		}
		if p.seconds {
			fmt.Fprintf(&b, "%02d.", t.Second())
		}
		fmt.Fprintf(&b, "%09d", t.Nanosecond())
		cut := b.String()[:b.Len()-9+p.digits]
		b.Reset()
		b.WriteString(cut)
	}
	return b.String()
}
