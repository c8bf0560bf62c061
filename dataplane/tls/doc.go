// Package tls is Envoy's TLS transport socket on crypto/tls: handshakes of servers
// (listeners) and clients (clusters), and the stream that follows.
//
// A handshake costs up to a millisecond of CPU, so it runs in a goroutine, and so
// many at once as the Limiter lets; the socket stays registered with its worker,
// which wakes the goroutine. What comes after it is cheap and belongs to the
// worker's loop: crypto/tls is called on a socket that never waits, and takes up
// again where it was. So a connection at rest has no goroutine, and everything that
// holds of a plain pair holds of one with TLS.
package tls
