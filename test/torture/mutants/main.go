// Command mutants breaks the rules of splice and graft one by one, in a copy of the
// tree, and checks that the named test of each sees it. A patch beside this file
// is one broken rule; the lines before its first "---" say
//
//	Rule: what it breaks
//	Test: package, test, and arguments for it
//	Symptom: what one sees
//
// A mutant is killed when its test fails within a minute. Run it from the root of
// the tree, as root.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

const dir = "test/torture/mutants"

// limit is how long a test has to see the mutant, without its compilation.
const limit = time.Minute

func main() {
	only := flag.String("only", "", "numbers of mutants, with commas; all by default")
	some := flag.Int("some", 0, "so many mutants, others each day and commit")
	flag.Parse()
	if err := run(*only, *some); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(only string, some int) error {
	all, err := read(dir)
	if err != nil {
		return err
	}
	chosen := all
	if only != "" {
		names := strings.Split(only, ",")
		chosen = slices.DeleteFunc(slices.Clone(all), func(m mutant) bool { return !slices.Contains(names, m.number) })
	} else if some > 0 {
		chosen = rotate(all, some, today())
	}
	scratch, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	if err := copyTree(scratch); err != nil {
		return err
	}
	sound := map[string]error{} // tests without any mutant
	survived := 0
	for _, m := range chosen {
		began := time.Now()
		if _, tried := sound[m.test]; !tried {
			sound[m.test] = m.try(scratch, 3*limit)
		}
		outcome := ""
		if err := sound[m.test]; err != nil {
			outcome = "the test fails without it: " + err.Error()
		} else if outcome, err = m.kill(scratch); err != nil {
			outcome = err.Error()
		}
		if !strings.HasPrefix(outcome, "killed") {
			survived++
		}
		fmt.Printf("%s %-60s %-44s %s (%v)\n", m.number, m.rule, m.test, outcome, time.Since(began).Round(time.Second))
	}
	if survived > 0 {
		return fmt.Errorf("%d of %d mutants were not killed", survived, len(chosen))
	}
	fmt.Printf("%d mutants of %d, all killed\n", len(chosen), len(all))
	return nil
}

// mutant is one patch.
type mutant struct {
	number, rule, test, symptom string
	patch                       []byte
}

func read(dir string) ([]mutant, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	var out []mutant
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		m := mutant{number: strings.TrimSuffix(filepath.Base(file), ".patch"), patch: text}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			switch key {
			case "Rule":
				m.rule = value
			case "Test":
				m.test = value
			case "Symptom":
				m.symptom = value
			}
			if strings.HasPrefix(line, "--- ") {
				break
			}
		}
		if m.rule == "" || m.test == "" || m.symptom == "" {
			return nil, fmt.Errorf("read %s: no Rule, Test or Symptom", file)
		}
		out = append(out, m)
	}
	return out, nil
}

// rotate picks by day and by commit, so that each comes up.
func rotate(all []mutant, n, start int) []mutant {
	n = min(n, len(all))
	var out []mutant
	for i := range n {
		out = append(out, all[(start+i*len(all)/n)%len(all)])
	}
	return out
}

// today is another number each day, and for each commit.
func today() int {
	start := time.Now().YearDay()
	if head, err := exec.Command("git", "rev-parse", "HEAD").Output(); err == nil {
		for _, c := range head[:8] {
			start += int(c)
		}
	}
	return start
}

// copyTree copies what git knows or would, with changes that are not committed.
func copyTree(to string) error {
	list, err := exec.Command("git", "ls-files", "-co", "--exclude-standard", "-z").Output()
	if err != nil {
		return fmt.Errorf("list files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		at := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(at, text, info.Mode()); err != nil {
			return err
		}
	}
	return nil
}

// kill applies the patch, runs the test and takes the patch away again.
func (m mutant) kill(tree string) (outcome string, err error) {
	if out, err := m.apply(tree, false); err != nil {
		return "", fmt.Errorf("apply: %w: %s", err, out)
	}
	defer func() {
		out, uerr := m.apply(tree, true)
		if uerr == nil {
			uerr = m.generate(tree)
		}
		if uerr != nil {
			err = errors.Join(err, fmt.Errorf("take back: %w: %s", uerr, out))
		}
	}()
	if err := m.generate(tree); err != nil {
		return "", err
	}
	switch err := m.try(tree, limit); {
	case err == nil:
		return "SURVIVED", nil
	case errors.Is(err, errBuild):
		return "", err
	default:
		return "killed: " + err.Error(), nil
	}
}

func (m mutant) apply(tree string, reverse bool) ([]byte, error) {
	args := []string{"-p1", "-s", "-f", "--no-backup-if-mismatch"}
	if reverse {
		args = append(args, "-R")
	}
	cmd := exec.Command("patch", args...)
	cmd.Dir, cmd.Stdin = tree, bytes.NewReader(m.patch)
	return cmd.CombinedOutput()
}

// ofPrograms finds a patch of C, which has to be compiled.
var ofPrograms = regexp.MustCompile(`(?m)^\+\+\+ b/bpf/.*\.[ch]$`)

// generate compiles the BPF programs if the patch touches them.
func (m mutant) generate(tree string) error {
	if !ofPrograms.Match(m.patch) {
		return nil
	}
	cmd := exec.Command("go", "generate", "./bpf")
	cmd.Dir = tree
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: generate: %w: %s", errBuild, err, out)
	}
	return nil
}

var errBuild = errors.New("does not build")

// try runs the test. nil is that it passed.
func (m mutant) try(tree string, limit time.Duration) error {
	fields := strings.Fields(m.test)
	pkg, name, args := fields[0], fields[1], fields[2:]
	binary := filepath.Join(tree, "mutant.test")
	build := exec.Command("go", "test", "-c", "-o", binary, pkg)
	build.Dir = tree
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %w: %s", errBuild, err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"-test.run", "^" + name + "$"}, args...)...)
	cmd.Dir = filepath.Join(tree, pkg)
	// A mutant may leave processes behind: they go with its group.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil && bytes.Contains(out, []byte("no tests to run")):
		return fmt.Errorf("%w: no test %s in %s", errBuild, name, pkg)
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("hung for %v", limit)
	}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if _, what, ok := strings.Cut(line, "_test.go:"); ok {
			_, what, _ = strings.Cut(what, ": ")
			return errors.New(what[:min(len(what), 100)])
		}
	}
	return errors.New(strings.TrimSpace(string(out[:min(len(out), 100)])))
}
