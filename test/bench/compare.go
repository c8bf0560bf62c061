package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// options are the flags of make bench.
type options struct {
	sluice, out, scratch, only string
	before, proxies            string
	quick, full                bool
	part                       time.Duration
	rounds                     int
}

func (o *options) parse(args []string) error {
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&o.sluice, "sluice", "bin/sluice", "binary of Sluice")
	f.StringVar(&o.out, "out", "bench", "folder for results.md, results.json, the pictures and the state of -full")
	f.StringVar(&o.scratch, "scratch", "bin/bench", "folder for configurations and logs, and for Envoy if install.sh put it there")
	f.BoolVar(&o.quick, "quick", false, "a few cells, in about five minutes")
	f.BoolVar(&o.full, "full", false, "every cell; a call goes on where the last one was stopped")
	f.DurationVar(&o.part, "part", 0, "stop after this time (0: do not)")
	f.IntVar(&o.rounds, "rounds", 0, "rounds (0: the plan's)")
	f.StringVar(&o.only, "only", "", "only cells whose name has this in it, or one of several set apart by |; field: only the ways to forward")
	f.StringVar(&o.proxies, "proxies", "", "only these, by name, with commas between")
	f.StringVar(&o.before, "before", "", "another binary of Sluice to compare with, as before-auto, before-always, before-off")
	if err := f.Parse(args); err != nil {
		return fmt.Errorf("read flags: %w", err)
	}
	if o.quick && o.full {
		return fmt.Errorf("read flags: -quick and -full exclude each other")
	}
	return nil
}

func (o *options) plan() plan {
	p := defaultPlan()
	switch {
	case o.quick:
		p = quickPlan()
	case o.full:
		p = fullPlan()
	}
	if o.rounds > 0 {
		p.Rounds = o.rounds
	}
	if o.only == fieldOnly {
		p.Cells, o.only = nil, ""
	}
	p.Cells = slices.DeleteFunc(p.Cells, func(c Cell) bool {
		return !slices.ContainsFunc(strings.Split(o.only, "|"), func(part string) bool { return strings.Contains(c.String(), part) })
	})
	return p
}

// fieldOnly is no part of any cell's name.
const fieldOnly = "field"

// compare is make bench.
func compare(ctx context.Context, args []string) error {
	var o options
	if err := o.parse(args); err != nil {
		return err
	}
	b, r, err := o.prepare()
	if err != nil {
		return err
	}
	if r.Key, err = key(b); err != nil {
		return err
	}
	if o.full {
		if err := b.resume(r); err != nil {
			return err
		}
	}
	if o.part > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.part, errPart)
		defer cancel()
	}
	fmt.Printf("%s: %d cells, %d rounds, %d proxies and direct: about %v\n", b.plan.Name, len(b.plan.Cells)-len(r.Cells), b.plan.Rounds, len(b.kinds), b.plan.duration(len(b.kinds)).Round(time.Minute))
	err = b.all(ctx, r, o.full)
	if err == nil && o.only == "" && len(r.Field) == 0 {
		fmt.Println("ways to forward")
		if r.Field, err = b.field(ctx); err == nil && o.full {
			err = r.save(b.statePath())
		}
	}
	if err := b.write(r); err != nil {
		return err
	}
	r.summary(os.Stdout, o.out)
	if errors.Is(context.Cause(ctx), errPart) {
		fmt.Printf("stopped after %v, as -part says; call again to go on\n", o.part)
		return nil
	}
	return err
}

// prepare finds what is compared, and where.
func (o *options) prepare() (*bench, *Result, error) {
	if os.Geteuid() != 0 {
		return nil, nil, errors.New("it needs root: for namespaces, for Sluice's splice, and to count system calls")
	}
	scratch, err := filepath.Abs(o.scratch)
	if err != nil {
		return nil, nil, fmt.Errorf("find scratch folder: %w", err)
	}
	t, versions, err := findTools(o.sluice, scratch)
	if err != nil {
		return nil, nil, err
	}
	b := &bench{plan: o.plan(), spawn: newSpawner(), tools: t, scratch: scratch, out: o.out}
	if b.cpus, err = firstCPUs(2); err != nil {
		return nil, nil, err
	}
	r := &Result{Plan: b.plan, Versions: versions, CPU: cpuName(), Started: time.Now()}
	compared := kinds()
	if o.before != "" {
		before, err := filepath.Abs(o.before)
		if err != nil {
			return nil, nil, fmt.Errorf("find sluice of before: %w", err)
		}
		compared = append(compared, earlier(before)...)
	}
	for _, k := range compared {
		if o.proxies != "" && !slices.Contains(strings.Split(o.proxies, ","), k.name) {
			continue
		}
		if k.needs(t) == "" {
			fmt.Printf("%s is not installed: left out\n", k.label)
			r.LeftOut = append(r.LeftOut, k.label)
			continue
		}
		b.kinds = append(b.kinds, k)
	}
	return b, r, nil
}

var errPart = errors.New("the part is over")

// key names what is compared: the binary of Sluice and the plan.
func key(b *bench) (string, error) {
	bin, err := os.ReadFile(b.tools.sluice)
	if err != nil {
		return "", fmt.Errorf("read sluice: %w", err)
	}
	sum := sha256.Sum256(bin)
	return fmt.Sprintf("%s %s %d", hex.EncodeToString(sum[:8]), b.plan.Name, b.plan.Rounds), nil
}

func (b *bench) statePath() string { return filepath.Join(b.out, "state.json") }

// resume takes over what an earlier call has measured of the same.
func (b *bench) resume(r *Result) error {
	old, err := loadResult(b.statePath())
	if err != nil || old == nil {
		return err
	}
	if old.Key != r.Key {
		fmt.Printf("%s is of another binary or plan: starting anew\n", b.statePath())
		return nil
	}
	r.Cells, r.Field, r.Started, r.Took = old.Cells, old.Field, old.Started, old.Took
	fmt.Printf("%d cells are done already\n", len(r.Cells))
	return nil
}

// all measures the cells that r does not have yet.
func (b *bench) all(ctx context.Context, r *Result, keep bool) (err error) {
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return fmt.Errorf("make folder for results: %w", err)
	}
	var w *world
	defer func() {
		if w != nil {
			w.close()
		}
	}()
	for i, c := range b.plan.Cells {
		if slices.ContainsFunc(r.Cells, func(m Measured) bool { return m.Cell == c }) {
			continue
		}
		began := time.Now()
		if w == nil || w.setting != c.Setting {
			if w != nil {
				w.close()
			}
			name := fmt.Sprintf("%s-%d", c.Setting.Topology, c.Setting.CPUs)
			if w, err = newWorld(ctx, c.Setting, filepath.Join(b.scratch, name), b.cpus, b.spawn, b.kinds, b.tools); err != nil {
				return err
			}
		}
		fmt.Printf("[%d/%d] %s\n", i+1, len(b.plan.Cells), c)
		m, err := b.cell(ctx, w, c)
		if err != nil {
			return err
		}
		r.Cells = append(r.Cells, m)
		r.Took += time.Since(began)
		m.line(os.Stdout)
		if keep {
			if err := r.save(b.statePath()); err != nil {
				return err
			}
		}
	}
	return nil
}

// cell measures one, and once again if it was not fair.
func (b *bench) cell(ctx context.Context, w *world, c Cell) (m Measured, err error) {
	for range 2 {
		m = Measured{Cell: c}
		if err := b.measure(ctx, w, c, func(r Run) { m.Runs = append(m.Runs, r) }); err != nil {
			return m, err
		}
		if c.bulk() {
			r, err := b.run(ctx, w, c, nil, true)
			if err != nil {
				return m, err
			}
			m.Unchecked = r.PerSecond
		}
		if m.Void = m.unfair(); len(m.Void) == 0 {
			break
		}
		fmt.Printf("  void: %s\n", strings.Join(m.Void, "; "))
	}
	return m, nil
}

// write brings everything to the folder for results.
func (b *bench) write(r *Result) error {
	if len(r.Cells) == 0 && len(r.Field) == 0 {
		return nil
	}
	if err := r.save(filepath.Join(b.out, "results.json")); err != nil {
		return err
	}
	if err := writeText(filepath.Join(b.out, "results.md"), r.markdown()); err != nil {
		return err
	}
	for name, text := range r.pictures() {
		if text == "" {
			continue
		}
		if err := writeText(filepath.Join(b.out, name), text); err != nil {
			return err
		}
	}
	return nil
}

func cpuName() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	name := "unknown CPU"
	for line := range strings.Lines(string(text)) {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(n) == "model name" {
			name = strings.TrimSpace(v)
			break
		}
	}
	return fmt.Sprintf("%s, %d CPUs", name, runtime.NumCPU())
}
