// Package originalsrc is envoy.filters.listener.original_src: the connection to
// the upstream comes from the client's own address. Whoever configures it has to
// route the answers back (original_src_filter.rst).
package originalsrc

import (
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// Factory makes the filter, which is one and the same for every socket.
type Factory struct{ mark uint32 }

// New makes a factory.
func New(c *api.OriginalSrc) Factory { return Factory{mark: c.Mark} }

// New makes the filter of a socket.
func (f Factory) New(*filter.Socket) filter.ListenerFilter { return f }

// Release does nothing.
func (Factory) Release() {}

// Wants says that no bytes are looked at.
func (Factory) Wants() int { return 0 }

// Data is never asked.
func (Factory) Data(*filter.Socket, []byte) filter.Status { return filter.Continue }

// Accepted takes down the client's address, as filters before have found it.
func (f Factory) Accepted(s *filter.Socket) filter.Status {
	if a := s.Info.Remote().Addr(); a.IsValid() {
		s.Info.SetSource(stream.Source{Addr: a, Mark: f.mark})
	}
	return filter.Continue
}
