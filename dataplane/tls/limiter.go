package tls

import "sync"

// Limiter bounds how many handshakes compute at once: one that waits for its peer
// does not count. Who waits is let in in turn.
type Limiter struct {
	slots   chan struct{}
	running sync.WaitGroup
}

// NewLimiter lets n handshakes compute at once.
func NewLimiter(n int) *Limiter { return &Limiter{slots: make(chan struct{}, n)} }

func (l *Limiter) acquire() { l.slots <- struct{}{} }
func (l *Limiter) release() { <-l.slots }

// Wait waits for the goroutines of handshakes that were all cancelled, or are over.
func (l *Limiter) Wait() { l.running.Wait() }
