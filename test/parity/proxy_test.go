package parity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// kind is one of the two proxies.
type kind struct {
	name   string
	binary func() (string, error)
	args   []string // further ones
}

var envoy = kind{name: "envoy", binary: func() (string, error) {
	path := os.Getenv("SLUICE_ENVOY")
	if path == "" {
		path = "/opt/envoy/envoy/_bin/envoy"
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find envoy (set SLUICE_ENVOY): %w", err)
	}
	return path, nil
}}

// sluice is built once per run; TestMain removes it.
var sluice = kind{name: "sluice", binary: sync.OnceValues(func() (string, error) {
	path := filepath.Join(scratch, "sluice")
	out, err := exec.Command("go", "build", "-o", path, "../../cmd/sluice").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build sluice: %w: %s", err, out)
	}
	return path, nil
})}

// proxy is a running process.
type proxy struct {
	cmd   *exec.Cmd
	admin netip.AddrPort
	http  *http.Client
	log   *lockedBuffer
	done  chan struct{} // closed when the process has ended
}

// lockedBuffer is written by the process's copy goroutine and read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// launch starts k with the bootstrap, waits until it is ready, and stops it with
// the test.
func launch(tb testing.TB, k kind, bootstrap obj) *proxy {
	tb.Helper()
	p := spawn(tb, k, bootstrap)
	p.awaitLive(tb, k)
	return p
}

// spawn is launch without the wait: /ready may need a control plane.
func spawn(tb testing.TB, k kind, bootstrap obj) *proxy {
	tb.Helper()
	binary, err := k.binary()
	if err != nil {
		tb.Fatal(err)
	}
	p := &proxy{admin: freePort(tb, ownLoopback()), http: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{}}, log: &lockedBuffer{}, done: make(chan struct{})}
	bootstrap["admin"] = obj{"address": address(p.admin)}
	text, err := json.MarshalIndent(bootstrap, "", " ")
	if err != nil {
		tb.Fatal(err)
	}
	file := filepath.Join(tb.TempDir(), "bootstrap.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		tb.Fatal(err)
	}
	p.cmd = exec.Command(binary, append([]string{"-c", file, "--concurrency", "1", "--disable-hot-restart", "--drain-time-s", "1", "-l", "warning", "--file-flush-interval-msec", "50"}, k.args...)...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		tb.Fatalf("start %s: %v", k.name, err)
	}
	go p.wait()
	tb.Cleanup(func() {
		p.stop(tb, k.name)
		if tb.Failed() {
			tb.Logf("log of %s:\n%s", k.name, tail(p.log.String(), 4000))
		}
	})
	return p
}

func (p *proxy) awaitLive(tb testing.TB, k kind) {
	tb.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; {
		if body, code, err := p.get("/ready"); err == nil && code == http.StatusOK && strings.Contains(body, "LIVE") {
			return
		}
		select {
		case <-p.done:
			tb.Fatalf("%s ended at its start: %v", k.name, p.cmd.ProcessState)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			tb.Fatalf("%s is not ready after a minute", k.name)
		}
	}
}

func (p *proxy) wait() {
	_ = p.cmd.Wait() // the state tells
	close(p.done)
}

func (p *proxy) stop(tb testing.TB, name string) {
	select {
	case <-p.done:
		tb.Errorf("%s ended by itself: %v", name, p.cmd.ProcessState)
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			tb.Errorf("%s ended by SIGTERM with %v, want exit 0", name, p.cmd.ProcessState)
		}
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		tb.Errorf("%s did not end by SIGTERM within 10 s", name)
	}
	p.http.CloseIdleConnections()
}

func (p *proxy) get(path string) (body string, code int, err error) {
	r, err := p.http.Get("http://" + p.admin.String() + path)
	if err != nil {
		return "", 0, err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return string(b), r.StatusCode, err
}

// stats are all counters and gauges.
func (p *proxy) stats() (map[string]int64, error) {
	body, code, err := p.get("/stats")
	if err != nil || code != http.StatusOK {
		return nil, fmt.Errorf("get /stats: code %d: %w", code, err)
	}
	stats := make(map[string]int64)
	for line := range strings.Lines(body) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		if n, err := strconv.ParseInt(value, 10, 64); err == nil {
			stats[name] = n
		}
	}
	return stats, nil
}

// listening are the bound addresses by the name of their listener.
func (p *proxy) listening() (map[string][]netip.AddrPort, error) {
	body, code, err := p.get("/listeners")
	if err != nil || code != http.StatusOK {
		return nil, fmt.Errorf("get /listeners: code %d: %w", code, err)
	}
	bound := make(map[string][]netip.AddrPort)
	for line := range strings.Lines(body) {
		name, addr, _ := strings.Cut(strings.TrimSpace(line), "::")
		ap, err := netip.ParseAddrPort(addr)
		if err != nil {
			return nil, fmt.Errorf("read /listeners line %q: %w", line, err)
		}
		bound[name] = append(bound[name], ap)
	}
	return bound, nil
}

var loopbacks atomic.Uint32

// ownLoopback is an address of 127.0.0.0/8 that no connection starts from: a port
// that is free on it stays free until it is bound.
func ownLoopback() string {
	n, pid := loopbacks.Add(1), os.Getpid()
	return netip.AddrFrom4([4]byte{127, byte(100 + pid>>8&63), byte(pid), byte(1 + n%250)}).String()
}

var ports atomic.Uint32

// freePort is a port that nobody listens on, below those that the kernel gives to
// connections and to port 0: so it stays free until it is bound. No two callers
// get the same one.
func freePort(tb testing.TB, host string) netip.AddrPort {
	tb.Helper()
	const first, count = 10_000, 20_000
	var lc net.ListenConfig
	for range count {
		port := first + (uint32(os.Getpid())*64+ports.Add(1))%count
		ln, err := lc.Listen(context.Background(), "tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			tb.Fatal(err)
		}
		defer ln.Close()
		return ln.Addr().(*net.TCPAddr).AddrPort()
	}
	tb.Fatalf("no port of %s is free", host)
	return netip.AddrPort{}
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}
