// Package books reads the kernel's own accounts, which have to be at the end of
// a test as they were at its start: the memory that TCP holds, and the log of
// what the kernel found wrong with itself.
package books

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Slack is how many pages TCP's account may differ with no socket alive: each
// CPU keeps some in reserve (net.core.mem_pcpu_rsv, 256 pages).
const Slack = 1500

// Books are the accounts at one moment.
type Books struct {
	pages int
	log   io.ReadCloser // nil if it may not be read
}

// Open reads the accounts. Without the right to read the kernel's log (root) only
// the memory is looked at.
func Open() (*Books, error) {
	pages, err := TCPPages()
	if err != nil {
		return nil, err
	}
	b := &Books{pages: pages}
	// Each read gives one record; from the end, only what is new.
	if fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
		b.log = kmsg(fd)
		if _, err := unix.Seek(fd, 0, io.SeekEnd); err != nil {
			b.log.Close()
			return nil, fmt.Errorf("find end of kernel log: %w", err)
		}
	}
	return b, nil
}

// kmsg is /dev/kmsg, read without waiting, as an os.File would.
type kmsg int

func (k kmsg) Read(b []byte) (int, error) { return unix.Read(int(k), b) }
func (k kmsg) Close() error               { return unix.Close(int(k)) }

// TCPPages is TCP's `mem` of /proc/net/sockstat: pages, of the whole host.
func TCPPages() (int, error) {
	text, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0, fmt.Errorf("read TCP's account: %w", err)
	}
	return tcpPages(string(text))
}

func tcpPages(text string) (int, error) {
	for line := range strings.Lines(text) {
		var inuse, orphan, tw, alloc, mem int
		if n, _ := fmt.Sscanf(line, "TCP: inuse %d orphan %d tw %d alloc %d mem %d", &inuse, &orphan, &tw, &alloc, &mem); n == 5 {
			return mem, nil
		}
	}
	return 0, errors.New("read TCP's account: no line of TCP in /proc/net/sockstat")
}

// Close compares. It waits so long for the memory of sockets that are still
// ending, also those of others on this host.
func (b *Books) Close(patience time.Duration) error {
	var errs []error
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		pages, err := TCPPages()
		if err == nil && pages > b.pages+Slack {
			err = fmt.Errorf("TCP holds %d pages, %d before", pages, b.pages)
		}
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			errs = append(errs, err)
			break
		}
	}
	if b.log != nil {
		for _, line := range complaints(b.log) {
			errs = append(errs, fmt.Errorf("kernel: %s", line))
		}
		b.log.Close()
	}
	return errors.Join(errs...)
}

// Pages is what TCP held at the start.
func (b *Books) Pages() int { return b.pages }

// complaints reads records until there are no more, and returns those by which
// the kernel says that something is wrong with it.
func complaints(log io.Reader) (out []string) {
	record := make([]byte, 8192)
	for {
		n, err := log.Read(record)
		if errors.Is(err, syscall.EPIPE) {
			continue // overwritten before it was read
		}
		if err != nil || n == 0 {
			return out
		}
		// "priority,sequence,time,flags;text\n continuation"
		_, text, _ := bytes.Cut(record[:n], []byte(";"))
		text, _, _ = bytes.Cut(text, []byte("\n"))
		for _, sign := range []string{"WARNING: ", "BUG: ", "Oops", "general protection fault", "refcount_t:"} {
			if bytes.Contains(text, []byte(sign)) {
				out = append(out, string(text))
				break
			}
		}
	}
}
