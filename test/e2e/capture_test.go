package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/bpf"
)

// captured is a cgroup whose programs' connections are captured.
type captured struct {
	t   *testing.T
	dir string
}

func newCaptured(t *testing.T) *captured {
	t.Helper()
	needRoot(t)
	root, err := bpf.Cgroup("/")
	if err != nil {
		t.Skipf("needs cgroup v2: %v", err)
	}
	dir, err := os.MkdirTemp(root, "sluice-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Rmdir(dir); err != nil {
			t.Errorf("remove cgroup: %v", err)
		}
	})
	return &captured{t: t, dir: dir}
}

// run runs a program that knows nothing of the proxy.
func (c *captured) run(name string, args ...string) (string, error) {
	c.t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		c.t.Skipf("needs %s: %v", name, err)
	}
	d, err := os.Open(c.dir)
	if err != nil {
		c.t.Fatal(err)
	}
	defer d.Close()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PGPASSWORD=x", "http_proxy=", "no_proxy=*")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(d.Fd())}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *captured) want(want, name string, args ...string) {
	c.t.Helper()
	got, err := c.run(name, args...)
	if err != nil || !strings.Contains(got, want) {
		c.t.Errorf("%s %v: got %q, %v, want %q", name, args, got, err, want)
	}
}

// mesh is a sidecar of the given addresses: what is captured arrives at all, and
// goes on to the listener of its destination.
func mesh(all4, all6 netip.AddrPort, services map[string]string, passthrough string) string {
	var listeners, clusters strings.Builder
	for to, endpoint := range services {
		name := strings.NewReplacer(".", "-", ":", "-", "[", "", "]", "").Replace(to)
		fmt.Fprintf(&listeners, "  - {name: %q, %s, bind_to_port: false, traffic_direction: OUTBOUND, %s}\n", name, at(to), proxyChain(name))
		fmt.Fprintf(&clusters, "  - %s\n", staticCluster(name, endpoint))
	}
	return adminAddress + `
static_resources:
  listeners:
  - {name: all, ` + at(all4.String()) + `, additional_addresses: [{` + at(all6.String()) + `}], use_original_dst: true, traffic_direction: OUTBOUND, ` + proxyChain("passthrough") + `}
` + listeners.String() + `
  clusters:
  - ` + staticCluster("passthrough", passthrough) + `
` + clusters.String()
}

func free6(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("needs IPv6: %v", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// says is a web server that answers with a word and the client's address.
func says(t *testing.T, word string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, word) })}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

type routesDump struct {
	Generation uint64
	Idle       string
	Routes     []struct{ Prefix, Verdict, Listener, Cluster, Target string }
	Swaps      uint64
	Outcomes   map[string]uint64
}

func (p *proxy) routes() (d routesDump) {
	p.t.Helper()
	_, b := p.get("/routes")
	if err := json.Unmarshal([]byte(b), &d); err != nil {
		p.t.Fatalf("read /routes: %v\n%s", err, b)
	}
	return d
}

// The programs connect to addresses that nobody has; without capture every one
// of them would fail.
func TestUnmodifiedProgramsAreCaptured(t *testing.T) {
	c := newCaptured(t)
	redis, postgres := free(t), free(t)
	program(t, redis, "redis-server", "--port", fmt.Sprint(redis.Port()), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	startPostgres(t, postgres)
	p := start(t, sluice, mesh(free(t), free6(t), map[string]string{
		"192.0.2.10:80": says(t, "web4"), "[2001:db8::10]:80": says(t, "web6"), "0.0.0.0:81": says(t, "wildcard"),
		"192.0.2.11:6379": redis.String(), "192.0.2.12:5432": postgres.String(),
	}, says(t, "passthrough")), nil, "--capture-cgroup", c.dir)

	curl := []string{"-sS", "--max-time", "10", "-w", " at %{remote_ip}:%{remote_port}"}
	for _, tt := range []struct{ url, want string }{
		{"http://192.0.2.10/", "web4 at 192.0.2.10:80"},
		{"http://[2001:db8::10]/", "web6 at 2001:db8::10:80"},
		{"http://[::ffff:192.0.2.10]/", "web4 at ::ffff:192.0.2.10:80"},
		{"http://192.0.2.99:81/", "wildcard at 192.0.2.99:81"},
		{"http://192.0.2.99:82/", "passthrough at 192.0.2.99:82"},
		{"http://[2001:db8::99]:82/", "passthrough at 2001:db8::99:82"},
	} {
		got, err := c.run("curl", append(curl, tt.url)...)
		if err != nil || got != tt.want {
			t.Errorf("curl %s: got %q, %v, want %q", tt.url, got, err, tt.want)
		}
	}
	c.want("PONG", "redis-cli", "-h", "192.0.2.11", "ping")
	c.want("PONG", "redis-cli", "-h", "::ffff:192.0.2.11", "ping")
	c.want("42", "psql", "-h", "192.0.2.12", "-U", "postgres", "-Atc", "select 6*7")

	// Programs outside are left alone, and so is what is excluded by itself.
	if out, err := exec.Command("curl", "-sS", "--max-time", "1", "http://192.0.2.10/").CombinedOutput(); err == nil {
		t.Errorf("a program outside the cgroup was captured: %q", out)
	}
	c.want("direct", "curl", "-sS", "http://"+says(t, "direct")+"/")

	d := p.routes()
	if d.Outcomes["connect.captured"] < 9 || d.Outcomes["syn.noted"] != d.Outcomes["connect.captured"] {
		t.Errorf("outcomes %v", d.Outcomes)
	}
	_, b := p.get("/routes?destination=192.0.2.12:5432")
	for _, want := range []string{`"verdict": "capture"`, `"listener": "192-0-2-12-5432"`, `"cluster": "192-0-2-12-5432"`} {
		if !strings.Contains(b, want) {
			t.Errorf("/routes?destination says %s, without %s", b, want)
		}
	}
	out, err := exec.Command(sluice, "routes", "get", "192.0.2.12:5432", "--admin", p.admin).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "cluster      192-0-2-12-5432") {
		t.Errorf("sluice routes get says %s, %v", out, err)
	}
	if out, err := exec.Command(sluice, "routes", "--admin", p.admin).CombinedOutput(); err != nil || !strings.Contains(string(out), "connect.captured: ") {
		t.Errorf("sluice routes says %s, %v", out, err)
	}
	if _, b := p.get("/routes?destination=127.0.0.1:80"); !strings.Contains(b, "127.0.0.0/8 is excluded") {
		t.Errorf("/routes?destination says %s", b)
	}
}

// The proxy itself is in the captured cgroup: its own connections go out.
func TestTheProxyIsNotCapturedByItself(t *testing.T) {
	c := newCaptured(t)
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	root, err := bpf.Cgroup("/")
	if err != nil {
		t.Fatal(err)
	}
	was := root
	for _, l := range strings.Split(string(own), "\n") {
		if p, ok := strings.CutPrefix(l, "0::"); ok {
			was = filepath.Join(root, p)
		}
	}
	move := func(pid int, dir string) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644); err != nil {
			t.Error(err)
		}
	}
	p := start(t, sluice, mesh(free(t), free6(t), nil, says(t, "passthrough")), nil, "--capture-cgroup", c.dir)
	move(p.cmd.Process.Pid, c.dir)
	defer move(p.cmd.Process.Pid, was)
	for range 20 {
		c.want("passthrough", "curl", "-sS", "--max-time", "10", "http://192.0.2.1/")
	}
	d := p.routes()
	if got := d.Outcomes["connect.captured"]; got != 20 {
		t.Errorf("%d captured of 20 connections", got)
	}
	if got := d.Outcomes["connect.self"]; got != 20 {
		t.Errorf("%d connections of the proxy's own, of 20", got)
	}
}

func TestWhatIsExcludedPasses(t *testing.T) {
	c := newCaptured(t)
	p := start(t, sluice, mesh(free(t), free6(t), map[string]string{"192.0.2.10:80": says(t, "web"), "192.0.2.10:81": says(t, "other")}, says(t, "passthrough")), nil,
		"--capture-cgroup", c.dir, "--capture-ports", "listeners", "--capture-exclude-ports", "81", "--capture-exclude", "198.51.100.0/24,2001:db8::1")
	c.want("web", "curl", "-sS", "--max-time", "10", "http://192.0.2.10/")
	for _, to := range []string{"192.0.2.10:81", "192.0.2.11:80", "198.51.100.7:80", "[2001:db8::1]:80"} {
		if _, b := p.get("/routes?destination=" + to); !strings.Contains(b, `"verdict": "pass"`) {
			t.Errorf("%s: %s", to, b)
		}
	}
	before := p.routes().Outcomes
	c.run("curl", "-sS", "--max-time", "0.2", "http://192.0.2.10:81/")
	c.run("curl", "-sS", "--max-time", "0.2", "http://192.0.2.11:80/")
	c.run("curl", "-sS", "--max-time", "0.2", "http://198.51.100.7/")
	after := p.routes().Outcomes
	for name, want := range map[string]uint64{"connect.passed": 1, "connect.no_route": 1, "connect.excluded": 1, "connect.captured": 0} {
		if got := after[name] - before[name]; got != want {
			t.Errorf("%s counted %d times, want %d", name, got, want)
		}
	}
}

// However the proxy ends, what is opened then passes, and nothing stays in the
// kernel.
func TestAfterTheProxyNothingIsCaptured(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			c := newCaptured(t)
			p := start(t, sluice, mesh(free(t), free6(t), nil, says(t, "passthrough")), nil, "--capture-cgroup", c.dir)
			c.want("passthrough", "curl", "-sS", "--max-time", "10", "http://192.0.2.1/")
			p.cmd.Process.Signal(signal)
			p.cmd.Wait()
			if out, err := c.run("curl", "-sS", "--max-time", "0.5", "http://192.0.2.1/"); err == nil {
				t.Errorf("still captured: %q", out)
			}
			c.want("direct", "curl", "-sS", "http://"+says(t, "direct")+"/")
			p.await("the hooks are gone", func() bool {
				out, err := exec.Command("bpftool", "cgroup", "show", c.dir).CombinedOutput()
				return err == nil && !strings.Contains(string(out), "route_")
			})
		})
	}
}

func TestCaptureIsRefusedWithAReason(t *testing.T) {
	c := newCaptured(t)
	config := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(config, []byte(mesh(free(t), free6(t), nil, "127.0.0.1:1")), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(drop bool, args ...string) string {
		args = append([]string{"-c", config}, args...)
		cmd := exec.Command(sluice, args...)
		if drop {
			cmd = exec.Command("setpriv", append([]string{"--bounding-set", "-bpf,-sys_admin", "--inh-caps", "-bpf,-sys_admin", sluice}, args...)...)
		}
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("%v was accepted", args)
		}
		return string(out)
	}
	for _, tt := range []struct {
		drop bool
		args []string
		want string
	}{
		{false, []string{"--capture-cgroup", "/no/such"}, `start capture: find cgroup "/no/such"`},
		{true, []string{"--capture-cgroup", c.dir}, "operation not permitted"},
		{false, []string{"--capture-cgroup", c.dir, "--capture-ports", "http"}, `read --capture-ports: "http" is no port`},
		{false, []string{"--capture-cgroup", c.dir, "--capture-ports", "9-8"}, `"9-8" ends before it begins`},
		{false, []string{"--capture-cgroup", c.dir, "--capture-exclude", "10.0.0.0/40"}, `read --capture-exclude: "10.0.0.0/40" is neither`},
		{false, []string{"--capture-exclude", "10.0.0.0/8"}, "without --capture-cgroup"},
	} {
		if got := run(tt.drop, tt.args...); !strings.Contains(got, tt.want) {
			t.Errorf("%v: says %q, want %q", tt.args, got, tt.want)
		}
	}
}

// startPostgres starts a database as the user that Debian made for it.
func startPostgres(t *testing.T, at netip.AddrPort) {
	t.Helper()
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	u, err := user.Lookup("postgres")
	if len(bins) == 0 || err != nil {
		t.Skip("needs postgresql")
	}
	dir, err := os.MkdirTemp("", "sluice-pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	as := []string{"--reuid", u.Uid, "--regid", u.Gid, "--clear-groups"}
	if out, err := exec.Command("setpriv", append(as, bins[0]+"/initdb", "-D", dir+"/data", "-A", "trust", "-U", "postgres", "-N")...).CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	program(t, at, "setpriv", append(as, bins[0]+"/postgres", "-D", dir+"/data", "-h", "127.0.0.1", "-p", fmt.Sprint(at.Port()), "-k", dir)...)
}
