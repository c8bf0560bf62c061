// Package http2 is HTTP/2 to hosts, as far as tunnels need it: connections that
// streams share, on the worker's loop, each stream a transport of a pair. The frames
// and the compression of headers are golang.org/x/net's.
//
// What a stream may take from its host is bounded by its window, which opens as the
// client takes the bytes; the connection's own window opens at once, so that one slow
// client does not hold up the others.
package http2

import "errors"

// Why a stream was not opened, or broke.
var (
	// ErrLost says that the connection ended; Envoy has no words for that.
	ErrLost = errors.New("connection ended")
	// ErrReset says that the host reset the stream.
	ErrReset = errors.New("stream was reset")
	// ErrProtocol says that what the host sent is no HTTP/2.
	ErrProtocol = errors.New("protocol error")
	errIdle     = errors.New("idle timeout")
	errDrained  = errors.New("drained")
	errFlood    = errors.New("too much to answer")
	errSilent   = errors.New("keep-alive was not answered")
)

const (
	// maxFrame is SETTINGS_MAX_FRAME_SIZE, both ways.
	maxFrame = 16 << 10
	// sendRoom is what may be framed and wait for the socket before streams have to
	// wait; maxControl what answers to the host may add to it.
	sendRoom   = 256 << 10
	maxControl = 1 << 20
	// unknownStreams may be opened before the host has told its limit, as in nghttp2.
	unknownStreams = 100
	// readSize and readRounds bound one turn.
	readSize   = 64 << 10
	readRounds = 4
)
