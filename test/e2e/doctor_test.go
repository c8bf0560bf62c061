package e2e

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

type diagnosis struct {
	Fit    bool
	Checks []struct{ Name, Result, Detail, Do string }
}

// doctor runs it under a prefix that takes privileges away, or none.
func doctor(t *testing.T, prefix []string, args ...string) (diagnosis, int) {
	t.Helper()
	line := append(append(prefix, sluice, "doctor", "--json"), args...)
	cmd := exec.Command(line[0], line[1:]...)
	out, err := cmd.Output()
	if _, isExit := err.(*exec.ExitError); err != nil && !isExit {
		t.Fatal(err)
	}
	var d diagnosis
	if err := json.Unmarshal(out, &d); err != nil {
		t.Fatalf("%v: %v\n%s", line, err, out)
	}
	return d, cmd.ProcessState.ExitCode()
}

func (d *diagnosis) result(name string) string {
	for _, c := range d.Checks {
		if strings.HasPrefix(c.Name, name) {
			return c.Result
		}
	}
	return "not looked at"
}

func TestTheDoctorSaysWhatIsMissing(t *testing.T) {
	c := newPinned(t, "open")
	unprivileged := []string{"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"}
	capture := []string{"--capture-cgroup", c.dir, "--capture-pin", c.pin}
	for _, tt := range []struct {
		name   string
		prefix []string
		args   []string
		code   int
		want   map[string]string
	}{
		{"root", nil, append(capture, "--splice", "always", "--capture-inbound-ports", "all"), 0, map[string]string{
			"CAP_BPF": "ok", "capture: its programs load": "ok", "splice: self-test: overlap": "ok", "splice: self-test: resplice": "ok",
			"splice: kfunc": "ok", "inbound capture: ": "ok", "inbound capture: its programs load": "ok", "graft: its programs load": "not looked at", "pins: links": "ok", "pins: " + c.pin: "ok", "capture: cgroup v2": "ok"}},
		{"nobody, asking for nothing", unprivileged, nil, 0, map[string]string{
			"CAP_BPF": "warn", "capture: its programs load": "warn", "splice: its programs load": "warn", "splice: self-test": "not looked at", "graft: its programs load": "warn", "net.core.somaxconn": "ok"}},
		{"nobody, asking for the splice", unprivileged, []string{"--splice", "always"}, 1, map[string]string{
			"CAP_BPF": "fail", "CAP_PERFMON": "fail", "splice: its programs load": "fail", "capture: its programs load": "warn"}},
		{"nobody, without the splice", unprivileged, []string{"--splice", "off"}, 0, map[string]string{"splice: its programs load": "not looked at", "graft: its programs load": "not looked at"}},
		{"nobody, asking for the graft", unprivileged, []string{"--graft", "auto"}, 1, map[string]string{
			"CAP_BPF": "fail", "graft: its programs load": "fail", "splice: its programs load": "warn"}},
		{"without CAP_BPF, asking for capture", []string{"setpriv", "--bounding-set", "-bpf,-sys_admin", "--inh-caps", "-bpf,-sys_admin"}, capture, 1, map[string]string{
			"CAP_BPF": "fail", "CAP_NET_ADMIN": "ok", "capture: its programs load": "fail", "splice: its programs load": "warn"}},
		{"no such cgroup", nil, []string{"--capture-cgroup", "/no/such"}, 1, map[string]string{"capture: cgroup /no/such": "fail", "capture: its programs load": "ok"}},
		{"no bpffs", nil, []string{"--capture-pin", filepath.Join(t.TempDir(), "pins")}, 1, map[string]string{"pins: /": "fail"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, code := doctor(t, tt.prefix, tt.args...)
			if code != tt.code || d.Fit != (code == 0) {
				t.Errorf("exit code %d, fit %v, want %d", code, d.Fit, tt.code)
			}
			for name, want := range tt.want {
				if got := d.result(name); got != want {
					t.Errorf("%s: %s, want %s", name, got, want)
				}
			}
			for _, c := range d.Checks {
				if c.Result == "fail" && c.Do == "" {
					t.Errorf("%s fails, and nothing is said to do", c.Name)
				}
				if t.Failed() {
					t.Logf("%+v", c)
				}
			}
		})
	}
	// Nothing stays of it.
	if _, err := os.Lstat(c.pin); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it made the directory of pins: %v", err)
	}
}
