// Package loop is the worker: one goroutine, locked to one thread, that owns an
// epoll set, the timers and everything that is registered with them. What runs
// on a worker needs no lock; what comes from elsewhere is posted to it.
//
// All calls that may wait go through epoll; the others are raw, so that a
// message costs its system calls and no visit to Go's scheduler.
package loop
