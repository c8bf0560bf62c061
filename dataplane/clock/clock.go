// Package clock is the time as it is told to what waits off the workers' loops:
// health checks and outlier detection. Tests move a clock of their own.
package clock

import "time"

// Clock tells the time and calls back.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f in its own goroutine after d.
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is one call that is due.
type Timer interface {
	// Stop prevents the call; false: it was made, or is being made.
	Stop() bool
}

// System is the machine's clock.
type System struct{}

// Now is time.Now.
func (System) Now() time.Time { return time.Now() }

// AfterFunc is time.AfterFunc.
func (System) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }
