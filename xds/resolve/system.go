package resolve

import (
	"context"
	"errors"
	"net"
	"time"
)

// systemTTL is what Envoy says of addresses that getaddrinfo found.
const systemTTL = time.Minute

// system is getaddrinfo, or what Go has in its place.
type system struct{ retries int }

func (s system) addresses(ctx context.Context, name string, six bool) ([]Address, error) {
	network := "ip4"
	if six {
		network = "ip6"
	}
	for try := 0; ; try++ {
		found, err := (&net.Resolver{}).LookupNetIP(ctx, network, name)
		var e *net.DNSError
		switch {
		case err == nil:
			out := make([]Address, len(found))
			for i, a := range found {
				out[i] = Address{Addr: a, TTL: systemTTL}
			}
			return out, nil
		case errors.As(err, &e) && e.IsNotFound:
			return nil, nil
		case errors.As(err, &e) && e.IsTemporary && (s.retries < 0 || try < s.retries) && ctx.Err() == nil:
			continue // EAI_AGAIN
		}
		return nil, err
	}
}
