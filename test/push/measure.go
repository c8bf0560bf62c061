package main

import (
	"bufio"
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
	"strconv"
	"strings"
	"syscall"
	"time"
)

type options struct {
	clusters, endpoints, listeners int
	api, envoy, sluice             string
}

type figures struct {
	inForce   time.Duration // from the push until all listeners are active
	memory    int           // resident, then
	pushCPU   time.Duration
	effect    time.Duration // one endpoint changed, until a connection goes there
	effectCPU time.Duration // until a second after
	calm      time.Duration // p99 of a ping through the relay
	busy      time.Duration // the same during the push
}

func (o options) measure(ctx context.Context, name, binary string) (f figures, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	relay := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 3, 0, 1}), 10000)
	l, back, err := startLoad(ctx, relay, 8)
	if err != nil {
		return f, err
	}
	defer l.stop()
	cp, err := startServer(ctx)
	if err != nil {
		return f, err
	}
	defer cp.stop()
	if err := cp.push("0", nil); err != nil {
		return f, err
	}
	dir, err := os.MkdirTemp("", "push")
	if err != nil {
		return f, err
	}
	defer os.RemoveAll(dir)
	text, err := json.Marshal(o.bootstrap(cp.at, relay, back))
	if err != nil {
		return f, err
	}
	config, address := filepath.Join(dir, "bootstrap.json"), filepath.Join(dir, "admin")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return f, err
	}
	args := []string{"-c", config, "--concurrency", "2", "--admin-address-path", address, "--log-path", filepath.Join(dir, "log")}
	if name == "envoy" {
		args = append(args, "--disable-hot-restart")
	} else {
		args = append(args, "--splice=off")
	}
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return f, err
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	p := process{pid: cmd.Process.Pid, file: address}
	if err := await(20*time.Second, func() bool { return p.get("/ready") != "" && p.active() == 1 }); err != nil {
		return f, fmt.Errorf("start: %w", err)
	}

	if err := l.ping(); err != nil {
		return f, err
	}
	time.Sleep(3 * time.Second)
	if f.calm, err = l.p99(); err != nil {
		return f, err
	}

	before, began := p.cpu(), time.Now()
	if err := cp.push("1", o.resources(back, 0)); err != nil {
		return f, err
	}
	if err := await(5*time.Minute, func() bool { return p.active() == 1+o.listeners }); err != nil {
		return f, fmt.Errorf("%d of %d listeners are active: %w", p.active()-1, o.listeners, err)
	}
	f.inForce, f.pushCPU = time.Since(began), p.cpu()-before
	if f.busy, err = l.p99(); err != nil {
		return f, err
	}
	f.memory = p.rss()
	time.Sleep(2 * time.Second) // what is still going on is not the next push's

	next := o.resources(back, 1)
	before, began = p.cpu(), time.Now()
	if err := cp.push("2", next); err != nil {
		return f, err
	}
	if err := await(30*time.Second, func() bool { return greeting(listenerAt(0)) == host(1, back).Addr().String() }); err != nil {
		return f, fmt.Errorf("changed endpoint: %w", err)
	}
	// The time that go-control-plane takes to find the difference is not counted.
	f.effect = time.Since(time.Unix(0, cp.endpoints.Load()))
	took := time.Since(began)
	time.Sleep(time.Second)
	f.effectCPU = p.cpu() - before
	// The load's share of the processor is the same before and after.
	idle, since := p.cpu(), time.Now()
	time.Sleep(time.Second)
	f.effectCPU -= time.Duration(float64(p.cpu()-idle) / float64(time.Since(since)) * float64(took+time.Second))
	_, err = l.p99() // whether all is well still
	return f, err
}

func await(d time.Duration, ok func() bool) error {
	for deadline := time.Now().Add(d); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v", d)
		}
	}
	return nil
}

// process is the proxy that is measured.
type process struct {
	pid  int
	file string // where it writes its admin address
}

func (p process) get(path string) string {
	at, err := os.ReadFile(p.file)
	if err != nil || len(at) == 0 {
		return ""
	}
	r, err := http.Get("http://" + strings.TrimSpace(string(at)) + path)
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(r.Body)
	if r.StatusCode != http.StatusOK {
		return ""
	}
	return string(b)
}

// active is how many listeners are.
func (p process) active() int {
	_, v, _ := strings.Cut(p.get("/stats?filter=^listener_manager.total_listeners_active$"), ": ")
	n, _ := strconv.Atoi(strings.TrimSpace(v))
	return n
}

func (p process) rss() int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.pid))
	if f := strings.Fields(string(b)); len(f) > 1 {
		n, _ := strconv.Atoi(f[1])
		return n * os.Getpagesize()
	}
	return 0
}

// cpu is the processor time used so far, of the threads that live.
func (p process) cpu() (sum time.Duration) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.pid))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		on, _, _ := strings.Cut(string(b), " ")
		ns, _ := strconv.ParseInt(on, 10, 64)
		sum += time.Duration(ns)
	}
	return sum
}

// listenEcho answers on every address of 127.0.0.0/8: a line that says which one
// was dialled, then the echo.
func listenEcho(ctx context.Context) (port uint16, err error) {
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		return 0, err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintln(c, netip.MustParseAddrPort(c.LocalAddr().String()).Addr())
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort().Port(), nil
}

func greeting(at netip.AddrPort) string {
	c, err := net.DialTimeout("tcp", at.String(), time.Second)
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	line, _ := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line)
}
