package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/test/netns"
)

const (
	service  = "10.9.0.1:8000" // what clients connect to; the back end is there
	admin    = "127.0.0.1:9901"
	envoyUID = "1337" // whose connections the rule lets pass
)

// redirect is how sidecars take what a program opens.
const redirect = `table ip nat {
	chain output {
		type nat hook output priority -100;
		ip daddr 10.9.0.1 tcp dport 8000 meta skuid != ` + envoyUID + ` redirect to :15001
	}
}`

// config is a sidecar's, the same for both proxies: one listener takes what is
// captured, and hands it to that of the original destination.
const config = `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
static_resources:
  listeners:
  - name: all
    address: {socket_address: {address: 0.0.0.0, port_value: 15001}}
    use_original_dst: true
    traffic_direction: OUTBOUND
    listener_filters: [{name: o, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}]
    filter_chains: [{filters: [{name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: none, cluster: none}}]}]
  - name: service
    address: {socket_address: {address: 10.9.0.1, port_value: 8000}}
    bind_to_port: false
    traffic_direction: OUTBOUND
    filter_chains: [{filters: [{name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: service, cluster: service}}]}]
  clusters:
  - {name: none, type: STATIC}
  - name: service
    type: STATIC
    circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000}]}
    load_assignment: {cluster_name: service, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 10.9.0.1, port_value: 8000}}}}]}]}
`

// mode is one way.
type mode struct {
	name string
	// command starts the proxy, if there is one; CGROUP and CONFIG are filled in.
	command []string
	rule    string // for nft
	capture bool   // the proxy counts what it captured
}

func modes(o options) []mode {
	sluice := func(splice string) []string {
		return []string{o.sluice, "-c", "CONFIG", "--concurrency", "2", "--splice", splice, "--capture-cgroup", "CGROUP", "--log-level", "error"}
	}
	out := []mode{
		{name: "direct"},
		{name: "captured, relay", command: sluice("off"), capture: true},
		{name: "captured, splice", command: sluice("always"), capture: true},
	}
	if o.envoy != "" {
		out = append(out, mode{name: "REDIRECT, Envoy", rule: redirect, command: []string{
			"setpriv", "--reuid", envoyUID, "--regid", envoyUID, "--clear-groups",
			o.envoy, "-c", "CONFIG", "--concurrency", "2", "--disable-hot-restart", "--log-level", "error"}})
	}
	return out
}

// world is a mode in being.
type world struct {
	mode   mode
	ns     *netns.NS
	cgroup string
	log    string
	procs  []*exec.Cmd
	taken  int // connections that went well
}

func newWorld(ctx context.Context, m mode, dir string) (w *world, err error) {
	w = &world{mode: m, log: filepath.Join(dir, strings.ReplaceAll(m.name, " ", "-")+".log")}
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if w.ns, err = netns.New(); err != nil {
		return w, err
	}
	root, err := bpf.Cgroup("/")
	if err != nil {
		return w, err
	}
	if w.cgroup, err = os.MkdirTemp(root, "sluice-capture-"); err != nil {
		return w, err
	}
	if err := w.tool("", "ip", "addr", "add", "10.9.0.1/32", "dev", "lo"); err != nil {
		return w, err
	}
	if m.rule != "" {
		if err := w.tool(m.rule, "nft", "-f", "-"); err != nil {
			return w, err
		}
	}
	if err := w.start(ctx, "/proc/self/exe", "backend", service); err != nil {
		return w, err
	}
	if m.command == nil {
		return w, await("the back end answers", func() bool {
			c, err := w.ns.Dial(ctx, "tcp", service)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
	file := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return w, err
	}
	var argv []string
	for _, a := range m.command {
		argv = append(argv, strings.NewReplacer("CONFIG", file, "CGROUP", w.cgroup).Replace(a))
	}
	if err := w.start(ctx, argv...); err != nil {
		return w, err
	}
	return w, await("the proxy is ready", func() bool { return w.get(ctx, "/ready") != "" })
}

func (w *world) tool(input string, argv ...string) error {
	cmd := exec.Command("nsenter", append([]string{"--net=" + w.ns.Path()}, argv...)...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", argv[0], err, out)
	}
	return nil
}

// start starts a program that stays.
func (w *world) start(ctx context.Context, argv ...string) error {
	log, err := os.OpenFile(w.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + w.ns.Path()}, argv...)...)
	if argv[0] == "/proc/self/exe" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		cmd.Args[2] = self
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	w.procs = append(w.procs, cmd)
	return nil
}

func (w *world) get(ctx context.Context, path string) string {
	c := http.Client{Transport: &http.Transport{DialContext: w.ns.Dial, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin+path, nil)
	if err != nil {
		return ""
	}
	a, err := c.Do(r)
	if err != nil {
		return ""
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != http.StatusOK {
		return ""
	}
	return string(b)
}

// measure runs a client, which knows nothing of any proxy.
func (w *world) measure(ctx context.Context, connections int, window time.Duration) (Run, error) {
	r := Run{Mode: w.mode.name, Connections: connections}
	dir, err := os.Open(w.cgroup)
	if err != nil {
		return r, err
	}
	defer dir.Close()
	self, err := os.Executable()
	if err != nil {
		return r, err
	}
	cmd := exec.CommandContext(ctx, "nsenter", "--net="+w.ns.Path(), self, "client", service, strconv.Itoa(connections), window.String())
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: syscall.SIGKILL}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		log, _ := os.ReadFile(w.log)
		return r, fmt.Errorf("client: %w: %s%s", err, errs.Bytes(), log)
	}
	var c counted
	if err := json.Unmarshal(out.Bytes(), &c); err != nil {
		return r, fmt.Errorf("read client's figures: %w", err)
	}
	w.taken += c.Done
	r.PerSecond, r.P50, r.P99, r.Failures = float64(c.Done)/c.Took.Seconds(), c.P50, c.P99, c.Failures
	return r, nil
}

// verify asks the proxy whether the connections went by it.
func (w *world) verify() error {
	ctx := context.Background()
	switch {
	case w.mode.capture:
		var routes struct{ Outcomes map[string]int }
		if err := json.Unmarshal([]byte(w.get(ctx, "/routes")), &routes); err != nil {
			return fmt.Errorf("read /routes: %w", err)
		}
		if n := routes.Outcomes["connect.captured"]; n < w.taken {
			return fmt.Errorf("%d captured of %d connections", n, w.taken)
		}
	case w.mode.command != nil:
		_, v, _ := strings.Cut(w.get(ctx, "/stats?filter=^tcp.service.downstream_cx_total$"), ": ")
		if n, err := strconv.Atoi(strings.TrimSpace(v)); err != nil || n < w.taken {
			return fmt.Errorf("%q proxied of %d connections", v, w.taken)
		}
	}
	return nil
}

func (w *world) close() {
	for _, p := range w.procs {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
	if w.cgroup != "" {
		_ = unix.Rmdir(w.cgroup)
	}
	if w.ns != nil {
		w.ns.Close()
	}
}

func await(what string, ok func() bool) error {
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("waited in vain until " + what)
		}
	}
	return nil
}
