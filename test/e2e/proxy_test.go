package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// binaries that TestMain built: the product, and the test build that can make a
// self-test step fail.
var sluice, faulty string

func TestMain(m *testing.M) { os.Exit(build(m)) }

func build(m *testing.M) int {
	if os.Getenv("SLUICE_INTRUDE") != "" {
		return m.Run() // as another user, who needs no binary
	}
	dir, err := os.MkdirTemp("", "sluice-e2e")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	sluice, faulty = filepath.Join(dir, "sluice"), filepath.Join(dir, "sluice-faulty")
	for out, tags := range map[string]string{sluice: "", faulty: "sluice_fault"} {
		if b, err := exec.Command("go", "build", "-tags", tags, "-o", out, "../../cmd/sluice").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build sluice: %v\n%s", err, b)
			return 1
		}
	}
	return m.Run()
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
}

// proxy is a running sluice.
type proxy struct {
	t     *testing.T
	cmd   *exec.Cmd
	admin string
	log   string
	// client reaches the admin server; nil is the default one.
	client *http.Client
}

func start(t *testing.T, binary, bootstrap string, env []string, flags ...string) *proxy {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "bootstrap.yaml")
	if err := os.WriteFile(config, []byte(bootstrap), 0o644); err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, log: filepath.Join(dir, "log")}
	address := filepath.Join(dir, "admin")
	args := append([]string{"-c", config, "--admin-address-path", address, "--concurrency", "2", "--log-path", p.log}, flags...)
	p.cmd = exec.Command(binary, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		if t.Failed() {
			b, _ := os.ReadFile(p.log)
			t.Logf("log of the proxy:\n%s", b)
		}
	})
	p.await("the proxy is ready", func() bool {
		b, err := os.ReadFile(address)
		if err != nil || len(b) == 0 {
			return false
		}
		p.admin = string(b)
		code, _ := p.get("/ready")
		return code == 200
	})
	return p
}

func (p *proxy) await(what string, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("gave up waiting until %s", what)
		}
	}
}

func (p *proxy) get(path string) (int, string) {
	client := p.client
	if client == nil {
		client = http.DefaultClient
	}
	r, err := client.Get("http://" + p.admin + path)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(b)
}

type direction struct {
	Path, Reason string
	Bytes        uint64
	Relayed      uint64 `json:"relayed_bytes"`
	Spliced      uint64 `json:"spliced_bytes"`
}

type connection struct {
	Request, Response direction
}

func (p *proxy) connections() (out []connection) {
	p.t.Helper()
	_, b := p.get("/connections")
	if err := json.Unmarshal([]byte(b), &out); err != nil {
		p.t.Fatalf("read /connections: %v\n%s", err, b)
	}
	return out
}

// allSpliced tells whether n connections are open and spliced both ways.
func (p *proxy) allSpliced(n int) bool {
	cs := p.connections()
	for _, c := range cs {
		if c.Request.Path != "splice" || c.Response.Path != "splice" {
			return false
		}
	}
	return len(cs) == n
}

func free(t *testing.T) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return netip.MustParseAddrPort(ln.Addr().String())
}

func address(a netip.AddrPort) string {
	return fmt.Sprintf("{socket_address: {address: %q, port_value: %d}}", a.Addr(), a.Port())
}

const adminAddress = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n"

// static is a bootstrap of one listener before one endpoint.
func static(listener, endpoint netip.AddrPort, extra string) string {
	return adminAddress + strings.NewReplacer("LISTENER", address(listener), "ENDPOINT", address(endpoint), "EXTRA", extra).Replace(`
static_resources:
  listeners:
  - name: l
    address: LISTENER
    EXTRA
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, cluster: c}
  clusters:
  - name: c
    load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: ENDPOINT}}]}]}
`)
}

func dial(t *testing.T, a netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(a))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(60 * time.Second))
	return c
}
