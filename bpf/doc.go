// Package bpf holds the programs that run in the kernel and the only code that
// talks to them. Nothing outside it imports cilium/ebpf.
//
// The exported API is hand-written; the names that bpf2go generates stay
// private. Words are the same in C and in Go: a direction has a slot, sockets
// are intercepted or targets, and a verdict exits for a reason.
package bpf
