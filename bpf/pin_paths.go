package bpf

import "path/filepath"

// The layout of pins: a directory on a bpffs, and in it one for each part of
// capture, whose lock is a flock on it. A part has one set of pins. Nothing else
// may lie there, but a set that is being built.

const (
	partOutbound = "outbound"
	partInbound  = "inbound"
)

func pinnedPart(dir, part string) string    { return filepath.Join(dir, part) }
func pinnedSet(part string) string          { return filepath.Join(part, "current") }
func pinnedBuild(part string) string        { return filepath.Join(part, "next-*") } // as a pattern
func pinnedMap(set, name string) string     { return filepath.Join(set, "map_"+name) }
func pinnedProgram(set, hook string) string { return filepath.Join(set, "program_"+hook) }
func pinnedLink(set, hook string) string    { return filepath.Join(set, "link_"+hook) }
