package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/test/bench/load"
)

// profiled are the paths whose time is taken apart.
var profiled = []struct {
	proxy string
	cell  Cell
}{
	{direct, Cell{Setting{loopback, 2}, load.Requests, 1 << 10, 16}},
	{"sluice-off", Cell{Setting{loopback, 2}, load.Requests, 1 << 10, 16}},
	{"sluice-always", Cell{Setting{loopback, 2}, load.Requests, 1 << 10, 16}},
	{"nginx", Cell{Setting{loopback, 2}, load.Requests, 1 << 10, 16}},
	{direct, Cell{Setting{loopback, 2}, load.Bulk, 0, 1}},
	{"sluice-auto", Cell{Setting{loopback, 2}, load.Bulk, 0, 1}},
	{"sluice-always", Cell{Setting{loopback, 2}, load.Bulk, 0, 1}},
	{"haproxy-splice", Cell{Setting{loopback, 2}, load.Bulk, 0, 1}},
	{direct, Cell{Setting{loopback, 2}, load.Connections, 64, 16}},
	{"sluice-auto", Cell{Setting{loopback, 2}, load.Connections, 64, 16}},
	{"nginx", Cell{Setting{loopback, 2}, load.Connections, 64, 16}},
}

// part is a place where time goes: the innermost frame of a stack that one of
// its functions begins with decides.
type part struct {
	name      string
	functions []string
}

var parts = []part{
	{"copying", []string{"_copy_to_iter", "_copy_from_iter", "rep_movs", "copy_user", "copy_page", "memcpy", "skb_copy_bits"}},
	{"waking and switching", []string{"try_to_wake_up", "__schedule", "schedule", "finish_task_switch", "ep_poll_callback", "__wake_up", "ttwu_", "queue_work_on", "__queue_work", "kick_pool", "worker_thread", "sched_"}},
	{"verdict and psock", []string{"sk_psock_", "bpf_prog_", "sock_map_", "sock_hash_", "tcp_bpf_", "bpf_sk_redirect"}},
	{"pipes and splice(2)", []string{"splice_", "skb_splice_bits", "__skb_splice", "tcp_splice_read", "pipe_", "__x64_sys_splice", "do_splice"}},
	{"connecting and closing", []string{"tcp_v4_connect", "inet_csk_accept", "tcp_v4_syn_recv_sock", "tcp_conn_request", "tcp_check_req", "tcp_close", "__tcp_close", "inet_create", "__sock_create", "tcp_rcv_state_process", "inet_csk_get_port", "__inet_hash_connect", "inet_csk_destroy_sock", "sock_alloc_file", "__fput", "do_accept", "__sys_connect", "__sys_socket"}},
	{"receiving in TCP and IP", []string{"tcp_v4_rcv", "tcp_rcv_established", "ip_rcv", "ip_local_deliver", "__netif_receive_skb", "process_backlog", "net_rx_action", "tcp_v4_do_rcv"}},
	{"sending in TCP and IP", []string{"tcp_write_xmit", "__tcp_transmit_skb", "tcp_sendmsg", "tcp_push", "__ip_queue_xmit", "ip_output", "__dev_queue_xmit", "loopback_xmit", "__tcp_push_pending_frames", "skb_send_sock", "__skb_send_sock"}},
	{"reading from sockets", []string{"tcp_recvmsg", "__sys_recvfrom", "sock_recvmsg", "inet_recvmsg"}},
	{"epoll", []string{"ep_", "do_epoll", "__x64_sys_epoll", "epoll_"}},
	{"system calls as such", []string{"entry_SYSCALL", "do_syscall_64", "syscall_", "__x64_sys_", "__sys_"}},
	{"other kernel work", []string{"asm_", "__do_softirq", "handle_softirqs", "do_softirq", "ret_from_fork", "kthread", "process_one_work", "secondary_startup"}},
}

const userSpace = "user space"

func partOf(stack []string) string {
	for _, f := range stack { // innermost first
		for _, p := range parts {
			for _, prefix := range p.functions {
				if strings.HasPrefix(f, prefix) {
					return p.name
				}
			}
		}
	}
	return userSpace
}

// Who spends time, as the tables have it.
const (
	theClient  = "client"
	theServer  = "server"
	theProxy   = "proxy"
	theWorkers = "kernel's workers" // of workqueues, and ksoftirqd
	inIdle     = "softirqs in idle"
	others     = "others"
)

// readSamples adds up the samples of perf script, by who it was and part; ours
// names processes. The idle task has none.
func readSamples(r io.Reader, ours map[int]string) (map[string]map[string]int, error) {
	sum := map[string]map[string]int{}
	var who string
	var stack []string
	flush := func() {
		if who != "" && (who != inIdle || !idling(stack)) {
			if sum[who] == nil {
				sum[who] = map[string]int{}
			}
			sum[who][partOf(stack)]++
		}
		who, stack = "", nil
	}
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		line := s.Text()
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
			flush()
		case who == "": // name, which may hold spaces, and pid
			pid, _ := strconv.Atoi(f[len(f)-1])
			who = ours[pid]
			switch {
			case who != "":
			case strings.HasPrefix(f[0], "kworker"), strings.HasPrefix(f[0], "ksoftirqd"):
				who = theWorkers
			case pid == 0 || pid == -1:
				who = inIdle
			default:
				who = others
			}
		case len(f) > 1:
			stack = append(stack, f[1])
		}
	}
	flush()
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read samples: %w", err)
	}
	return sum, nil
}

// idling tells whether the idle task did nothing: interrupts come on top of it.
func idling(stack []string) bool {
	return !slices.ContainsFunc(stack, func(f string) bool {
		return strings.HasPrefix(f, "handle_softirqs") || strings.HasPrefix(f, "__do_softirq")
	})
}

// sampledTime is how long each path is looked at.
const sampledTime = 2 * time.Second

// profile is make profile.
func profile(ctx context.Context, args []string) error {
	var o options
	f := flag.NewFlagSet("profile", flag.ContinueOnError)
	f.StringVar(&o.sluice, "sluice", "bin/sluice", "binary of Sluice")
	f.StringVar(&o.out, "out", "bench", "folder for profile.md")
	f.StringVar(&o.scratch, "scratch", "bin/bench", "folder for configurations, logs and perf's data")
	if err := f.Parse(args); err != nil {
		return fmt.Errorf("read flags: %w", err)
	}
	perf := find("perf", "/usr/bin/perf")
	if perf == "" {
		return fmt.Errorf("find perf: it is not installed (Debian: linux-perf)")
	}
	b, r, err := o.prepare()
	if err != nil {
		return err
	}
	b.plan = plan{Name: "profile", Rounds: 1, Warm: 300 * time.Millisecond, Count: 100 * time.Millisecond}
	w, err := newWorld(ctx, profiled[0].cell.Setting, filepath.Join(b.scratch, "profile"), b.cpus, b.spawn, b.kinds, b.tools)
	if err != nil {
		return err
	}
	defer w.close()
	var text strings.Builder
	fmt.Fprintf(&text, "# Where the time goes\n\nWritten by `make profile` (linux-perf, all CPUs, by the clock: time with interrupts off shows where they come on again). %s, %s, Linux %s, Sluice %s.\n", time.Now().UTC().Format("2006-01-02 15:04 UTC"), r.CPU, r.Versions["kernel"], r.Versions["sluice"])
	for _, what := range profiled {
		var p *proxy
		for _, q := range w.proxies {
			if q.name == what.proxy {
				p = q
			}
		}
		if p == nil && what.proxy != direct {
			continue
		}
		fmt.Printf("%s: %s\n", labelOf(what.proxy), what.cell.Title())
		data := filepath.Join(b.scratch, "profile", "perf.data")
		run, sums, err := b.sampled(ctx, w, what.cell, p, perf, data)
		if err != nil {
			return fmt.Errorf("profile %s: %w", what.proxy, err)
		}
		profileTable(&text, what.proxy, &Measured{Cell: what.cell, Runs: []Run{run}}, run, sums)
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("make folder for the profile: %w", err)
	}
	return writeText(filepath.Join(o.out, "profile.md"), text.String())
}

// sampleRate is perf's, per CPU and second.
const sampleRate = 1999

// sampled runs one path with perf beside it.
func (b *bench) sampled(ctx context.Context, w *world, c Cell, p *proxy, perf, data string) (r Run, sums map[string]map[string]int, err error) {
	cmd := exec.CommandContext(ctx, perf, "record", "-q", "-a", "-g", "-e", "cpu-clock", "-F", fmt.Sprint(sampleRate), "-o", data, "--", "sleep", fmt.Sprint(sampledTime.Seconds()))
	cmd.WaitDelay = time.Second
	ours := map[int]string{}
	sampling := *b
	sampling.timing = func(client *process) error {
		ours[client.cmd.Process.Pid] = theClient
		ours[w.backend.cmd.Process.Pid] = theServer
		if p != nil {
			for _, pid := range p.process.family {
				ours[pid] = theProxy
			}
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("run perf: %w: %s", err, out)
		}
		return nil
	}
	if r, err = sampling.run(ctx, w, c, p, false); err != nil {
		return r, nil, err
	}
	script := exec.CommandContext(ctx, perf, "script", "-i", data, "-F", "comm,pid,ip,sym")
	script.Stderr = io.Discard
	out, err := script.StdoutPipe()
	if err != nil {
		return r, nil, fmt.Errorf("run perf script: %w", err)
	}
	if err := script.Start(); err != nil {
		return r, nil, fmt.Errorf("run perf script: %w", err)
	}
	sums, err = readSamples(out, ours)
	if e := script.Wait(); err == nil && e != nil {
		err = fmt.Errorf("run perf script: %w", e)
	}
	return r, sums, err
}

// profileTable shows one path: what each operation costs whom, and where.
func profileTable(b *strings.Builder, name string, m *Measured, r Run, sums map[string]map[string]int) {
	unit := "us/op"
	if m.Cell.bulk() {
		unit = "s/GiB"
	} else if m.Cell.Kind == load.Connections {
		unit = "us/connection"
	}
	of := map[string]int{}
	for who, byPart := range sums {
		for _, n := range byPart {
			of[who] += n
		}
	}
	cost := func(n int) string {
		return m.cost(float64(n) / sampleRate * 1e9 / (r.PerSecond * sampledTime.Seconds()))
	}
	columns := slices.DeleteFunc([]string{theProxy, theWorkers, inIdle, theClient, theServer, others}, func(who string) bool { return of[who] == 0 })
	fmt.Fprintf(b, "\n## %s: %s\n\n%s\n\n| %s | %s |\n|---|%s\n", labelOf(name), m.Cell.Title(), m.rate(r.PerSecond), unit, strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, p := range append(slices.Clone(parts), part{name: userSpace}) {
		row, sum := []string{p.name}, 0
		for _, who := range columns {
			sum += sums[who][p.name]
			row = append(row, cost(sums[who][p.name]))
		}
		if sum > 0 {
			fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
		}
	}
	row := []string{"**all**"}
	for _, who := range columns {
		row = append(row, cost(of[who]))
	}
	fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
}
