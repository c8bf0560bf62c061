// Command capture compares ways to bring a program's connections to a proxy:
// Sluice's hooks in the kernel, before the relay and before the splice, and
// Envoy behind an nftables REDIRECT rule, beside no proxy at all. Each stands in
// a network namespace of its own with a back end of its own, all alike; the
// client connects, sends one request, reads the answer and the end, and closes.
// The rounds are interleaved.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

func main() {
	// What this thread starts dies with it, and it lives as long as the process.
	runtime.LockOSThread()
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == "client":
		err = runClient(os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == "backend":
		err = runBackend(os.Args[2])
	default:
		err = run()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "capture: %v\n", err)
		os.Exit(1)
	}
}

type options struct {
	sluice, envoy, out string
	rounds             int
	window             time.Duration
}

// loads are the numbers of connections that the client has open at a time.
var loads = []int{1, 16}

func run() error {
	var o options
	flag.StringVar(&o.sluice, "sluice", "bin/sluice", "Sluice")
	flag.StringVar(&o.envoy, "envoy", "/opt/envoy/envoy/_bin/envoy", "Envoy; left out if empty")
	flag.StringVar(&o.out, "out", "bench", "where capture.md and capture.json go")
	flag.IntVar(&o.rounds, "rounds", 7, "rounds")
	flag.DurationVar(&o.window, "window", 1500*time.Millisecond, "how long each run is")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	dir, err := os.MkdirTemp("", "capture")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // Envoy is another user
		return err
	}
	r := &Result{Started: time.Now().UTC(), Rounds: o.rounds, Window: o.window, CPUs: runtime.NumCPU(), Versions: versions(o)}
	var worlds []*world
	defer func() {
		for _, w := range worlds {
			w.close()
		}
	}()
	for _, m := range modes(o) {
		w, err := newWorld(ctx, m, dir)
		if err != nil {
			return fmt.Errorf("set up %s: %w", m.name, err)
		}
		worlds = append(worlds, w)
	}
	for round := range o.rounds + 1 {
		for _, connections := range loads {
			for i := range worlds {
				w := worlds[(i+round)%len(worlds)] // nobody is always the first
				run, err := w.measure(ctx, connections, o.window)
				if err != nil {
					return fmt.Errorf("measure %s: %w", w.mode.name, err)
				}
				if round > 0 { // the first one warms up
					r.Runs = append(r.Runs, run)
				}
			}
		}
	}
	for _, w := range worlds {
		if err := w.verify(); err != nil {
			return fmt.Errorf("verify %s: %w", w.mode.name, err)
		}
		r.Modes = append(r.Modes, w.mode.name)
	}
	return r.write(o.out)
}

func versions(o options) map[string]string {
	out := map[string]string{}
	for name, argv := range map[string][]string{"kernel": {"uname", "-r"}, "envoy": {o.envoy, "--version"}, "sluice": {"git", "log", "-1", "--format=%h"}} {
		b, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		if err != nil { // it is for the reader only
			continue
		}
		v := strings.Join(strings.Fields(string(b)), " ")
		if _, tail, ok := strings.Cut(v, "version: "); ok { // commit/1.40.0/Clean/…
			v = strings.Join(strings.Split(tail, "/")[1:2], "")
		}
		out[name] = v
	}
	return out
}

// Run is one mode under one load once.
type Run struct {
	Mode        string
	Connections int
	PerSecond   float64
	P50, P99    time.Duration // of connect
	Failures    int
}

// Result is what a call measured.
type Result struct {
	Started  time.Time
	Rounds   int
	Window   time.Duration
	CPUs     int
	Versions map[string]string
	Modes    []string
	Runs     []Run
}

func (r *Result) median(mode string, connections int, f func(Run) float64) float64 {
	var v []float64
	for _, x := range r.Runs {
		if x.Mode == mode && x.Connections == connections {
			v = append(v, f(x))
		}
	}
	slices.Sort(v)
	if len(v) == 0 {
		return 0
	}
	return v[len(v)/2]
}

func (r *Result) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, Linux %s, %d CPUs for all, Sluice %s, Envoy %s. %d interleaved rounds of %v each; medians of the rounds.\n\n",
		r.Started.Format("2006-01-02 15:04 UTC"), r.Versions["kernel"], r.CPUs, r.Versions["sluice"], r.Versions["envoy"], r.Rounds, r.Window)
	failures := 0
	for _, x := range r.Runs {
		failures += x.Failures
	}
	for _, n := range loads {
		fmt.Fprintf(&b, "| %d at a time | per second | beside direct | connect p50 | connect p99 |\n|---|---|---|---|---|\n", n)
		direct := r.median(r.Modes[0], n, func(x Run) float64 { return x.PerSecond })
		for _, m := range r.Modes {
			per := r.median(m, n, func(x Run) float64 { return x.PerSecond })
			us := func(f func(Run) time.Duration) float64 {
				return r.median(m, n, func(x Run) float64 { return float64(f(x)) / 1000 })
			}
			fmt.Fprintf(&b, "| %s | %.0f | %.2f | %.0f µs | %.0f µs |\n", m, per, per/direct, us(func(x Run) time.Duration { return x.P50 }), us(func(x Run) time.Duration { return x.P99 }))
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%d connections failed.\n", failures)
	return b.String()
}

func (r *Result) write(dir string) error {
	text := r.markdown()
	fmt.Print(text)
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "capture.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "capture.md"), []byte(text), 0o644)
}
