package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pinned is capture that outlives the proxy.
type pinned struct {
	*captured
	pin       string
	bootstrap string
	flags     []string
}

func newPinned(t *testing.T, onExit string) *pinned {
	t.Helper()
	c := newCaptured(t)
	// Below /tmp itself, so that nothing but its own mode keeps others out.
	dir, err := os.MkdirTemp("", "sluice-bpffs-")
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(dir, 0), os.Remove(dir)); err != nil {
			t.Errorf("unmount bpffs: %v", err)
		}
	})
	p := &pinned{captured: c, pin: filepath.Join(dir, "sluice")}
	p.bootstrap = mesh(free(t), free6(t), nil, says(t, "passthrough"))
	p.flags = []string{"--capture-cgroup", c.dir, "--capture-pin", p.pin, "--on-exit", onExit}
	return p
}

func (p *pinned) start() *proxy {
	p.t.Helper()
	return start(p.t, sluice, p.bootstrap, nil, p.flags...)
}

func (p *pinned) captures() {
	p.t.Helper()
	for _, to := range destinations {
		p.want("passthrough", "curl", "-sS", "--max-time", "10", to)
	}
}

// destinations are nobody's, of each family.
var destinations = []string{"http://192.0.2.1/", "http://[2001:db8::1]/", "http://[::ffff:192.0.2.1]/"}

type captureStatus struct {
	Part    string
	OnExit  string `json:"on_exit"`
	Process int
	Alive   bool
	Serving bool
	Pins    string
	Hooks   []struct {
		Name, At string
		Link     int
	}
	Outcomes map[string]uint64
}

func (p *pinned) status(args ...string) captureStatus {
	p.t.Helper()
	return statusOf(p.t, "outbound", args...)
}

// statusOf is that of one part.
func statusOf(t *testing.T, part string, args ...string) captureStatus {
	t.Helper()
	out, err := exec.Command(sluice, append([]string{"capture", "status", "--json"}, args...)...).CombinedOutput()
	var all []captureStatus
	if err == nil {
		err = json.Unmarshal(out, &all)
	}
	for _, s := range all {
		if s.Part == part {
			return s
		}
	}
	t.Fatalf("sluice capture status %v: %v\n%s", args, err, out)
	return captureStatus{}
}

func (s *captureStatus) links() map[string]int {
	out := map[string]int{}
	for _, h := range s.Hooks {
		out[h.Name] = h.Link
	}
	return out
}

// without checks what programs get while there is no proxy.
func (p *pinned) without(onExit string) {
	p.t.Helper()
	before := p.status("--capture-pin", p.pin)
	if before.Alive || before.OnExit != onExit {
		p.t.Errorf("status %+v", before)
	}
	for _, to := range destinations {
		out, err := p.run("curl", "-sS", "--max-time", "0.3", to)
		if err == nil {
			p.t.Errorf("%s: captured by nobody: %q", to, out)
		}
	}
	after := p.status("--capture-pin", p.pin)
	for name, policy := range map[string]string{"connect.refused_listener_gone": "closed", "connect.passed_listener_gone": "open keep", "connect.captured": ""} {
		want := uint64(0)
		if policy != "" && strings.Contains(policy, onExit) {
			want = uint64(len(destinations))
		}
		if got := after.Outcomes[name] - before.Outcomes[name]; got != want {
			p.t.Errorf("%s counted %d times, want %d", name, got, want)
		}
	}
}

// listed tells which links bpftool lists.
func listed(t *testing.T, links map[string]int) (out []string) {
	t.Helper()
	for name, id := range links {
		if exec.Command("bpftool", "link", "show", "id", strconv.Itoa(id)).Run() == nil {
			out = append(out, name)
		}
	}
	return out
}

func (p *pinned) nothingIsLeft(links map[string]int) {
	p.t.Helper()
	if _, err := os.Lstat(p.pin); !errors.Is(err, fs.ErrNotExist) {
		p.t.Errorf("the directory of pins is left: %v", err)
	}
	if left := listed(p.t, links); len(left) > 0 {
		p.t.Errorf("links are left: %v", left)
	}
	if out, err := exec.Command("bpftool", "cgroup", "show", p.dir).CombinedOutput(); err != nil || strings.Contains(string(out), "route_") {
		p.t.Errorf("bpftool lists %s, %v", out, err)
	}
}

func TestPinnedCaptureOutlivesTheProxy(t *testing.T) {
	if _, err := exec.LookPath("bpftool"); err != nil {
		t.Skip("needs bpftool")
	}
	for _, onExit := range []string{"open", "closed", "keep"} {
		t.Run(onExit, func(t *testing.T) {
			c := newPinned(t, onExit)
			p := c.start()
			c.captures()
			links := c.status("--capture-pin", c.pin)
			if !links.Alive || !links.Serving || links.Process != p.cmd.Process.Pid || len(links.links()) != 5 || links.Hooks[0].At != c.dir {
				t.Errorf("status %+v", links)
			}
			if got := c.status("--admin", p.admin); !maps.Equal(got.links(), links.links()) || got.OnExit != onExit || got.Pins != "no pins were there" {
				t.Errorf("status by the admin server %+v", got)
			}
			if out, err := exec.Command(sluice, "capture", "clear", "--capture-pin", c.pin).CombinedOutput(); err == nil || !strings.Contains(string(out), "another process has them in use") {
				t.Errorf("clear while the proxy lives: %s, %v", out, err)
			}
			p.cmd.Process.Kill()
			p.cmd.Wait()
			c.without(onExit)

			p = c.start()
			c.captures()
			if got := c.status("--admin", p.admin); got.Pins != "taken over" || !maps.Equal(got.links(), links.links()) {
				t.Errorf("after a restart: %+v, links were %v", got, links.links())
			}
			p.cmd.Process.Signal(syscall.SIGTERM)
			p.cmd.Wait()
			if onExit == "open" {
				c.nothingIsLeft(links.links())
				return
			}
			if got := listed(t, links.links()); len(got) != 5 {
				t.Errorf("links that are left: %v", got)
			}
			c.without(onExit)
			if out, err := exec.Command(sluice, "capture", "status", "--capture-pin", c.pin).CombinedOutput(); err != nil || !strings.Contains(string(out), "is gone: connections") {
				t.Errorf("sluice capture status says %s, %v", out, err)
			}
			if out, err := exec.Command(sluice, "capture", "clear", "--capture-pin", c.pin).CombinedOutput(); err != nil {
				t.Errorf("sluice capture clear says %s, %v", out, err)
			}
			c.nothingIsLeft(links.links())
		})
	}
}

// While the proxy is killed, stopped and started again, every connection is
// captured or refused: none goes to where the program meant.
func TestClosedLeavesNoGap(t *testing.T) {
	c := newPinned(t, "closed")
	stop := filepath.Join(t.TempDir(), "stop")
	p := c.start()
	type ended struct {
		out string
		err error
	}
	done := make(chan ended, 1)
	go func() {
		out, err := c.run("bash", "-c", `while [ ! -e "$0" ]; do { exec 3<>/dev/tcp/192.0.2.1/80; } 2>&1 && echo captured && exec 3>&-; done`, stop)
		done <- ended{out, err}
	}()
	for i := range 4 {
		before := p.routes().Outcomes["connect.captured"]
		p.await("connections are captured", func() bool { return p.routes().Outcomes["connect.captured"] > before+20 })
		if i%2 == 0 {
			p.cmd.Process.Kill()
		} else {
			p.cmd.Process.Signal(syscall.SIGTERM)
		}
		p.cmd.Wait()
		refused := c.status("--capture-pin", c.pin).Outcomes["connect.refused_listener_gone"]
		p.await("connections are refused", func() bool {
			return c.status("--capture-pin", c.pin).Outcomes["connect.refused_listener_gone"] > refused+20
		})
		p = c.start()
	}
	if err := os.WriteFile(stop, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	e := <-done
	counts := map[string]int{}
	for _, line := range strings.Split(strings.TrimSpace(e.out), "\n") {
		counts[line[strings.LastIndex(line, ": ")+1:]]++
	}
	t.Logf("%v", counts)
	for line, n := range counts {
		switch strings.TrimSpace(line) {
		case "captured", "Operation not permitted":
		case "Connection refused", "Connection reset by peer": // by the proxy that ends
		default:
			t.Errorf("%d times %q", n, line)
		}
	}
	if counts["captured"] < 80 || counts[" Operation not permitted"] < 80 {
		t.Errorf("counted %v", counts)
	}
	o := p.routes().Outcomes
	for _, name := range []string{"connect.passed", "connect.no_table", "connect.no_route", "connect.passed_listener_gone", "connect.excluded"} {
		if o[name] != 0 {
			t.Errorf("%s: %d", name, o[name])
		}
	}
	p.cmd.Process.Kill()
	p.cmd.Wait()
	if out, err := exec.Command(sluice, "capture", "clear", "--capture-pin", c.pin).CombinedOutput(); err != nil {
		t.Errorf("sluice capture clear says %s, %v", out, err)
	}
}

// A connection that was captured ends with the proxy, by a reset, never cleanly.
func TestACapturedConnectionEndsWithTheProxy(t *testing.T) {
	c := newPinned(t, "keep")
	p := c.start()
	done := make(chan string, 1)
	go func() {
		out, _ := c.run("bash", "-c", `exec 3<>/dev/tcp/192.0.2.1/80; cat <&3`)
		done <- out
	}()
	p.await("it is open", func() bool {
		_, b := p.get("/connections")
		return strings.Contains(b, `"request":`) && !strings.Contains(b, `"connections": []`)
	})
	p.cmd.Process.Kill()
	p.cmd.Wait()
	select {
	case out := <-done:
		if !strings.Contains(out, "reset by peer") {
			t.Errorf("the program saw %q", out)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the program saw nothing")
	}
	c.start()
	c.captures()
	p.await("status", func() bool { return c.status("--capture-pin", c.pin).Alive })
	t.Cleanup(func() { exec.Command(sluice, "capture", "clear", "--capture-pin", c.pin).Run() })
}

func TestPinsAreRefusedWithAReason(t *testing.T) {
	c := newPinned(t, "closed")
	p := c.start()
	config := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(config, []byte(mesh(free(t), free6(t), nil, "127.0.0.1:1")), 0o644); err != nil {
		t.Fatal(err)
	}
	refused := func(want string, args ...string) {
		t.Helper()
		out, err := exec.Command(sluice, append([]string{"-c", config}, args...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%v: says %q, want %q", args, out, want)
		}
	}
	refused("another process has them in use", c.flags...)
	refused("is not on a bpffs: mount one (mount -t bpf bpf /sys/fs/bpf)", "--capture-cgroup", c.dir, "--capture-pin", t.TempDir())
	refused("read --on-exit: closed needs --capture-pin", "--capture-cgroup", c.dir, "--on-exit", "closed")
	refused(`read --on-exit: "ajar" is none of`, "--capture-cgroup", c.dir, "--on-exit", "ajar")
	refused(`read --capture-when-full: "never" is none of`, "--capture-cgroup", c.dir, "--capture-when-full", "never")
	refused("read --capture-max-routes: 0 is not", "--capture-cgroup", c.dir, "--capture-max-routes", "0")
	refused("without --capture-cgroup or --capture-inbound-ports", "--capture-pin", c.pin)
	c.captures()

	// Another user opens nothing, whether the proxy lives or not.
	for _, pin := range []string{"setting", "life", "tables", "outcomes"} {
		path := filepath.Join(c.pin, "outbound", "current", "map_"+pin)
		as := func(args ...string) (string, error) {
			out, err := exec.Command("setpriv", append(args, "bpftool", "map", "show", "pinned", path)...).CombinedOutput()
			return string(out), err
		}
		if out, err := as("--clear-groups"); err != nil {
			t.Errorf("root cannot open %s, so that the check proves nothing: %s", pin, out)
		}
		if out, err := as("--reuid", "65534", "--regid", "65534", "--clear-groups"); err == nil {
			t.Errorf("uid 65534 opens %s: %s, %v", pin, out, err)
		}
	}
	p.cmd.Process.Kill()
	p.cmd.Wait()
	if err := os.Chmod(c.pin, 0o755); err != nil {
		t.Fatal(err)
	}
	refused("foreign pins: sluice has mode 0755, which lets others in", c.flags...)
	if err := os.Chmod(c.pin, 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(sluice, "capture", "clear", "--capture-pin", c.pin).CombinedOutput()
	if err != nil || string(out) != fmt.Sprintf("cleared %s\n", c.pin) {
		t.Errorf("sluice capture clear says %s, %v", out, err)
	}
	if out, err := exec.Command(sluice, "capture", "clear", "--capture-pin", c.pin).CombinedOutput(); err == nil || !strings.Contains(string(out), "nothing is pinned") {
		t.Errorf("a second time it says %s, %v", out, err)
	}
}

// A sidecar that is gone leaves its application open, or closed to whoever comes
// from outside.
func TestPinnedInboundOutlivesTheProxy(t *testing.T) {
	for _, onExit := range []string{"open", "closed"} {
		t.Run(onExit, func(t *testing.T) {
			inEachFamily(t, func(pod *pod) {
				c := newPinned(pod.t, onExit)
				pod.serve(80)
				start := func() *proxy {
					pod.t.Helper()
					return startIn(pod.t, pod.ns, pod.inboundSidecar("/dev/null", byFlag), "--capture-inbound-ports", "all", "--capture-pin", c.pin, "--on-exit", onExit)
				}
				want := map[string]string{"open": pod.direct(80), "closed": "connection refused"}[onExit]
				answered := func(want string) {
					pod.t.Helper()
					if got := greeting(pod.t, pod.outside, pod.at(80)); !strings.HasSuffix(got, want) {
						pod.t.Errorf("greeted by %q, want %q", got, want)
					}
				}
				p := start()
				answered(pod.proxied(80))
				was := statusOf(pod.t, "inbound", "--capture-pin", c.pin)
				if !was.Alive || was.OnExit != onExit || len(was.Hooks) != 1 || !strings.HasPrefix(was.Hooks[0].At, "net:[") {
					pod.t.Errorf("status %+v", was)
				}
				p.cmd.Process.Kill()
				p.cmd.Wait()
				answered(want)
				if got := greeting(pod.t, pod.ns, pod.at(80)); got != pod.proxied(80) {
					pod.t.Errorf("from the pod itself: greeted by %q", got)
				}
				if s := statusOf(pod.t, "inbound", "--capture-pin", c.pin); s.Alive {
					pod.t.Errorf("status %+v", s)
				}
				p = start()
				answered(pod.proxied(80))
				if now := statusOf(pod.t, "inbound", "--capture-pin", c.pin); !maps.Equal(now.links(), was.links()) {
					pod.t.Errorf("links %v, were %v", now.links(), was.links())
				}
				p.cmd.Process.Signal(syscall.SIGTERM)
				p.cmd.Wait()
				answered(want)
				if onExit == "closed" {
					if out, err := exec.Command(sluice, "capture", "clear", "--capture-pin", c.pin).CombinedOutput(); err != nil {
						pod.t.Errorf("sluice capture clear says %s, %v", out, err)
					}
				}
				answered(pod.direct(80))
				c.nothingIsLeft(was.links())
			})
		})
	}
}
