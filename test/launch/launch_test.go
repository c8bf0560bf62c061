// Package launch starts Sluice exactly as pilot-agent, kuma-dp, Envoy Gateway and
// consul-dataplane start Envoy: their bootstraps, command lines and order of
// steps, against doubles of their servers. The stories are testdata/*.txtar;
// SLUICE_LAUNCH=/path/to/envoy tells them to Envoy instead.
package launch

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var bin string

func TestMain(m *testing.M) { os.Exit(build(m)) }

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sluice-launch")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	if b, err := exec.Command("go", "build", "-o", filepath.Join(dir, "sluice"), "../../cmd/sluice").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build sluice: %v\n%s", err, b)
		return 1
	}
	return m.Run()
}

// envoy is the oracle's path, or empty.
func envoy() string {
	path := os.Getenv("SLUICE_ENVOY")
	if path == "" {
		path = "/opt/envoy/envoy/_bin/envoy"
	}
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// proxy is what the stories start.
func proxy() string {
	if p := os.Getenv("SLUICE_LAUNCH"); p != "" {
		return p
	}
	return filepath.Join(bin, "sluice")
}

func TestLaunchers(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PROXY", proxy())
			e.Setenv("ENVOY", envoy())
			e.Values[worldKey] = newWorld(e)
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "envoy": // the oracle is there
				return envoy() != "", nil
			case "sluice": // Sluice is under test
				return os.Getenv("SLUICE_LAUNCH") == "", nil
			}
			return false, fmt.Errorf("unknown condition %s", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"ports": ports, "expand": expand, "ca": ca, "backend": backend, "plane": plane, "push": push, "requests": requests,
			"ask": ask, "dial": dial, "hold": hold, "still": still, "fifo": fifo, "closes": closes, "agent": agent, "term": term, "await": await,
		},
	})
}

// term: SIGTERM to what runs in the background; `wait` then asks for a clean exit.
func term(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 0, "term")
	for _, c := range ts.BackgroundCmds() {
		ts.Check(c.Process.Signal(syscall.SIGTERM))
	}
}

// await FILE NAME: waits until the file has content, and puts that into $NAME.
func await(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "await FILE NAME")
	retry(ts, func() error {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && len(b) == 0 {
			err = fmt.Errorf("%s is empty", args[0])
		}
		ts.Setenv(args[1], string(b))
		return err
	})
}

// fifo PATH FILE: a named pipe that FILE is written to, once.
func fifo(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "fifo PATH FILE")
	path, b := ts.MkAbs(args[0]), []byte(ts.ReadFile(args[1]))
	ts.Check(syscall.Mkfifo(path, 0o600))
	done := make(chan error, 1)
	go func() { done <- os.WriteFile(path, b, 0o600) }()
	ts.Defer(func() {
		// Nobody may have read it.
		if f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0); err == nil {
			defer f.Close()
		}
		<-done
	})
}
