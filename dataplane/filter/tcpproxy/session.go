package tcpproxy

import (
	"errors"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/pair"
	"github.com/sluice-proxy/sluice/dataplane/stream"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
	"golang.org/x/sys/unix"
)

// Session is the tcp_proxy of one downstream connection. It is for its worker's
// thread.
type Session struct {
	filter.Base
	factory *Factory
	conn    *filter.Connection

	attempts uint32
	dial     *upstream.Dial
	dialing  time.Time
	up       *upstream.Connection
	pair     *pair.Pair
	rx, tx   uint64 // bytes counted so far, from and to downstream
}

// NewConnection connects upstream. The downstream connection is not read before
// the upstream one stands, as in Envoy: what the client does meanwhile, a reset
// too, shows then.
func (s *Session) NewConnection() filter.Status {
	s.factory.stats.total.Inc()
	s.connect()
	return filter.Stop
}

func (s *Session) connect() {
	info := s.conn.Info
	info.Upstream.Cluster = s.factory.config.Cluster
	c := s.factory.cluster(s.factory.config.Cluster)
	if c == nil {
		s.factory.stats.noRoute.Inc()
		info.Flags.Set(stream.NoClusterFound)
		s.refuse()
		return
	}
	up, err := c.Pick()
	if err != nil {
		switch {
		case errors.Is(err, upstream.ErrNoHealthyHost):
			info.Flags.Set(stream.NoHealthyUpstream)
		default:
			info.Flags.Set(stream.UpstreamOverflow)
		}
		if errors.Is(err, upstream.ErrPendingOverflow) {
			c.Stats.ConnectAttemptsExceeded.Inc()
		}
		s.refuse()
		return
	}
	s.attempts++
	info.Upstream.Attempts, info.Upstream.Host = s.attempts, up.Host.Addr
	s.up, s.dialing = up, time.Now()
	s.dial = upstream.NewDial(s.conn.Core.Worker, up.Host.Addr, c.Config().ConnectTimeout, s.dialed)
}

func (s *Session) dialed(fd int, err error) {
	s.dial = nil
	if err != nil {
		info := s.conn.Info
		info.Flags.Set(stream.UpstreamConnectionFailure)
		info.Upstream.Failure = err.Error()
		s.up.Failed(errors.Is(err, upstream.ErrConnectTimeout))
		if s.attempts < s.factory.config.MaxConnectAttempts {
			s.connect()
			return
		}
		s.up.Cluster().Stats.ConnectAttemptsExceeded.Inc()
		info.Flags.Set(stream.UpstreamRetryLimitExceeded)
		s.refuse()
		return
	}
	took := time.Since(s.dialing)
	s.up.Connected(took)
	s.conn.Info.Upstream.Connected = took
	_, s.conn.Info.Upstream.Local = pair.Addresses(fd)
	cfg := pair.Config{
		Downstream:  s.conn.FD,
		Upstream:    fd,
		Limit:       s.conn.Limit,
		IdleTimeout: s.factory.config.IdleTimeout,
		Consumed:    s.conn.Consumed,
		Ended:       s.ended,
	}
	if w := s.conn.Watch(); w != filter.Nothing {
		cfg.Gate = func(end bool) bool { return s.conn.Data(end) == filter.Continue }
		cfg.EveryRead = w == filter.EveryByte
	}
	s.pair = s.conn.Core.Pairs.Start(cfg)
}

// refuse ends a connection that got no upstream: by FIN, unless bytes of the
// client wait unread, when the kernel makes it an RST. That is what Envoy does.
func (s *Session) refuse() {
	filter.CloseQuietly(s.conn.FD)
	s.conn.End()
}

func (s *Session) ended(p *pair.Pair, o pair.Outcome) {
	s.pair = p
	s.Flush()
	// Whose end completed the connection: the upstream's if the client's
	// stream ended first, or if the upstream broke.
	remote := o == pair.UpstreamReset || o == pair.Complete && p.FirstEnd() == 0
	s.up.Ended(remote)
	if o == pair.IdleTimeout {
		s.factory.stats.idleTimeout.Inc()
	}
	s.conn.End()
}

// Resume lets the client's bytes go that filters held.
func (s *Session) Resume() {
	if s.pair != nil {
		s.pair.Open()
	}
}

// Flush brings the byte counters up to date.
func (s *Session) Flush() {
	if s.pair == nil {
		return
	}
	request, response := s.pair.Bytes()
	s.factory.stats.rxBytes.Add(request - s.rx)
	s.factory.stats.txBytes.Add(response - s.tx)
	s.rx, s.tx = request, response
	s.up.Bytes(response, request)
	i := s.conn.Info
	i.Received, i.Sent, i.Upstream.Received, i.Upstream.Sent = request, response, response, request
}

// Close ends the connection in order.
func (s *Session) Close() {
	if s.pair != nil {
		s.pair.Close()
		return
	}
	s.giveUp()
	s.refuse()
}

// Kill ends the connection at once, by RST.
func (s *Session) Kill() {
	if s.pair != nil {
		s.pair.Kill()
		return
	}
	s.giveUp()
	unix.Close(s.conn.FD) // SO_LINGER{1,0} is set
	s.conn.End()
}

// giveUp forgets the connect that is under way.
func (s *Session) giveUp() {
	if s.dial != nil {
		s.dial.Cancel()
		s.dial = nil
		s.up.Failed(false)
	}
}

// Status fills in what is known of both sides.
func (s *Session) Status(c *api.Connection) {
	if s.pair != nil {
		s.pair.Status(c)
		return
	}
	c.State = "connecting"
}
