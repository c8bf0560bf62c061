package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/test/bench/meter"
	"github.com/sluice-proxy/sluice/test/netns"
)

// place is where a process runs.
type place struct {
	ns   *netns.NS
	cpus string // as taskset has it
}

// spawner starts processes from one thread that lives as long as this program:
// what a thread has started is killed with it (PR_SET_PDEATHSIG), so nothing
// outlives a killed benchmark.
type spawner chan func()

func newSpawner() spawner {
	s := make(spawner)
	go s.run()
	return s
}

func (s spawner) run() {
	runtime.LockOSThread()
	for f := range s {
		f()
	}
}

func (s spawner) start(cmd *exec.Cmd) error {
	done := make(chan error)
	s <- func() { done <- cmd.Start() }
	return <-done
}

// process is one that was started here, with its children.
type process struct {
	name   string
	cmd    *exec.Cmd
	family []int // pids, once it is ready
	log    string
	in     io.WriteCloser
	out    *bufio.Scanner
	pipe   io.Closer // under out
	ended  chan struct{}
}

// start runs a program at a place. With talk, stdin and stdout are pipes.
func (s spawner) launch(name, dir string, at place, env []string, talk bool, argv ...string) (p *process, err error) {
	args := append([]string{"--net=" + at.ns.Path(), "--", "taskset", "-c", at.cpus}, argv...)
	p = &process{name: name, cmd: exec.Command("nsenter", args...), log: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", name, err)
	}
	defer log.Close()
	p.cmd.Stderr, p.cmd.Stdout = log, log
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Dir = dir
	// A group of its own: an interrupt from the terminal is for this program.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if talk {
		p.cmd.Stdout = nil
		out, err := p.cmd.StdoutPipe()
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", name, err)
		}
		if p.in, err = p.cmd.StdinPipe(); err != nil {
			return nil, fmt.Errorf("start %s: %w", name, err)
		}
		p.out, p.pipe = bufio.NewScanner(out), out
	}
	if err := s.start(p.cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p.family = []int{p.cmd.Process.Pid}
	go p.wait()
	return p, nil
}

func (p *process) wait() {
	_, _ = p.cmd.Process.Wait() // not cmd.Wait, which would close the pipes under their reader
	close(p.ended)
}

// settle notes the process's children.
func (p *process) settle() (err error) {
	p.family, err = meter.Family(p.cmd.Process.Pid)
	return err
}

// signal goes to the whole family. Of those that have ended there is nothing to
// be said.
func (p *process) signal(sig syscall.Signal) {
	select {
	case <-p.ended:
		return
	default:
	}
	for _, pid := range p.family {
		_ = syscall.Kill(pid, sig)
	}
}

// kill ends it and its children, without ceremony: they may be stopped.
func (p *process) kill() {
	if p == nil {
		return
	}
	_ = p.settle()
	p.signal(syscall.SIGKILL)
	<-p.ended
	if p.in != nil {
		p.in.Close()
		p.pipe.Close()
	}
}

// hear reads one reply of a load process.
func (p *process) hear(ctx context.Context, limit time.Duration) (r reply, err error) {
	got := make(chan error, 1)
	go func() {
		if !p.out.Scan() {
			got <- fmt.Errorf("%s ended: %s", p.name, p.tail())
			return
		}
		got <- json.Unmarshal(p.out.Bytes(), &r)
	}()
	select {
	case err = <-got:
	case <-ctx.Done():
		return reply{}, ctx.Err()
	case <-time.After(limit):
		p.kill()
		<-got
		return reply{}, fmt.Errorf("%s does not answer within %v", p.name, limit)
	}
	if err == nil && r.Error != "" {
		err = fmt.Errorf("%s: %s", p.name, r.Error)
	}
	return r, err
}

func (p *process) say(line string) error {
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		<-p.ended
		return fmt.Errorf("%s ended: %s", p.name, p.tail())
	}
	return nil
}

// tail is the end of what it wrote, on one line.
func (p *process) tail() string {
	text, _ := os.ReadFile(p.log)
	s := strings.TrimSpace(string(text))
	return strings.ReplaceAll(s[max(0, len(s)-400):], "\n", " | ")
}
