package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/dataplane/selftest"
)

// capabilities that something here needs, by their numbers in CapEff.
var capabilityNeeds = []struct {
	name string
	bit  int
	uses []bpf.Use
	what string
}{
	{"CAP_BPF", unix.CAP_BPF, []bpf.Use{bpf.UseSplice, bpf.UseGraft, bpf.UseCapture, bpf.UsePins, bpf.UseInbound}, "splice, graft and capture load programs"},
	{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, []bpf.Use{bpf.UseSplice, bpf.UseGraft, bpf.UseCapture, bpf.UsePins, bpf.UseInbound}, "splice, graft and capture attach them; transparent sockets"},
	{"CAP_PERFMON", unix.CAP_PERFMON, []bpf.Use{bpf.UseSplice, bpf.UseGraft}, "splice and graft read the kernel's tcp_sock"},
	{"CAP_NET_RAW", unix.CAP_NET_RAW, nil, "one step of the splice's self-test"},
	{"CAP_NET_BIND_SERVICE", unix.CAP_NET_BIND_SERVICE, nil, "listeners on ports below net.ipv4.ip_unprivileged_port_start"},
}

func (d *doctor) capabilities() {
	have, err := d.effective()
	if err != nil {
		d.say("capabilities", warn, err.Error(), "")
		return
	}
	for _, c := range capabilityNeeds {
		set := have&(1<<c.bit) != 0
		// The older one holds the two newer ones.
		if c.bit == unix.CAP_BPF || c.bit == unix.CAP_PERFMON {
			set = set || have&(1<<unix.CAP_SYS_ADMIN) != 0
		}
		if set {
			d.say(c.name, ok, "", "")
			continue
		}
		d.without = append(d.without, c.name)
		r := warn
		for _, use := range c.uses {
			if d.needs[use] {
				r = fail
			}
		}
		d.say(c.name, r, "not there: "+c.what, "start as root, or give it: systemd AmbientCapabilities=, Kubernetes securityContext.capabilities, setcap")
	}
}

// effective reads CapEff of proc_pid_status(5).
func (d *doctor) effective() (uint64, error) {
	b, err := os.ReadFile(filepath.Join(d.proc, "self/status"))
	if err != nil {
		return 0, fmt.Errorf("read capabilities: %w", err)
	}
	for _, line := range strings.Split(string(b), "\n") {
		if value, found := strings.CutPrefix(line, "CapEff:"); found {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				return 0, fmt.Errorf("read capabilities: %w", err)
			}
			return n, nil
		}
	}
	return 0, errors.New("read capabilities: the process's status has no CapEff")
}

func (d *doctor) features() {
	for _, p := range bpf.Probes() {
		name := useWords[p.Use] + ": " + p.Name
		switch {
		case p.Err == nil:
			d.say(name, ok, "", "")
		case errors.Is(p.Err, bpf.ErrInconclusive): // the capability or the load is what fails
			d.say(name, warn, p.Err.Error(), "")
		case p.Instead != "":
			d.say(name, ok, "not there: "+p.Instead, "")
		default:
			d.say(name, d.missing(p.Use), p.Err.Error(), "another kernel: newer, or built with it")
		}
	}
}

// loads tries what no list of features can promise: that the verifier takes the
// programs.
func (d *doctor) loads() {
	for _, l := range []struct {
		use bpf.Use
		try func() error
	}{{bpf.UseCapture, bpf.TryCapture}, {bpf.UseInbound, bpf.TryInbound}} {
		name := useWords[l.use] + ": its programs load"
		if err := l.try(); err != nil {
			d.say(name, d.missing(l.use), err.Error(), "see the capabilities and features above")
		} else {
			d.say(name, ok, "", "")
		}
	}
}

func (d *doctor) selfTest() {
	splice, err := bpf.Load(1)
	if err != nil {
		d.say("splice: its programs load", d.missing(bpf.UseSplice), err.Error(), "see the capabilities and features above; without, every connection is relayed")
		return
	}
	defer splice.Close()
	d.say("splice: its programs load", ok, "", "")
	steps, _ := selftest.Run(splice, slog.New(slog.DiscardHandler))
	d.steps("splice", bpf.UseSplice, steps, "another kernel; on this one every connection is relayed")
}

func (d *doctor) graftSelfTest() {
	graft, err := bpf.LoadGraft(1, nil)
	if err != nil {
		d.say("graft: its programs load", d.missing(bpf.UseGraft), err.Error(), "see the capabilities and features above; without, no pair is grafted")
		return
	}
	defer graft.Close()
	d.say("graft: its programs load", ok, "", "")
	steps, _ := selftest.RunGraft(graft, slog.New(slog.DiscardHandler))
	d.steps("graft", bpf.UseGraft, steps, "another kernel; on this one no pair is grafted")
}

func (d *doctor) steps(what string, use bpf.Use, steps []api.SelfTestStep, do string) {
	for _, s := range steps {
		name := what + ": self-test: " + s.Name
		switch s.Result {
		case "ok":
			d.say(name, ok, "", "")
		case "failed":
			d.say(name, d.missing(use), s.Detail, do)
		default:
			d.say(name, warn, s.Detail, "")
		}
	}
}
