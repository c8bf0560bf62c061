package xds

import "time"

// fetch is something that is waited for: a whole type, or one EDS name.
type fetch struct{ url, name string }

// fetches are the running initial_fetch_timeouts, on one timer.
type fetches struct {
	timer *time.Timer
	until map[fetch]time.Time // zero: for ever
	next  time.Time           // when the timer fires; zero: it does not run
}

func newFetches() *fetches {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &fetches{timer: t, until: map[fetch]time.Time{}}
}

// start waits for f for d; 0 is for ever.
func (f *fetches) start(w fetch, d time.Duration) {
	if d <= 0 {
		f.until[w] = time.Time{}
		return
	}
	at := time.Now().Add(d)
	f.until[w] = at
	f.fireBy(at)
}

func (f *fetches) fireBy(at time.Time) {
	if f.next.IsZero() || at.Before(f.next) {
		f.next = at
		f.timer.Reset(time.Until(at))
	}
}

func (f *fetches) running(w fetch) bool { _, ok := f.until[w]; return ok }

// cancel leaves the timer as it is: it may fire once for nothing.
func (f *fetches) cancel(w fetch) { delete(f.until, w) }

// keep cancels what want is false for.
func (f *fetches) keep(want func(fetch) bool) {
	for w := range f.until {
		if !want(w) {
			delete(f.until, w)
		}
	}
}

// due takes out what is overdue and sets the timer for the rest.
func (f *fetches) due(now time.Time) []fetch {
	var out []fetch
	f.next = time.Time{}
	for w, at := range f.until {
		switch {
		case at.IsZero():
		case !at.After(now):
			out = append(out, w)
			delete(f.until, w)
		default:
			f.fireBy(at)
		}
	}
	return out
}

func (f *fetches) stop() { f.timer.Stop() }
