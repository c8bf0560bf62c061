package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const message = 64 // bytes of the request, and of the answer

// counted is what a client prints.
type counted struct {
	Done, Failures int
	Took           time.Duration
	P50, P99       time.Duration // of connect
}

// runClient connects to an address, so many connections at a time, for so long.
func runClient(args []string) error {
	to, err := netip.ParseAddrPort(args[0])
	if err != nil {
		return err
	}
	connections, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	window, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		times []time.Duration
		c     counted
	)
	start := time.Now()
	for range connections {
		wg.Go(func() {
			runtime.LockOSThread() // its calls block
			var own []time.Duration
			failed := 0
			for time.Since(start) < window {
				if d, err := exchange(to); err == nil {
					own = append(own, d)
				} else if failed++; failed == 1 {
					fmt.Fprintln(os.Stderr, err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			times = append(times, own...)
			c.Failures += failed
		})
	}
	wg.Wait()
	c.Took, c.Done = time.Since(start), len(times)
	if c.Done == 0 {
		return errors.New("no connection went well")
	}
	slices.Sort(times)
	c.P50, c.P99 = times[c.Done/2], times[c.Done*99/100]
	return json.NewEncoder(os.Stdout).Encode(c)
}

// exchange connects, asks, reads the answer and the end, and closes; it returns
// what connect took. The back end closes first: its ports are not used up.
func exchange(to netip.AddrPort) (time.Duration, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	start := time.Now()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}); err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	took := time.Since(start)
	var b [message]byte
	if _, err := unix.Write(fd, b[:]); err != nil {
		return 0, fmt.Errorf("write: %w", err)
	}
	for got := 0; ; {
		n, err := unix.Read(fd, b[:])
		if err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		if got += n; n == 0 && got != message {
			return 0, fmt.Errorf("read: %d bytes of %d", got, message)
		}
		if n == 0 {
			return took, nil
		}
	}
}

// runBackend answers one request per connection.
func runBackend(at string) error {
	l, err := net.Listen("tcp", at)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			var b [message]byte
			if _, err := io.ReadFull(c, b[:]); err == nil {
				_, _ = c.Write(b[:])
			}
		}()
	}
}
