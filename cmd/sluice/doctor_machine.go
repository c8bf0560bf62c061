package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/bpf"
)

// places are the file systems that capture and pins are at home in.
func (d *doctor) places() {
	if root, err := bpf.Cgroup("/"); err != nil {
		d.say("capture: cgroup v2", d.missing(bpf.UseCapture), err.Error(), "mount it: mount -t cgroup2 none /sys/fs/cgroup/unified")
	} else {
		d.say("capture: cgroup v2", ok, "at "+root, "")
	}
	for _, c := range d.cgroups {
		if dir, err := bpf.Cgroup(c); err != nil {
			d.say("capture: cgroup "+c, fail, err.Error(), "make it, and start the programs in it")
		} else {
			d.say("capture: cgroup "+c, ok, "at "+dir, "")
		}
	}
	if d.pin == "" {
		return
	}
	name := "pins: " + d.pin
	switch err := bpf.CheckPins(d.pin); {
	case err == nil:
		d.say(name, ok, d.pinned(), "")
	case errors.Is(err, bpf.ErrNoBPFFS):
		d.say(name, fail, err.Error(), "mount -t bpf bpf /sys/fs/bpf")
	case errors.Is(err, bpf.ErrPinsInUse):
		d.say(name, warn, err.Error(), "a second Sluice needs another directory; see sluice capture status")
	default:
		d.say(name, fail, err.Error(), "look at what is there, and remove it or name another directory")
	}
}

// pinned says what a dead proxy left.
func (d *doctor) pinned() string {
	s, err := bpf.ReadPins(d.pin)
	switch {
	case errors.Is(err, bpf.ErrNoPins):
		return "nothing is pinned"
	case err != nil:
		return err.Error()
	}
	out := ""
	for _, p := range s {
		out += fmt.Sprintf("%s: process %d left %d hooks there, on exit %s; ", p.Part, p.Process, len(p.Hooks), p.OnExit)
	}
	return strings.TrimSuffix(out, "; ")
}

// The least that a proxy for many connections wants.
const (
	leastPorts   = 20_000
	leastBacklog = 1024
	leastBuffer  = 1 << 20
	leastFiles   = 65_536
	leastOptions = 1024
	leastTCP     = 64 << 20
)

func (d *doctor) sysctls() {
	d.sysctl("net.core.bpf_jit_enable", func(v []uint64) (verdict, string) {
		if v[0] == 0 {
			return warn, "set it to 1: programs are interpreted without"
		}
		return ok, ""
	})
	d.sysctl("net.core.somaxconn", atLeast(0, leastBacklog, "set it to 4096: connections beyond it wait for the client to send its SYN again"))
	d.sysctl("net.ipv4.ip_local_port_range", func(v []uint64) (verdict, string) {
		if len(v) == 2 && v[1]-v[0]+1 < leastPorts {
			return warn, fmt.Sprintf("widen it (1024 65535): so many connections to one endpoint have room, %d now", v[1]-v[0]+1)
		}
		return ok, ""
	})
	d.sysctl("net.ipv4.tcp_rmem", atLeast(2, leastBuffer, "raise the third to 4 MiB or more: it bounds what is in flight on long paths"))
	d.sysctl("net.ipv4.tcp_wmem", atLeast(2, leastBuffer, "raise the third to 4 MiB or more: it bounds what is in flight on long paths"))
	d.sysctl("net.ipv4.tcp_mem", atLeast(1, leastTCP/uint64(os.Getpagesize()), "raise the second, in pages: beyond it TCP shrinks the buffers of every connection, and Sluice splices no more"))
	d.sysctl("net.core.optmem_max", atLeast(0, leastOptions, "raise it to 131072: what captured sockets meant is kept in it"))
	d.sysctl("net.ipv4.tcp_migrate_req", func(v []uint64) (verdict, string) {
		if v[0] == 0 {
			return ok, "1 hands what waits to be accepted to another process on the same port when one ends; 0 resets it"
		}
		return ok, ""
	})
}

func atLeast(field int, least uint64, do string) func([]uint64) (verdict, string) {
	return func(v []uint64) (verdict, string) {
		if field < len(v) && v[field] < least {
			return warn, do
		}
		return ok, ""
	}
}

func (d *doctor) sysctl(name string, judge func([]uint64) (verdict, string)) {
	b, err := os.ReadFile(filepath.Join(d.proc, "sys", strings.ReplaceAll(name, ".", "/")))
	if err != nil {
		d.say(name, ok, "not on this kernel, or not of this namespace", "")
		return
	}
	var values []uint64
	for _, f := range strings.Fields(string(b)) {
		if n, err := strconv.ParseUint(f, 10, 64); err == nil {
			values = append(values, n)
		}
	}
	if len(values) == 0 {
		d.say(name, warn, fmt.Sprintf("%q is no number", b), "")
		return
	}
	r, do := judge(values)
	d.say(name, r, strings.Join(strings.Fields(string(b)), " "), do)
}

func (d *doctor) limits() {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		d.say("RLIMIT_NOFILE", warn, err.Error(), "")
	} else {
		detail := fmt.Sprintf("%d of at most %d: about %d connections at once, two descriptors each", files.Cur, files.Max, files.Cur/2)
		if files.Cur < leastFiles {
			d.say("RLIMIT_NOFILE", warn, detail, "raise it: LimitNOFILE= of systemd, ulimit -Hn")
		} else {
			d.say("RLIMIT_NOFILE", ok, detail, "")
		}
	}
	if slices.Contains(d.without, "CAP_BPF") {
		return // whether maps count against RLIMIT_MEMLOCK cannot be told
	}
	if err := bpf.Memlock(); err != nil {
		d.say("RLIMIT_MEMLOCK", d.missing(bpf.UseCapture), err.Error(), "this kernel counts maps against it: LimitMEMLOCK=infinity of systemd, or CAP_SYS_RESOURCE")
	} else {
		d.say("RLIMIT_MEMLOCK", ok, "maps have room", "")
	}
}
