// Package pair moves the bytes of a downstream and an upstream socket that
// belong together. Each of the two directions travels by a path of its own:
// relay, through user space on the worker's loop; pipe, by splice(2); splice, by the
// kernel's sockmap; or both at once by graft, as packets from client to server. What
// goes through a transport, TLS for one, is relayed.
//
// A pair starts on the relay. The rule (rule.go) says when a direction changes;
// the change itself (change.go) is safe at any moment; the ledger (ledger.go)
// compares what the kernel received with what was handed on, at every change
// and at every end, and a difference resets the pair: a stream is never cut
// short by a clean end.
//
// Everything here runs on the worker that owns the pair.
package pair
