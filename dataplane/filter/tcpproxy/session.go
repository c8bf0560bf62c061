package tcpproxy

import (
	"errors"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/pair"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
	"golang.org/x/sys/unix"
)

// Session is one downstream connection from its filter chain to its end. It is
// for its worker's thread.
type Session struct {
	core   *Core
	filter *Filter
	down   Downstream
	born   time.Time

	attempts uint32
	dial     *upstream.Dial
	dialing  time.Time
	up       *upstream.Connection
	pair     *pair.Pair
	rx, tx   uint64 // bytes counted so far, from and to downstream
}

// Accept takes a downstream connection. The connection is not read before the
// upstream one stands, as in Envoy: what the client does meanwhile, a reset
// too, shows then.
func (f *Filter) Accept(core *Core, down Downstream) {
	s := &Session{core: core, filter: f, down: down, born: time.Now()}
	core.Sessions[s] = struct{}{}
	f.stats.total.Inc()
	s.connect()
}

func (s *Session) connect() {
	c := s.filter.cluster(s.filter.config.Cluster)
	if c == nil {
		s.filter.stats.noRoute.Inc()
		s.refuse()
		return
	}
	up, err := c.Pick()
	if err != nil {
		if errors.Is(err, upstream.ErrPendingOverflow) {
			c.Stats.ConnectAttemptsExceeded.Inc()
		}
		s.refuse()
		return
	}
	s.attempts++
	s.up, s.dialing = up, time.Now()
	s.dial = upstream.NewDial(s.core.Worker, up.Host.Addr, c.Config().ConnectTimeout, s.dialed)
}

func (s *Session) dialed(fd int, err error) {
	s.dial = nil
	if err != nil {
		s.up.Failed(errors.Is(err, upstream.ErrConnectTimeout))
		if s.attempts < s.filter.config.MaxConnectAttempts {
			s.connect()
			return
		}
		s.up.Cluster().Stats.ConnectAttemptsExceeded.Inc()
		s.refuse()
		return
	}
	s.up.Connected(time.Since(s.dialing))
	s.pair = s.core.Pairs.Start(pair.Config{
		Downstream:  s.down.FD,
		Upstream:    fd,
		Limit:       s.down.Limit,
		IdleTimeout: s.filter.config.IdleTimeout,
		Ended:       s.ended,
	})
}

// refuse ends a connection that got no upstream: by FIN, unless bytes of the
// client wait unread, when the kernel makes it an RST. That is what Envoy does.
func (s *Session) refuse() {
	unix.SetsockoptLinger(s.down.FD, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{})
	unix.Close(s.down.FD)
	s.close()
}

func (s *Session) ended(p *pair.Pair, o pair.Outcome) {
	s.pair = p
	s.Flush()
	// Whose end completed the connection: the upstream's if the client's
	// stream ended first, or if the upstream broke.
	remote := o == pair.UpstreamReset || o == pair.Complete && p.FirstEnd() == 0
	s.up.Ended(remote)
	if o == pair.IdleTimeout {
		s.filter.stats.idleTimeout.Inc()
	}
	s.close()
}

func (s *Session) close() {
	delete(s.core.Sessions, s)
	s.down.Closed()
}

// Flush brings the byte counters up to date.
func (s *Session) Flush() {
	if s.pair == nil {
		return
	}
	request, response := s.pair.Bytes()
	s.filter.stats.rxBytes.Add(request - s.rx)
	s.filter.stats.txBytes.Add(response - s.tx)
	s.rx, s.tx = request, response
	s.up.Bytes(response, request)
}

// Kill ends the connection at once, by RST.
func (s *Session) Kill() {
	switch {
	case s.pair != nil:
		s.pair.Kill()
	case s.dial != nil:
		s.dial.Cancel()
		s.up.Failed(false)
		unix.Close(s.down.FD) // SO_LINGER{1,0} is set
		s.close()
	}
}

// Status describes the connection for /connections.
func (s *Session) Status() api.Connection {
	c := api.Connection{
		ID: s.down.ID, Listener: s.down.Listener, Chain: s.down.Chain, Cluster: s.filter.config.Cluster,
		Generation: s.down.Generation, Age: time.Since(s.born), Worker: s.core.Worker.ID, State: "connecting",
	}
	if s.pair != nil {
		s.pair.Status(&c)
	} else {
		c.DownstreamRemote, c.DownstreamLocal = pair.Addresses(s.down.FD)
		c.UpstreamRemote = s.up.Host.Addr
	}
	return c
}
