package control

import (
	"strings"
	"sync"
	"testing"
	"time"
)

// Patience is how long Await waits before it fails the test.
const Patience = 10 * time.Second

// Seen records requests and lets tests wait for them.
type Seen struct {
	mu      sync.Mutex
	all     []Request
	next    int           // first request that Next has not handed out
	changed chan struct{} // closed and replaced with every request
}

func newSeen() *Seen { return &Seen{changed: make(chan struct{})} }

func (s *Seen) add(r Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, r)
	close(s.changed)
	s.changed = make(chan struct{})
}

// Requests returns all requests so far, in order of arrival.
func (s *Seen) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.all...)
}

// Strings returns Requests in their one-line form.
func (s *Seen) Strings() []string {
	var out []string
	for _, r := range s.Requests() {
		out = append(out, r.String())
	}
	return out
}

// Await returns the first request, past or future, for which ok is true; it
// fails the test when none came in time.
func (s *Seen) Await(tb testing.TB, what string, ok func(Request) bool) Request {
	tb.Helper()
	r, found := s.wait(Patience, func() (Request, bool) {
		for _, r := range s.all {
			if ok(r) {
				return r, true
			}
		}
		return Request{}, false
	})
	if !found {
		tb.Fatalf("await %s: not seen in %v among\n\t%s", what, Patience, strings.Join(s.Strings(), "\n\t"))
	}
	return r
}

// Next returns the request after the last one that Next returned.
func (s *Seen) Next(tb testing.TB) Request {
	tb.Helper()
	r, found := s.wait(Patience, s.takeLocked)
	if !found {
		tb.Fatalf("await request: none in %v after\n\t%s", Patience, strings.Join(s.Strings(), "\n\t"))
	}
	return r
}

// Quiet fails the test if a request that Next has not returned comes within d.
func (s *Seen) Quiet(tb testing.TB, d time.Duration) {
	tb.Helper()
	if r, found := s.wait(d, s.takeLocked); found {
		tb.Fatalf("unexpected request %s", r)
	}
}

func (s *Seen) takeLocked() (Request, bool) {
	if s.next == len(s.all) {
		return Request{}, false
	}
	s.next++
	return s.all[s.next-1], true
}

func (s *Seen) wait(d time.Duration, look func() (Request, bool)) (Request, bool) {
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		r, ok := look()
		changed := s.changed
		s.mu.Unlock()
		if ok {
			return r, true
		}
		select {
		case <-changed:
		case <-deadline.C:
			return Request{}, false
		}
	}
}
