// Package load makes the benchmark's traffic: a client and a server on epoll
// and raw system calls, as lean as they can be, for what they cost is added to
// every proxy alike and hides the differences. Each connection carries a stream
// of its own, and its receiver compares every byte.
//
// A connection begins with a hello of 16 bytes that tells the server what to do
// with it; then come the messages.
package load
