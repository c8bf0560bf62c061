package demo_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// sluice is the binary that TestMain built.
var sluice string

func TestMain(m *testing.M) { os.Exit(build(m)) }

func build(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sluice-demo-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // one test runs it as nobody
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	sluice = filepath.Join(dir, "sluice")
	if b, err := exec.Command("go", "build", "-o", sluice, "../../../cmd/sluice").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build sluice: %v\n%s", err, b)
		return 1
	}
	return m.Run()
}

// run is the demo's exit code and output.
func run(t *testing.T, as *syscall.SysProcAttr, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(sluice, append([]string{"demo", "--verbose"}, args...)...)
	cmd.SysProcAttr = as
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	t.Logf("exit %d\n%s", cmd.ProcessState.ExitCode(), out)
	return cmd.ProcessState.ExitCode(), string(out)
}

// row is the value of a row of the table.
func row(t *testing.T, out, name string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` {2,}(.+)$`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("the table has no row %q", name)
	}
	return m[1]
}

func TestDemoShowsTheMainJobWithoutAFailure(t *testing.T) {
	for splice, path := range map[string]string{"always": "spliced by sockmap", "auto": "grafted"} {
		t.Run(splice, func(t *testing.T) {
			code, out := run(t, nil, "--splice="+splice)
			if code != 0 {
				t.Errorf("exit %d, want 0", code)
			}
			if got := row(t, out, "failures"); got != "0" {
				t.Errorf("%s failures", got)
			}
			if got := row(t, out, "swaps of the endpoint"); got != "200" {
				t.Errorf("%s swaps, want 200", got)
			}
			for _, want := range []string{"kill -9 of the control plane, restarted", "cluster_specifier"} {
				if !strings.Contains(out, want) {
					t.Errorf("the output does not tell of %q", want)
				}
			}
			if os.Geteuid() != 0 {
				return
			}
			for _, name := range []string{"system calls of the proxy per message", "wake-ups of the proxy per message"} {
				if got := row(t, out, name); !strings.HasPrefix(got, "0.") {
					t.Errorf("%s: %s, want less than one", name, got)
				}
			}
			// Most of them.
			if got := row(t, out, "bytes by path"); !regexp.MustCompile(`(^|, )\d{5,} ` + path).MatchString(got) {
				t.Errorf("bytes by path: %s, want most of them %s", got, path)
			}
		})
	}
}

// What a relay costs is not what the rows are about: they must say n/a.
func TestDemoWithoutRootRelaysAndSaysSo(t *testing.T) {
	as := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		as.Credential = &syscall.Credential{Uid: 65534, Gid: 65534, NoSetGroups: true}
	}
	code, out := run(t, as, "--swaps", "10")
	if code != 0 {
		t.Errorf("exit %d, want 0", code)
	}
	for _, name := range []string{"system calls of the proxy per message", "wake-ups of the proxy per message"} {
		if got := row(t, out, name); !strings.HasPrefix(got, "n/a") {
			t.Errorf("%s: %s, want n/a", name, got)
		}
	}
	if got := row(t, out, "bytes by path"); !strings.HasPrefix(got, "0 grafted, 0 spliced") {
		t.Errorf("bytes by path: %s, want all relayed", got)
	}
}

// The checks count once they have failed.
func TestDemoFindsAFaultyBackend(t *testing.T) {
	for fault, want := range map[string]string{
		"corrupt": "came back as",
		"refuse":  "short connection: ",
	} {
		t.Run(fault, func(t *testing.T) {
			code, out := run(t, nil, "--fault="+fault)
			if code != 1 {
				t.Errorf("exit %d, want 1", code)
			}
			if got := row(t, out, "failures"); got == "0" {
				t.Error("no failure was counted")
			}
			if !strings.Contains(out, want) {
				t.Errorf("the failures do not tell %q", want)
			}
			// Nothing else went wrong: the story was played to its end.
			if got := row(t, out, "swaps of the endpoint"); got != "200" {
				t.Errorf("%s swaps, want 200", got)
			}
		})
	}
}

func TestDemoRefusesAnUnknownFault(t *testing.T) {
	if code, out := run(t, nil, "--fault=rain"); code != 1 || !strings.Contains(out, `read --fault: "rain" is none of corrupt, refuse`) {
		t.Errorf("exit %d, %q", code, out)
	}
}
