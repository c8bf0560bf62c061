package tcpproxy

import (
	"errors"
	"math/rand/v2"
	"strconv"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/accesslog"
	"github.com/sluice-proxy/sluice/dataplane/address"
	"github.com/sluice-proxy/sluice/dataplane/balance"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/pair"
	"github.com/sluice-proxy/sluice/dataplane/stream"
	"github.com/sluice-proxy/sluice/dataplane/tls"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// Filter state objects that change what tcp_proxy does (tcp_proxy_filter.rst).
const (
	stateCluster = "envoy.tcp_proxy.cluster"
	stateIdle    = "envoy.tcp_proxy.per_connection_idle_timeout_ms"
)

// Why there is no upstream connection, as Envoy numbers it in the local close
// reason ("initializion" is its spelling).
const (
	connectFailed = iota
	noHealthyUpstream
	resourceLimit
	noRoute
)

// Session is the tcp_proxy of one downstream connection. It is for its worker's
// thread.
type Session struct {
	factory *Factory
	conn    *filter.Connection

	up        upstream.Connection // the last that was picked
	connected int64               // when it stood, by the worker's clock
	pair      *pair.Pair
	opening   *opening // nil once the upstream connection stands
	seldom    *seldom  // nil but where there is something of it
}

// opening is the way to an upstream connection.
type opening struct {
	route    string            // the cluster's name
	cluster  *upstream.Cluster // of the last attempt
	attempts uint32
	match    balance.Criteria
	named    int    // of the hosts that metadata name, those that were tried
	early    bool   // waits for the client's first bytes
	undemand func() // ends the wait for a cluster; nil: there is none
	dial     *upstream.Dial
	dialing  time.Time
	tls      *tls.Client // of the host that was picked; nil: in the clear
	backoff  loop.Timer
	// of a host with TLS, or of a client with TLS
	origin   *origin
	standing *standing
	digging  *digging // of a tunnel
}

// seldom is what few sessions have.
type seldom struct {
	shared             *multiplexed // a tunnel that is a stream
	duration, periodic loop.Timer   // where the configuration asks for one
}

func (s *Session) needSeldom() *seldom {
	if s.seldom == nil {
		s.seldom = &seldom{duration: loop.Timer{F: s.tooOld}, periodic: loop.Timer{F: s.logPeriodic}}
	}
	return s.seldom
}

// shared is the stream that the session's tunnel is; nil if it is none.
func (s *Session) shared() *multiplexed {
	if s.seldom == nil {
		return nil
	}
	return s.seldom.shared
}

// NewConnection connects upstream. The downstream connection is not read before
// the upstream one stands, as in Envoy: what the client does meanwhile, a reset
// too, shows then.
func (s *Session) NewConnection() filter.Status {
	c, w := s.factory.config, s.conn.Core.Worker
	s.opening = &opening{}
	s.opening.route, s.opening.match = s.pickRoute()
	if c.LogOptions.OnStart {
		s.factory.logs.Write(s.conn.Info, accesslog.Start)
	}
	if c.LogOptions.Interval > 0 {
		w.After(&s.needSeldom().periodic, c.LogOptions.Interval)
	}
	if c.MaxDuration > 0 {
		w.After(&s.needSeldom().duration, c.MaxDuration+time.Duration(rand.Float64()*c.MaxDurationJitter/100*float64(c.MaxDuration)))
	}
	switch {
	case c.ConnectMode == api.ConnectOnData:
		s.awaitData()
	case c.ConnectMode == api.ConnectOnTLSHandshake && s.conn.Handshaking():
	default:
		s.connect()
	}
	return filter.Stop
}

// pickRoute is drawn once: later attempts go to the same cluster.
func (s *Session) pickRoute() (string, balance.Criteria) {
	if o, ok := s.conn.Info.State()[stateCluster]; ok {
		return o.Value, nil
	}
	c := s.factory.config
	if len(c.Clusters) == 0 {
		return c.Cluster, s.factory.match
	}
	n := rand.Uint64N(max(s.factory.weights, 1))
	for i := range c.Clusters {
		if w := uint64(c.Clusters[i].Weight); n >= w {
			n -= w
			continue
		}
		return c.Clusters[i].Name, s.factory.matches[i]
	}
	return c.Clusters[len(c.Clusters)-1].Name, s.factory.matches[len(c.Clusters)-1]
}

func (s *Session) connect() {
	info, o := s.conn.Info, s.opening
	c := s.factory.cluster(o.route)
	if c == nil {
		s.absent()
		return
	}
	o.cluster = c
	info.Upstream.Cluster = c.Told()
	choice := s.pick(c)
	if choice.Host != nil && s.multiplexes(choice.Host.Cluster()) {
		s.multiplex(choice)
		return
	}
	up, err := choice.Open()
	if err != nil {
		if errors.Is(err, upstream.ErrPendingOverflow) {
			o.attempts++
			info.Connecting(nil)
			s.missed("", true)
			return
		}
		if errors.Is(err, upstream.ErrNoHealthyHost) {
			info.Flags.Set(stream.NoHealthyUpstream)
			s.refuse(noHealthyUpstream)
			return
		}
		info.Flags.Set(stream.UpstreamOverflow)
		s.refuse(resourceLimit)
		return
	}
	s.selected(up.Host)
	s.up, o.tls = up.Connection, up.TLS
	o.attempts++
	if s.up.Waits() {
		s.up.Await(s.dial, func(why string) {
			info.Connecting(s.up.Host.Endpoint())
			s.missed(why, s.up.Unbound())
		})
		return
	}
	s.dial()
}

func (s *Session) dial() {
	info, o := s.conn.Info, s.opening
	info.Connecting(s.up.Host.Endpoint())
	o.dialing = time.Now()
	from := info.Source()
	o.dial = s.up.Dial(s.conn.Core.Worker, upstream.Source{Addr: from.Addr, Mark: from.Mark, Segment: s.conn.Core.Pairs.Segment(s.conn.FD)}, s.proxyHeader(), s.dialed)
}

func (s *Session) dialed(fd int, err error) {
	d := s.opening.dial
	s.opening.dial = nil
	switch {
	case err != nil:
		s.failed(failure(err), errors.Is(err, upstream.ErrConnectTimeout))
	case s.opening.tls != nil:
		s.originate(fd)
	default:
		s.reached(&standing{fd: fd, silent: d.Silent()})
	}
}

// failed is the end of an attempt that came to nothing.
func (s *Session) failed(why string, timeout bool) {
	s.up.Failed(timeout, why)
	s.missed(why, s.up.Unbound())
}

// missed tries once more, or gives up. local says that no host was asked.
func (s *Session) missed(why string, local bool) {
	o, info := s.opening, s.conn.Info
	info.Explain().UpstreamFailure = why
	if o.attempts < s.factory.config.MaxConnectAttempts {
		s.again()
		return
	}
	o.cluster.Stats.ConnectAttemptsExceeded.Inc()
	if !local {
		info.Flags.Set(stream.UpstreamConnectionFailure)
	}
	info.Flags.Set(stream.UpstreamRetryLimitExceeded)
	s.refuse(connectFailed)
}

// standing is a connection to a host that stands.
type standing struct {
	fd        int
	silent    bool   // has had no event but that it stands
	heard     uint64 // bytes of its that were read, as they were on the wire
	counted   bool   // as connected, before its tunnel was there
	transport pair.Transport
	// while the client's handshake goes on
	idle  loop.Timer
	broke func()
}

func (s *Session) stands(up *standing) {
	o, info := s.opening, s.conn.Info
	if info.Reasons().UpstreamFailure != "" && s.factory.tunnel == nil {
		info.Explain().UpstreamFailure = ""
	}
	u := &info.Upstream
	took := time.Since(o.dialing)
	u.Dialed, u.Connected = stream.Microseconds(o.dialing.Sub(info.Start)), stream.Microseconds(took)
	u.ConnectionID = s.conn.Core.NextID()
	if s.conn.Owner.Logged() || len(s.factory.logs) > 0 {
		fd := up.fd
		if m := s.shared(); m != nil {
			fd = m.stream.Descriptor()
		}
		u.SetLocal(address.Local(fd))
	}
	if !up.counted {
		s.up.Connected(took)
	}
	s.connected = s.conn.Core.Worker.Now()
	if s.factory.config.LogOptions.OnConnected {
		s.factory.logs.Write(info, accesslog.Connected)
	}
	if s.conn.Handshaking() {
		s.awaitClient(up)
		return
	}
	s.pairUp(up)
}

// pairUp gives both sockets to a pair.
func (s *Session) pairUp(up *standing) {
	s.opening = nil
	info := s.conn.Info
	cfg := pair.Config{
		Downstream:  s.conn.FD,
		Upstream:    up.fd,
		Watched:     up.silent,
		Transports:  [2]pair.Transport{s.conn.Transport(), up.transport},
		Nagle:       up.fd >= 0,
		Limit:       s.conn.Owner.Limit(),
		IdleTimeout: s.idleTimeout(),
		Consumed:    info.Consumed(),
		Heard:       up.heard,
		Unix:        info.Pipe() != "" || info.Upstream.Host.Path != "",
		Ended:       s.ended,
	}
	if s.factory.config.CheckDrainClose {
		cfg.Moved = s.checkDrain
	}
	if w := s.conn.Watch(); w != filter.Nothing {
		cfg.Gate = func(end bool) bool { return s.conn.Data(end) == filter.Continue }
		cfg.EveryRead = w == filter.EveryByte
	}
	if s.factory.shed != nil {
		filters := cfg.Gate
		cfg.Gate, cfg.EveryRead = func(end bool) bool { return (filters == nil || filters(end)) && !s.sheds() }, true
	}
	s.up.EndWithHost(func() {
		s.conn.Core.Worker.Post(func() {
			if !s.conn.Over() {
				s.Close()
			}
		})
	})
	s.pair = s.conn.Core.Pairs.Start(cfg)
}

// again tries another connect, after the wait that was asked for.
func (s *Session) again() {
	b := s.factory.config.Backoff
	if b == nil {
		s.connect()
		return
	}
	// JitteredExponentialBackOffStrategy: anything up to base * 2^n, at most max.
	top := b.Max
	if n := s.opening.attempts - 1; n < 32 && b.Base<<n < b.Max {
		top = b.Base << n
	}
	s.opening.backoff.F = s.connect
	s.conn.Core.Worker.After(&s.opening.backoff, time.Duration(rand.Int64N(int64(top)+1)))
}

// failure is a connect's error in Envoy's words.
func failure(err error) string {
	if errors.Is(err, upstream.ErrConnectTimeout) {
		return ""
	}
	var e syscall.Errno
	if !errors.As(err, &e) {
		return err.Error()
	}
	text := []byte(e.Error()) // strerror's, but for the first letter
	text[0] -= 'a' - 'A'
	var bind *upstream.BindError
	var connect *upstream.ConnectError
	switch {
	case errors.As(err, &bind):
		return "failed to bind to " + bind.To.String() + ": " + string(text)
	case errors.As(err, &connect):
		return "immediate connect error: " + string(text) + "|remote_address:" + connect.To
	}
	return "delayed connect error: " + string(text)
}

func (s *Session) idleTimeout() time.Duration {
	if o, ok := s.conn.Info.State()[stateIdle]; ok {
		if ms, err := strconv.ParseUint(o.Value, 10, 32); err == nil {
			return time.Duration(ms) * time.Millisecond
		}
	}
	return s.factory.config.IdleTimeout
}

// refuse ends a connection that got no upstream: by FIN, unless bytes of the
// client wait unread, when the kernel makes it an RST. That is what Envoy does.
func (s *Session) refuse(why int) {
	if s.factory.config.ConnectMode == api.ConnectOnData {
		// Envoy has read the early data, so its close is a FIN.
		s.conn.Discard()
	}
	s.conn.Info.Explain().LocalClose = "tcp_initializion_failure:" + strconv.Itoa(why)
	s.drop()
}

func (s *Session) drop() {
	s.Flush()
	s.conn.CloseSocket()
	s.conn.End()
}

func (s *Session) ended(p *pair.Pair, o pair.Outcome) {
	s.pair = p
	s.Flush()
	// Whose end completed the connection: the upstream's if the client's
	// stream ended first, or if the upstream broke.
	remote := o == pair.UpstreamReset || o == pair.Complete && p.FirstEnd() == 0
	if s.tunnels() {
		remote = false // its HTTP client closes it, in Envoy
	}
	s.up.Ended(time.Duration(s.conn.Core.Worker.Now()-s.connected), remote)
	info := s.conn.Info
	if why := s.conn.TransportFailure(); why != "" {
		info.Explain().DownstreamFailure = why
	}
	switch o {
	case pair.IdleTimeout:
		s.factory.stats.idleTimeout.Inc()
		s.closedFor("tcp_session_idle_timeout")
	case pair.DownstreamReset:
		if !s.conn.TransportBroke() {
			info.Closed = stream.RemoteReset
		}
	case pair.UpstreamReset:
		info.Flags.Set(stream.UpstreamRemoteReset)
		info.Closed, info.Upstream.Closed = stream.LocalCloseReset, stream.RemoteReset
	case pair.Fault:
		info.Flags.Set(stream.LocalReset)
		info.Closed = stream.LocalCloseReset
	}
	s.leaveShared(o == pair.Complete)
	s.conn.End()
}

func (s *Session) closedFor(why string) {
	r := s.conn.Info.Explain()
	r.LocalClose, r.UpstreamLocalClose = why, why
}

// tooOld ends the connection for its age.
func (s *Session) tooOld() {
	s.factory.stats.maxDuration.Inc()
	s.conn.Info.Flags.Set(stream.DurationTimeout)
	s.closedFor("max_connection_duration_reached")
	s.Close()
}

// checkDrain ends a connection that is to drain, after each read or write.
func (s *Session) checkDrain() {
	if s.conn.Owner.Due() {
		s.factory.stats.drainClose.Inc()
		s.closedFor("drain_close")
		s.Close()
	}
}

// sheds ends a connection whose client sent bytes, or its end, where there is no room
// for them.
func (s *Session) sheds() bool {
	if s.factory.shed == nil || !s.factory.shed() {
		return false
	}
	s.factory.stats.overloadClose.Inc()
	s.conn.Info.Flags.Set(stream.OverloadManager)
	s.conn.Deny("overload_manager_close")
	return true
}

func (s *Session) logPeriodic() {
	s.Flush()
	s.factory.logs.Write(s.conn.Info, accesslog.Periodic)
	s.conn.Core.Worker.After(&s.needSeldom().periodic, s.factory.config.LogOptions.Interval)
}

// Data is never asked of the last filter.
func (s *Session) Data(bool) filter.Status { return filter.Continue }

// Ended writes the access logs: everything is known now.
func (s *Session) Ended() {
	s.factory.logs.Write(s.conn.Info, accesslog.End)
	if h := s.factory.stats.http; h != nil {
		h.active.Dec()
		h.destroy.Inc()
	}
	w := s.conn.Core.Worker
	if t := s.seldom; t != nil {
		w.Stop(&t.duration)
		w.Stop(&t.periodic)
	}
	if s.opening != nil {
		w.Stop(&s.opening.backoff)
	}
}

// Discarded counts bytes that the client sent for nothing.
func (s *Session) Discarded(n uint64) { s.factory.stats.rxBytes.Add(n) }

// Flush brings the byte counters up to date.
func (s *Session) Flush() {
	i, stats := s.conn.Info, s.factory.stats
	if s.pair == nil {
		return
	}
	request, response := s.pair.Bytes()
	rx, tx := request-i.Upstream.Sent, response-i.Sent // since the last time
	s.up.Bytes(tx, rx)
	stats.rxBytes.Add(rx)
	stats.txBytes.Add(tx)
	if h := stats.http; h != nil {
		h.rx.Add(rx)
		h.tx.Add(tx)
	}
	i.Received += rx
	i.Upstream.Sent, i.Sent = request, response
}

// Close ends the connection in order.
func (s *Session) Close() {
	if s.pair != nil {
		// A filter that has closed the connection has closed both.
		if r := s.conn.Info.Reasons(); r.LocalClose != "" {
			s.conn.Info.Explain().UpstreamLocalClose = r.LocalClose
		}
		s.pair.Close()
		return
	}
	s.giveUp()
	s.drop()
}

// Kill ends the connection at once, by RST.
func (s *Session) Kill() {
	if s.pair != nil {
		s.pair.Kill()
		return
	}
	s.giveUp()
	s.conn.ResetSocket()
	s.conn.End()
}

// giveUp forgets what is under way: a connect, or the wait for data or the client.
func (s *Session) giveUp() {
	s.giveUpDemand()
	s.giveUpTLS()
	s.giveUpTunnel()
	s.leaveShared(false)
	if o := s.opening; o != nil && o.dial != nil {
		o.dial.Cancel()
		o.dial = nil
		s.up.GivenUp()
	}
	if s.up.Waits() {
		s.up.GivenUp()
	}
	s.unwatch()
}

// Status fills in what is known of both sides.
func (s *Session) Status(c *api.Connection) {
	if s.pair != nil {
		s.pair.Status(c)
		return
	}
	c.State = "connecting"
	if s.opening != nil && s.opening.early {
		c.State = "awaiting data"
	}
}
