package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/bpf"
)

// cost is what messages that the kernel hands on cost the proxy.
type cost struct {
	messages, calls, wakeups uint64
	// why it could not be measured; empty when it was.
	why string
}

// window is for how long messages are counted.
const window = 1500 * time.Millisecond

// measureCost counts while nothing but the long-lived connections is at work.
func measureCost(ctx context.Context, p *proxy, t *tally) (cost, error) {
	if os.Geteuid() != 0 {
		return cost{why: "not root: everything is relayed"}, nil
	}
	why := ""
	within, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	if err := poll(within, "splices and grafts", func() bool { why = relayed(p); return why == "" }); err != nil {
		return cost{why: why}, context.Cause(ctx)
	}
	counter, err := bpf.CountSyscalls()
	if err != nil {
		return cost{why: err.Error()}, nil
	}
	defer counter.Close()
	pid := p.cmd.Process.Pid
	before, err := wakeups(pid)
	if err != nil {
		return cost{}, err
	}
	if err := counter.Watch(pid); err != nil {
		return cost{}, err
	}
	messages := t.messages.Load()
	select {
	case <-time.After(window):
	case <-ctx.Done():
		return cost{}, context.Cause(ctx)
	}
	calls, err := counter.Count(pid)
	if err != nil {
		return cost{}, err
	}
	after, err := wakeups(pid)
	if err != nil {
		return cost{}, err
	}
	// A ping and its pong are two messages.
	return cost{messages: 2 * uint64(t.messages.Load()-messages), calls: calls, wakeups: after - before}, nil
}

// relayed says why not every connection is spliced or grafted both ways; empty when
// each is.
func relayed(p *proxy) string {
	cs, err := p.connections()
	if err != nil {
		return err.Error()
	}
	if len(cs) == 0 {
		return "no connection is open"
	}
	for _, c := range cs {
		for _, d := range []struct{ path, reason string }{{c.Request.Path, c.Request.Reason}, {c.Response.Path, c.Response.Reason}} {
			if d.path != "splice" && d.path != "graft" {
				return fmt.Sprintf("on path %s: %s", d.path, d.reason)
			}
		}
	}
	return ""
}

// wakeups are the voluntary context switches of all threads of a process: each
// is a sleep that something ended.
func wakeups(pid int) (uint64, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("read threads of process %d: %w", pid, os.ErrNotExist)
	}
	var sum uint64
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for line := range strings.Lines(string(b)) {
			var n uint64
			if found, _ := fmt.Sscanf(line, "voluntary_ctxt_switches: %d", &n); found == 1 {
				sum += n
			}
		}
	}
	return sum, nil
}
