package health

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/clock"
)

// failureType is HealthCheckFailureType of health_check_event.proto.
type failureType string

const (
	active         failureType = "ACTIVE"
	network        failureType = "NETWORK"
	networkTimeout failureType = "NETWORK_TIMEOUT"
)

// outcome is what one check found; an empty failure is a success.
type outcome struct {
	failure  failureType
	degraded bool
	// retriable failures count against the threshold, as those of the network do;
	// others fail the host at once.
	retriable bool
	// exclude: the host wants to be left out of the count (x-envoy-immediate-health-check-fail).
	exclude bool
	status  int
}

// failed is the outcome of an error of the network.
func failed(err error) outcome {
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return outcome{failure: networkTimeout}
	}
	return outcome{failure: network}
}

// prober does the checks of one host, one at a time.
type prober interface {
	check(context.Context) outcome
	close()
}

// session is one check of one host, again and again. What follows k belongs to
// the checker's lock.
type session struct {
	k     *Checker
	host  *host
	check *check

	prober             prober
	flags              api.HealthFlags
	first              bool // no check has ended yet
	healthy, unhealthy uint32
	timer              clock.Timer
	cancel             context.CancelFunc // of the check that runs
	closed             bool
}

// newSession begins as Envoy does with a new host: it is unhealthy until a check
// says otherwise.
func newSession(k *Checker, h *host, c *check) *session {
	s := &session{k: k, host: h, check: c, first: true, flags: api.FailedActiveHC}
	if k.cluster.IgnoreNewHosts {
		s.flags |= api.PendingActiveHC
	}
	return s
}

func (s *session) startLocked() {
	s.prober = s.newProber(Target{Cluster: s.k.cluster, Check: s.check.config, Endpoint: &s.host.endpoint})
	if jitter := s.check.config.InitialJitter; jitter > 0 {
		s.armLocked(s.jittered(0, jitter))
		return
	}
	s.beginLocked()
}

func (s *session) armLocked(d time.Duration) { s.timer = s.k.o.Clock.AfterFunc(d, s.due) }

func (s *session) due() {
	s.k.mu.Lock()
	defer s.k.mu.Unlock()
	if !s.closed && s.cancel == nil {
		s.beginLocked()
	}
}

func (s *session) beginLocked() {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.check.stats.attempt.Inc()
	go s.run(ctx, s.prober)
}

// run is one check. Its time begins when it gets its slot.
func (s *session) run(ctx context.Context, p prober) {
	select {
	case s.k.o.Slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	timed, cancel := context.WithTimeout(ctx, s.check.config.Timeout)
	out := p.check(timed)
	cancel()
	<-s.k.o.Slots
	if ctx.Err() == nil {
		s.ended(out, true)
	}
}

// lost says that a connection that was kept for the next check is gone, which is
// a failure for Envoy too.
func (s *session) lost() { s.ended(outcome{failure: network}, false) }

// ended takes over what a check found, and arms the timer of the next.
func (s *session) ended(out outcome, checked bool) {
	k := s.k
	k.mu.Lock()
	if s.closed || checked == (s.cancel == nil) {
		k.mu.Unlock()
		return
	}
	if s.cancel != nil {
		s.cancel()
		s.cancel = nil
	}
	if s.timer != nil {
		s.timer.Stop()
	}
	var c change
	was := s.host.flagsLocked()
	if out.failure == "" {
		c = s.succeededLocked(out)
	} else {
		c = s.failedLocked(out)
	}
	if s.first {
		s.first = false
		k.unready--
	}
	s.armLocked(s.interval(out.failure == "", c))
	// Whoever is told asks for the flags, so that the last word counts.
	told, addr, healthy, moved := k.told, s.host.addr, out.failure == "" && s.flags&api.FailedActiveHC == 0, was != s.host.flagsLocked()
	k.mu.Unlock()
	if told != nil {
		told(addr, healthy, moved)
	}
	k.mu.Lock()
	k.readyLocked()
	k.mu.Unlock()
}

// change is Envoy's HealthTransition.
type change uint8

const (
	unchanged change = iota
	changed
	pending
)

func (s *session) succeededLocked(out outcome) (c change) {
	s.unhealthy = 0
	if s.flags&api.FailedActiveHC != 0 {
		s.healthy++
		// The first check decides.
		if s.first || s.healthy == s.check.config.HealthyThreshold {
			s.setLocked(0, api.ActiveHCTimeout|api.ExcludedViaImmediateHCFail|api.FailedActiveHC)
			c = changed
			s.log(event{AddHealthy: &firstCheck{s.first}})
		} else {
			c = pending
		}
	}
	if c != changed && s.check.config.AlwaysLogSuccess {
		s.log(event{Successful: &struct{}{}})
	}
	if was := s.flags&api.DegradedActiveHC != 0; was != out.degraded {
		if out.degraded {
			s.setLocked(api.DegradedActiveHC, 0)
			s.log(event{Degraded: &struct{}{}})
		} else {
			s.setLocked(0, api.DegradedActiveHC)
			s.log(event{NoLongerDegraded: &struct{}{}})
		}
		if c == unchanged {
			c = changed
		}
	}
	s.setLocked(0, api.PendingActiveHC)
	s.check.stats.success.Inc()
	return c
}

func (s *session) failedLocked(out outcome) (c change) {
	s.healthy = 0
	ofNetwork := out.failure == network || out.failure == networkTimeout
	if s.flags&api.FailedActiveHC == 0 {
		s.unhealthy++
		if !ofNetwork && !out.retriable || s.unhealthy == s.check.config.UnhealthyThreshold {
			s.setLocked(api.FailedActiveHC, 0)
			c = changed
			s.log(event{Eject: &ejection{out.failure, out.status}})
		} else {
			c = pending
		}
	}
	if s.flags&api.FailedActiveHC != 0 {
		if out.failure == networkTimeout {
			s.setLocked(api.ActiveHCTimeout, 0)
		} else {
			s.setLocked(0, api.ActiveHCTimeout)
		}
	}
	if out.exclude {
		s.setLocked(api.ExcludedViaImmediateHCFail, 0)
	}
	if s.flags&api.PendingActiveHC != 0 {
		s.setLocked(0, api.PendingActiveHC)
		c = changed
	}
	if s.first || s.check.config.AlwaysLogFailures {
		s.log(event{Failure: &failureEvent{out.failure, s.first, out.status}})
	}
	s.check.stats.failure.Inc()
	if ofNetwork {
		s.check.stats.networkFailure.Inc()
	}
	return c
}

// setLocked sets and clears flags, and keeps the gauges.
func (s *session) setLocked(set, clear api.HealthFlags) {
	was := s.host.flagsLocked()
	own := s.flags
	s.flags = own&^clear | set
	s.check.stats.moved(own, s.flags, was, s.host.flagsLocked())
}

func (h *host) flagsLocked() (f api.HealthFlags) {
	for _, s := range h.sessions {
		f |= s.flags
	}
	return f
}

func (s *session) closeLocked() {
	if s.closed {
		return
	}
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.cancel != nil {
		s.cancel()
		s.cancel = nil
	}
	if s.first {
		// Nobody is to wait for a check that never comes.
		s.k.unready--
		s.k.readyLocked()
	}
	s.check.stats.moved(s.flags, api.FailedActiveHC, s.host.flagsLocked(), api.FailedActiveHC)
	s.flags = api.FailedActiveHC
	// It may wait for the connection.
	go s.prober.close()
}
