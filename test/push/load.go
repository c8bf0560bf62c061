package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// load is a process that is the back end, and pings it through the relay over
// connections that stay. This process is busy with the push.
type load struct {
	cmd *exec.Cmd
	in  interface {
		Write([]byte) (int, error)
		Close() error
	}
	out *bufio.Scanner
}

// startLoad starts the back end, and says at which port it is.
func startLoad(ctx context.Context, relay netip.AddrPort, connections int) (l *load, port uint16, err error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "load", relay.String(), strconv.Itoa(connections))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, 0, err
	}
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	l = &load{cmd: cmd, in: in, out: bufio.NewScanner(out)}
	if l.out.Scan() {
		n, err := strconv.ParseUint(l.out.Text(), 10, 16)
		return l, uint16(n), err
	}
	return nil, 0, fmt.Errorf("the load ended: %w", cmd.Wait())
}

// ping begins.
func (l *load) ping() error {
	_, err := fmt.Fprintln(l.in)
	return err
}

// p99 of the pings since the last call.
func (l *load) p99() (time.Duration, error) {
	if _, err := fmt.Fprintln(l.in); err != nil {
		return 0, err
	}
	if !l.out.Scan() {
		return 0, fmt.Errorf("the load ended: %w", l.cmd.Wait())
	}
	return time.ParseDuration(l.out.Text())
}

func (l *load) stop() {
	l.in.Close()
	_ = l.cmd.Wait()
}

// runLoad is that process: after a first line it pings, and for every other it
// says its p99.
func runLoad(relay, connections string) error {
	port, err := listenEcho(context.Background())
	if err != nil {
		return err
	}
	fmt.Println(port)
	to, err := netip.ParseAddrPort(relay)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(connections)
	if err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	if !in.Scan() {
		return nil
	}
	p := pinger{done: make(chan struct{})}
	for range n {
		p.wg.Go(func() {
			if err := p.ping(to); err != nil {
				p.mu.Lock()
				p.fault = err
				p.mu.Unlock()
			}
		})
	}
	for in.Scan() {
		d, err := p.p99()
		if err != nil {
			return err
		}
		fmt.Println(d)
	}
	close(p.done)
	p.wg.Wait()
	return nil
}

type pinger struct {
	wg   sync.WaitGroup
	done chan struct{}

	mu    sync.Mutex
	times []time.Duration // since the last p99
	fault error
}

func (p *pinger) ping(at netip.AddrPort) error {
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		return err
	}
	defer c.Close()
	in := bufio.NewReader(c)
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	tick := time.NewTicker(5 * time.Millisecond) // 200/s each: load, not saturation
	defer tick.Stop()
	for {
		select {
		case <-p.done:
			return nil
		case <-tick.C:
		}
		began := time.Now()
		if _, err := fmt.Fprintln(c, "ping"); err != nil {
			return err
		}
		if _, err := in.ReadString('\n'); err != nil {
			return err
		}
		p.mu.Lock()
		p.times = append(p.times, time.Since(began))
		p.mu.Unlock()
	}
}

// p99 of the pings since the last call.
func (p *pinger) p99() (time.Duration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.Sort(p.times)
	n := len(p.times)
	if n == 0 {
		return 0, p.fault
	}
	v := p.times[n*99/100]
	p.times = nil
	return v, p.fault
}
