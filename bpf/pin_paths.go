package bpf

import "path/filepath"

// The layout of pins: a directory on a bpffs, whose lock is a flock on it, and in
// it one set of pins. Nothing else may lie there, but a set that is being built.

func pinnedSet(dir string) string           { return filepath.Join(dir, "current") }
func pinnedBuild(dir string) string         { return filepath.Join(dir, "next-*") } // as a pattern
func pinnedMap(set, name string) string     { return filepath.Join(set, "map_"+name) }
func pinnedProgram(set, hook string) string { return filepath.Join(set, "program_"+hook) }
func pinnedLink(set, hook string) string    { return filepath.Join(set, "link_"+hook) }
