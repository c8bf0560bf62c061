package upstream

import "errors"

// ErrRequestOverflow says that max_requests are under way already.
var ErrRequestOverflow = errors.New("request limit reached")

// Request is the accounting of one request on a connection that is shared, from its
// wait for one to its end.
type Request struct {
	host    *Host
	of      *resources
	waiting bool
	active  bool
}

// Wait counts it as one that waits for a connection.
func (r *Request) Wait() error {
	s := r.host.cluster.Stats
	if !r.of.takePending() {
		s.PendingOverflow.Inc()
		return ErrPendingOverflow
	}
	s.PendingTotal.Inc()
	r.host.rqPending.Add(1)
	r.waiting = true
	return nil
}

// Begin counts it as under way.
func (r *Request) Begin() error {
	r.leave()
	u := r.host.cluster
	if r.of.requests.Load() >= int64(r.of.limits.now().MaxRequests) {
		u.http2().rqOverflow.Inc()
		return ErrRequestOverflow
	}
	u.Stats.RqTotal.Inc()
	r.of.request(1)
	r.host.rqTotal.Add(1)
	r.host.rqActive.Add(1)
	r.active = true
	return nil
}

// Eject counts it as one whose connection failed.
func (r *Request) Eject() {
	r.host.cluster.Stats.PendingFailureEject.Inc()
	r.leave()
}

// Alone hands what was counted over to a connection of its own.
func (r *Request) Alone() { r.waiting = false }

// Cancel counts it as one that nobody waits for any more.
func (r *Request) Cancel() {
	if r.waiting {
		r.host.cluster.Stats.Cancelled.Inc()
	}
	r.leave()
}

func (r *Request) leave() {
	if r.waiting {
		r.waiting = false
		r.of.givePending()
		r.host.rqPending.Add(^uint64(0))
	}
}

// End counts its end.
func (r *Request) End() {
	if !r.active {
		return
	}
	r.active = false
	r.of.request(-1)
	r.host.rqActive.Add(^uint64(0))
}
