package setfilterstate

import "github.com/sluice-proxy/sluice/dataplane/filter"

// ListenerFactory is envoy.filters.listener.set_filter_state: the same, when a
// socket is accepted.
type ListenerFactory struct{ Values Values }

// New makes the filter of a socket, which is one and the same for all.
func (f ListenerFactory) New(*filter.Socket) filter.ListenerFilter { return f }

// Release does nothing.
func (ListenerFactory) Release() {}

// Wants says that no bytes are looked at.
func (ListenerFactory) Wants() int { return 0 }

// Data is never asked.
func (ListenerFactory) Data(*filter.Socket, []byte) filter.Status { return filter.Continue }

// Accepted sets the objects.
func (f ListenerFactory) Accepted(s *filter.Socket) filter.Status {
	f.Values.Set(s.Info)
	return filter.Continue
}
