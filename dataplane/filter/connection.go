package filter

import (
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/stream"
	"github.com/sluice-proxy/sluice/dataplane/tcpstats"
	"github.com/sluice-proxy/sluice/dataplane/tls"
	"golang.org/x/sys/unix"
)

// Chain is a filter chain in force: what it is called, and the factories of its filters,
// the last of which makes Terminals. No factories at all close every connection.
type Chain struct {
	stream.Chain
	// TLS terminates the connections' TLS; nil: they are in the clear. The handshake
	// may take ConnectTimeout, 0 is for ever; TimedOut counts those that took longer.
	TLS            *tls.Server
	ConnectTimeout time.Duration
	TimedOut       *stats.Counter
	// TCP are the figures of the connections' TCP, nil for none, brought up to date
	// every TCPPeriod.
	TCP       *tcpstats.Stats
	TCPPeriod time.Duration

	Factories []Factory
}

// Watch is the most that any filter of the chain has to see.
func (c *Chain) Watch() Watch {
	w := Nothing
	for _, f := range c.Factories {
		w = max(w, f.Watch())
	}
	return w
}

// Release gives the statistics of the filters back.
func (c *Chain) Release() {
	for _, f := range c.Factories {
		f.Release()
	}
	if c.TLS != nil {
		c.TLS.Stats.Release()
	}
	if c.TCP != nil {
		c.TCP.Release()
	}
}

// Owner is what a connection came in by: a version of a listener.
type Owner interface {
	// Due says whether a connection that asks is to end, for what it came in by
	// goes away.
	Due() bool
	// Closed is called once, when the socket is closed and before the filters
	// are told (Envoy logs in that order), Ended after that.
	Closed(*Connection)
	Ended(*Connection)
	// Limit is the listener's per_connection_buffer_limit_bytes.
	Limit() uint32
	// Logged says that the listener has an access log.
	Logged() bool
}

// Connection is a downstream connection that has found its filter chain.
type Connection struct {
	Core *Core
	// FD is connected, non-blocking, registered nowhere, and has SO_LINGER{1,0}.
	FD   int
	Info *stream.Info
	// Owner is told of the end; Held says that it counts the connection among
	// its holders.
	Owner Owner
	Held  bool

	started bool // the terminal filter has the socket
	// passed: every filter has seen the first byte.
	passed   bool
	over     bool
	index    int32 // in the core's Connections
	chain    *Chain
	terminal Terminal
	walk     *walk // nil where the terminal filter is the only one, in the clear
}

// walk are the filters before the terminal one, and how far they were asked.
type walk struct {
	filters []Filter
	// at is the filter that is asked now, or asked last; held says that it
	// stopped, in which of the two questions data says.
	at         int
	held, data bool
	end        bool // of the data that is held
	secure     *secure
	tcp        *tcpstats.Watch
}

// Over says that the connection has ended.
func (c *Connection) Over() bool { return c.over }

// Chain is the filter chain that the connection is in.
func (c *Connection) Chain() *Chain { return c.chain }

// Accept takes a connection into the chain.
func (ch *Chain) Accept(c *Connection) {
	c.chain = ch
	c.Info.Chain = &ch.Chain
	c.Core.Connections.add(c)
	last := len(ch.Factories) - 1
	if last > 0 {
		c.walk = &walk{filters: make([]Filter, last)}
		for i, f := range ch.Factories[:last] {
			c.walk.filters[i] = f.New(c)
		}
	}
	c.terminal = ch.Factories[last].New(c).(Terminal)
	c.watchTCP()
	if ch.TLS == nil || c.shakeHands() {
		c.introduce()
	}
}

// introduce asks the filters that were not asked yet about the connection.
func (c *Connection) introduce() {
	if w := c.walk; w != nil {
		for ; w.at < len(w.filters); w.at++ {
			if w.filters[w.at].NewConnection() != Continue {
				w.held = !c.over
				return
			}
			if c.over {
				return
			}
		}
	}
	c.started = true
	c.terminal.NewConnection()
}

// Watch is what the filters before the last have to see of the client's bytes,
// and still have not.
func (c *Connection) Watch() Watch {
	w := c.chain.Watch()
	if w == FirstByte && c.passed {
		return Nothing
	}
	return w
}

// Data asks the filters about bytes of the client that wait in the socket, or
// its end. Only after Continue may they be handed on; after Stop the terminal
// filter's Resume is called; after Closed all is over.
func (c *Connection) Data(end bool) Status {
	w := c.walk
	if w == nil {
		return Continue
	}
	if w.held {
		return Stop
	}
	w.data, w.end, w.at = true, end, 0
	return c.inspect()
}

func (c *Connection) inspect() Status {
	for w := c.walk; w.at < len(w.filters); w.at++ {
		sees := c.chain.Factories[w.at].Watch()
		if sees == Nothing || sees == FirstByte && c.passed {
			continue
		}
		switch w.filters[w.at].Data(w.end) {
		case Stop:
			w.held = !c.over
			return Stop
		case Closed:
			return Closed
		}
		if c.over {
			return Closed
		}
	}
	c.passed = true
	return Continue
}

// Resume goes on after the filter that said Stop.
func (c *Connection) Resume() {
	w := c.walk
	if w == nil || !w.held || c.over {
		return
	}
	w.held = false
	w.at++
	if !w.data {
		c.introduce()
		return
	}
	if c.inspect() == Continue {
		c.terminal.Resume()
	}
}

// Refuse ends the connection for a filter that decided against it before it saw
// a byte: by FIN, or by RST where bytes of the client wait, which Envoy has not
// read either. reason is what %DOWNSTREAM_LOCAL_CLOSE_REASON% prints.
func (c *Connection) Refuse(reason string) {
	if !c.over {
		c.Info.Explain().LocalClose = reason
		c.Close()
	}
}

// Deny ends the connection for a filter that has seen bytes of the client: they
// are read and thrown away first, as Envoy has read them, for a close with
// unread bytes is an RST.
func (c *Connection) Deny(reason string) {
	if !c.over {
		c.Discard()
		c.Refuse(reason)
	}
}

// Discard reads what waits in the socket and throws it away: at most the buffer
// limit, which is what Envoy would have read.
func (c *Connection) Discard() {
	buf := c.Core.Worker.Buffer()
	for left := max(int(c.Owner.Limit()), 1); left > 0; {
		n, err := c.Recv(buf[:min(len(buf), left)])
		if n <= 0 || err != 0 {
			return
		}
		left -= n
		c.Info.Received += uint64(n)
		if c.started {
			c.terminal.Discarded(uint64(n))
		}
	}
}

// Close ends the connection in order: by FIN, unless bytes of the client wait
// unread, when the kernel makes it an RST.
func (c *Connection) Close() {
	switch {
	case c.over:
	case c.started:
		c.terminal.Close()
	default:
		c.CloseSocket()
		c.End()
	}
}

// Kill ends the connection by RST.
func (c *Connection) Kill() {
	switch {
	case c.over:
	case c.started:
		c.terminal.Kill()
	default:
		c.ResetSocket()
		c.End()
	}
}

// Stop ends the connection when the process stops: by FIN, as with Envoy, unless
// bytes wait; what would be cut short by that by RST.
func (c *Connection) Stop() {
	if _, cut := c.terminal.(Fragile); !cut {
		c.Close()
	}
	c.Kill()
}

// End is called by the terminal filter when it has closed the socket.
func (c *Connection) End() {
	if c.over {
		return
	}
	c.over = true
	c.letGo()
	c.unwatchTCP()
	c.Info.Lasted = time.Since(c.Info.Start)
	c.Core.Connections.remove(c)
	c.Owner.Closed(c)
	if w := c.walk; w != nil {
		w.held = false
		for _, f := range w.filters {
			f.Ended()
		}
	}
	c.terminal.Ended()
	c.Owner.Ended(c)
}

// Flush brings the byte counters up to date.
func (c *Connection) Flush() {
	if c.started {
		c.terminal.Flush()
	}
}

// Status describes the connection for /connections.
func (c *Connection) Status() api.Connection {
	i := c.Info
	s := api.Connection{
		ID: i.ID, Listener: i.Listener.Name, Chain: i.ChainName(), Cluster: i.Upstream.ClusterName(), Generation: i.Listener.Generation,
		Age: time.Since(i.Start), Worker: c.Core.Worker.ID, State: "filtering",
		DownstreamRemote: i.Remote(), DownstreamLocal: i.Local(), UpstreamRemote: i.Upstream.Addr(), UpstreamLocal: i.Upstream.Local(),
	}
	if t, ok := c.terminal.(interface{ Status(*api.Connection) }); ok && c.started {
		t.Status(&s)
	}
	if c.Handshaking() {
		s.State = "TLS handshake"
	}
	return s
}

// CloseQuietly ends a connection as close(2) does without SO_LINGER: by FIN, or
// by RST if bytes wait unread.
func CloseQuietly(fd int) {
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	unix.Close(fd)
}
