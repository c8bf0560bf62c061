package stream

import (
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/api/substitution"
)

// between is %COMMON_DURATION%: the time from one point of the connection to
// another, in milliseconds unless the argument says otherwise. It is nil where one
// of them was not reached, or comes before the other.
func between(arg string) getter {
	parts := strings.Split(arg, ":")
	from, to, unit := point(parts[0]), point(parts[1]), time.Millisecond
	if len(parts) == 3 {
		unit = map[string]time.Duration{"ms": time.Millisecond, "us": time.Microsecond, "ns": time.Nanosecond}[parts[2]]
	}
	return func(m Moment) any {
		a, reached := from(m.Info)
		b, also := to(m.Info)
		if !reached || !also || b < a {
			return nil
		}
		return uint64((b - a) / unit)
	}
}

// point finds a point by Envoy's name, as a time since the connection's start.
// Those of HTTP are never reached.
func point(name string) func(*Info) (time.Duration, bool) {
	switch name {
	case "DS_CX_BEG", "DS_RX_BEG": // a TCP connection is its own request
		return func(*Info) (time.Duration, bool) { return 0, true }
	case "DS_CX_END":
		return func(i *Info) (time.Duration, bool) { return i.Lasted, i.Lasted > 0 }
	case "US_CX_BEG":
		return func(i *Info) (time.Duration, bool) { return i.Upstream.Dialed.Duration(), i.Upstream.ConnectionID != 0 }
	case "US_CX_END":
		return func(i *Info) (time.Duration, bool) {
			return i.Upstream.Dialed.Duration() + i.Upstream.Connected.Duration(), i.Upstream.ConnectionID != 0
		}
	}
	return func(*Info) (time.Duration, bool) { return 0, false }
}

// coalesce is the first of several commands that has a value.
func coalesce(arg string) getter {
	commands, err := substitution.Coalesce(arg)
	if err != nil {
		return func(Moment) any { return nil } // it was parsed before
	}
	each := pieces(commands)
	return func(m Moment) any {
		for i := range each {
			if v := each[i].value(m); v != nil {
				return v
			}
		}
		return nil
	}
}
