package demo

import (
	"bytes"
	"context"
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
	"time"
)

// controller is the control plane's process, seen from here.
type controller struct {
	cmd    *exec.Cmd
	orders *json.Encoder
	stdin  io.Closer
	addr   string
	events chan event // closed when the process has ended
}

// startController starts a control plane on listen, which may name port 0.
func startController(binary, listen string) (*controller, error) {
	cmd := exec.Command(binary, "demo", "control-plane", "--listen", listen)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start control plane: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start control plane: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start control plane: %w", err)
	}
	c := &controller{cmd: cmd, orders: json.NewEncoder(stdin), stdin: stdin, events: make(chan event, 4096)}
	out := json.NewDecoder(stdout)
	var first event
	if err := out.Decode(&first); err != nil || first.Kind != "listening" {
		c.kill()
		return nil, fmt.Errorf("start control plane: it said %+v, %v", first, err)
	}
	c.addr = first.Address
	go func() {
		defer close(c.events)
		for {
			var e event
			if out.Decode(&e) != nil {
				return
			}
			c.events <- e
		}
	}()
	return c, nil
}

// push hands the control plane its next state.
func (c *controller) push(o order) error {
	if err := c.orders.Encode(o); err != nil {
		return fmt.Errorf("push version %s: %w", o.Version, err)
	}
	return nil
}

// await returns the first event that ok takes; others before it are dropped.
func (c *controller) await(ctx context.Context, what string, ok func(event) bool) (event, error) {
	for {
		select {
		case e, open := <-c.events:
			if !open {
				return event{}, fmt.Errorf("wait for %s: the control plane ended", what)
			}
			if ok(e) {
				return e, nil
			}
		case <-ctx.Done():
			return event{}, fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		}
	}
}

// kill is kill -9.
func (c *controller) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	c.stdin.Close()
}

// proxy is the process of sluice itself.
type proxy struct {
	cmd    *exec.Cmd
	admin  string
	log    *bytes.Buffer // until it has ended, its own
	client *http.Client
	ended  chan error
}

func (o *options) startProxy(ctx context.Context, dir, controlPlane string) (*proxy, error) {
	at, err := netip.ParseAddrPort(controlPlane)
	if err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	config, admin := filepath.Join(dir, "bootstrap.yaml"), filepath.Join(dir, "admin")
	if err := os.WriteFile(config, fmt.Appendf(nil, bootstrap, at.Addr(), at.Port()), 0o600); err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	p := &proxy{log: new(bytes.Buffer), ended: make(chan error, 1), client: &http.Client{Timeout: 5 * time.Second}}
	p.cmd = exec.Command(o.binary, "-c", config, "--admin-address-path", admin, "--concurrency", "2", "--splice", o.splice)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	err = poll(ctx, "the proxy to be ready", func() bool {
		b, err := os.ReadFile(admin)
		if err != nil || len(b) == 0 {
			return false
		}
		p.admin = string(b)
		_, err = p.get("/ready")
		return err == nil
	})
	if err != nil {
		_ = p.stop(syscall.SIGKILL)
		return nil, fmt.Errorf("%w; its log:\n%s", err, p.log)
	}
	return p, nil
}

// stop ends the process; the error is set when it did not end by itself and well.
func (p *proxy) stop(s syscall.Signal) error {
	_ = p.cmd.Process.Signal(s)
	select {
	case err := <-p.ended:
		return err
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("it was still there 5 s after signal %v", s)
	}
}

func (p *proxy) get(path string) ([]byte, error) {
	r, err := p.client.Get("http://" + p.admin + path)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: %s", path, r.Status)
	}
	return b, err
}

// paths are bytes, by the path that they took.
type paths struct {
	Grafted uint64 `json:"grafted_bytes"`
	Spliced uint64 `json:"spliced_bytes"`
	Piped   uint64 `json:"piped_bytes"`
	Relayed uint64 `json:"relayed_bytes"`
}

func (p *paths) add(q paths) {
	p.Grafted += q.Grafted
	p.Spliced += q.Spliced
	p.Piped += q.Piped
	p.Relayed += q.Relayed
}

func (p paths) sum() uint64 { return p.Grafted + p.Spliced + p.Piped + p.Relayed }

func (p paths) String() string {
	return fmt.Sprintf("%d grafted, %d spliced by sockmap, %d by splice(2), %d relayed by recv and send", p.Grafted, p.Spliced, p.Piped, p.Relayed)
}

// connection is what the demo reads of an element of /connections.
type connection struct {
	Request, Response struct {
		Path   string `json:"path"`
		Reason string `json:"reason"`
		paths
	}
}

func (p *proxy) connections() (out []connection, err error) {
	b, err := p.get("/connections")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("read /connections: %w", err)
	}
	return out, nil
}

// stat is one counter of /stats; 0 when there is none of that name.
func (p *proxy) stat(name string) (uint64, error) {
	b, err := p.get("/stats")
	if err != nil {
		return 0, err
	}
	var n uint64
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			if _, err := fmt.Sscan(value, &n); err != nil {
				return 0, fmt.Errorf("read %s: %w", name, err)
			}
		}
	}
	return n, nil
}

// poll waits until ok, or for the end of ctx.
func poll(ctx context.Context, what string, ok func() bool) error {
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// freePort is an address that nobody listens on at the moment.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}
