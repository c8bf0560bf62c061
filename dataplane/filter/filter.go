// Package filter runs the filters of a connection: listener filters on a socket
// that was just accepted, and the network filters of the chain that it matched.
// The filters themselves are the packages below.
//
// Everything here is for the thread of the worker that accepted the connection.
package filter

import (
	"log/slog"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/accesslog"
	"github.com/sluice-proxy/sluice/dataplane/dnscache"
	"github.com/sluice-proxy/sluice/dataplane/http2"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/overload"
	"github.com/sluice-proxy/sluice/dataplane/pair"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// Status is a filter's answer.
type Status uint8

const (
	// Continue: on with the next filter.
	Continue Status = iota
	// Stop: wait. A listener filter is asked again when more bytes are there, a
	// network filter calls Resume of its connection.
	Stop
	// Closed: the filter has ended the connection, or for a listener filter:
	// wants it ended.
	Closed
)

// Watch says which bytes of the client a network filter has to see.
type Watch uint8

const (
	// Nothing: the filter decides when the connection comes.
	Nothing Watch = iota
	// FirstByte: before the client's first byte, or its end, is handed on. Until
	// then the request direction stays on the relay.
	FirstByte
	// EveryByte: whenever bytes came. The request direction never leaves the relay.
	EveryByte
)

// Filter is one network filter of one connection.
type Filter interface {
	// NewConnection is called once, in the order of the chain.
	NewConnection() Status
	// Data is called as the factory's Watch says. The bytes are still in the
	// socket; end says that the client has ended its stream.
	Data(end bool) Status
	// Ended is called once, when the connection has ended.
	Ended()
}

// Terminal is the last filter of a chain: from its NewConnection on it owns the
// connection's socket, and reports the end by Connection.End.
type Terminal interface {
	Filter
	// Resume says that the filters before it let the client's bytes go.
	Resume()
	// Close ends the connection in order; Kill by RST.
	Close()
	Kill()
	// Flush brings the byte counters up to date.
	Flush()
	// Discarded says that so many bytes of the client were thrown away.
	Discarded(n uint64)
}

// Patient is a terminal filter that can wait for the client's TLS handshake: before
// Secured nothing can be read or written of a connection that has one.
type Patient interface{ Secured() }

// Fragile is a terminal filter that may be in the middle of what it has to say.
type Fragile interface{ Fragile() }

// Factory makes the filter of each connection. It is shared by all workers.
type Factory interface {
	New(*Connection) Filter
	Watch() Watch
	// Release gives the statistics back, with the last connection.
	Release()
}

// Heir is a factory whose state outlives an update of its listener: it takes over
// what the factory of an equal filter in an equal chain of the version before has
// counted. Called once, before any connection.
type Heir interface{ Inherit(Factory) }

// Context is what a factory is made with.
type Context struct {
	Stats   *stats.Store
	Runtime *runtime.Runtime // may be nil
	// Cluster finds a cluster that is in force now, or nil.
	Cluster func(name string) *upstream.Cluster
	// Demand asks for a cluster that is not in force; done is called on the
	// worker, whose thread it must be called on, unless cancel is.
	Demand func(d api.Demand, on *loop.Worker, done func(api.DemandOutcome)) (cancel func())
	Log    *slog.Logger
	// Names are the caches of names that connections bring.
	Names *dnscache.Caches
	// Files are where access logs go.
	Files *accesslog.Files
	// Listener is the listener's name in statistics.
	Listener string
	// Failing says whether health checks are made to fail (/healthcheck/fail).
	Failing func() bool
	// ShedData draws whether a connection is to be closed for bytes that its client
	// sent; nil where nobody asks for that.
	ShedData func() bool
}

// Core is what filters use of the worker that they run on.
type Core struct {
	Worker *loop.Worker
	Pairs  *pair.Set
	// HTTP2 are the connections that tunnels share.
	HTTP2 *http2.Pool
	// NextID numbers connections, of both sides.
	NextID func() uint64
	// Connections have found their chain, Sockets are still with the listener
	// filters.
	Connections Connections
	Sockets     map[*Socket]struct{}

	scale overload.Scale // of handshakes' timeouts
}

// NewCore makes a worker's core; its pairs come later.
func NewCore(w *loop.Worker, nextID func() uint64) *Core {
	return &Core{Worker: w, HTTP2: http2.NewPool(w), NextID: nextID, Sockets: map[*Socket]struct{}{}}
}

// Connections is a set of connections, each of which knows its place in it. A
// range over it may end the connections that it comes to if it goes backwards.
type Connections []*Connection

func (cs *Connections) add(c *Connection) {
	c.index = int32(len(*cs))
	*cs = append(*cs, c)
}

func (cs *Connections) remove(c *Connection) {
	last := len(*cs) - 1
	moved := (*cs)[last]
	(*cs)[c.index], moved.index = moved, c.index
	(*cs)[last] = nil
	*cs = (*cs)[:last]
}

// Base is a network filter that does nothing; filters embed it.
type Base struct{}

// NewConnection continues.
func (Base) NewConnection() Status { return Continue }

// Data continues.
func (Base) Data(bool) Status { return Continue }

// Ended does nothing.
func (Base) Ended() {}
