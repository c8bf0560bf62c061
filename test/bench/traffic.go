package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/sluice-proxy/sluice/test/bench/forwarder"
	"github.com/sluice-proxy/sluice/test/bench/load"
)

// The load's processes are this program too, by a first argument. They obey
// lines on stdin, and end with it.

// reply is what a load process writes, one line of JSON each.
type reply struct {
	// Error ends the process.
	Error      string  `json:",omitempty"`
	Operations uint64  `json:",omitempty"`
	Elapsed    float64 `json:",omitempty"` // s
	P50        int64   `json:",omitempty"` // ns, as the others
	P99        int64   `json:",omitempty"`
	P999       int64   `json:",omitempty"`
}

// serve is the back end: its address, and how many threads.
func serve(address string, threads int) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("read address: %w", err)
	}
	lean(threads)
	s, err := load.Listen(ap, threads)
	if err != nil {
		return err
	}
	failed := s.Serve()
	fmt.Println("{}")
	return untilEOF(failed)
}

// offer is the client: it says {} when every connection carries bytes, then
// takes the lines begin and end.
func offer(config string) error {
	var cfg load.Config
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		return fmt.Errorf("read configuration of the load: %w", err)
	}
	lean(cfg.Threads)
	out := json.NewEncoder(os.Stdout)
	c, err := load.Start(cfg, 20*time.Second)
	if err != nil {
		_ = out.Encode(reply{Error: err.Error()})
		return err
	}
	_ = out.Encode(reply{})
	lines := make(chan string)
	go readLines(os.Stdin, lines)
	for {
		select {
		case err := <-c.Failed():
			_ = out.Encode(reply{Error: err.Error()})
			return err
		case line, ok := <-lines:
			if !ok {
				return nil
			}
			if line == "begin" {
				c.Begin()
				continue
			}
			w, err := c.End()
			if err != nil {
				_ = out.Encode(reply{Error: err.Error()})
				return err
			}
			_ = out.Encode(reply{Operations: w.Operations, Elapsed: w.Elapsed.Seconds(),
				P50: w.Latency.Quantile(0.5), P99: w.Latency.Quantile(0.99), P999: w.Latency.Quantile(0.999)})
		}
	}
}

// lean gives each thread a processor, and one to the control; collecting
// garbage would wait for threads that sit in epoll_wait, and there is none.
func lean(threads int) {
	runtime.GOMAXPROCS(threads + 1)
	debug.SetGCPercent(-1)
}

func readLines(r io.Reader, to chan<- string) {
	for s := bufio.NewScanner(r); s.Scan(); {
		to <- s.Text()
	}
	close(to)
}

func untilEOF(failed <-chan error) error {
	end := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(end)
	}()
	select {
	case err := <-failed:
		return err
	case <-end:
		return nil
	}
}

// forward is one of the field's forwarders.
func forward(name, listen, server string) error {
	from, err := netip.ParseAddrPort(listen)
	if err != nil {
		return fmt.Errorf("read address to listen on: %w", err)
	}
	to, err := netip.ParseAddrPort(server)
	if err != nil {
		return fmt.Errorf("read address of the server: %w", err)
	}
	return forwarder.Forward(name, from, to)
}
