// Package listen holds the listening sockets. They belong to an address, not to
// a listener: a new listener on an address inherits its sockets, and their
// number does not change while the address lives, for closing one would reset
// the connections that wait in its queue.
package listen
