package bpf

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// OnExit is what connections get that are to be captured when nobody listens for
// them, and what stays of a process that ends in order.
type OnExit uint32

// The policies.
const (
	ExitOpen   = OnExit(routeOnExitON_EXIT_OPEN)   // they pass; nothing stays
	ExitClosed = OnExit(routeOnExitON_EXIT_CLOSED) // they are refused (EPERM); pins stay
	ExitKeep   = OnExit(routeOnExitON_EXIT_KEEP)   // they pass; pins stay
)

var exitWords = [...]string{ExitOpen: "open", ExitClosed: "closed", ExitKeep: "keep"}

// ErrNeedsPins says that hooks which nobody pins go with the process.
var ErrNeedsPins = errors.New("without pins the hooks go with the process: only open can be promised")

// String is the word of flags and docs.
func (e OnExit) String() string {
	if int(e) < len(exitWords) {
		return exitWords[e]
	}
	return fmt.Sprintf("policy %d", uint32(e))
}

// ParseOnExit reads the word.
func ParseOnExit(s string) (OnExit, error) {
	for e, word := range exitWords {
		if s == word {
			return OnExit(e), nil
		}
	}
	return 0, fmt.Errorf("%q is none of open, closed, keep", s)
}

// pinLayout is what the maps' contents mean. It changes with any change of
// meaning that leaves types and sizes as they are, of inner maps as well.
const pinLayout = 1

// captureSettings tells the hooks who this process is: its own connections pass,
// and namespaces other than its own cannot reach its listeners.
func captureSettings(o CaptureOptions) (routeSettings, error) {
	s := routeSettings{Process: uint32(os.Getpid()), Layout: pinLayout, OnExit: routeOnExit(o.OnExit)}
	if o.RefuseWhenFull {
		s.RefuseWhenFull = 1
	}
	info, err := os.Stat("/proc/self/ns/pid")
	if err != nil {
		return s, fmt.Errorf("read pid namespace: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.PidnsDev, s.PidnsIno = st.Dev, st.Ino
	}
	s.Netns, err = netnsCookie()
	return s, err
}

func netnsCookie() (uint64, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("read namespace cookie: %w", err)
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0, fmt.Errorf("read namespace cookie: %w", err)
	}
	return cookie, nil
}

func (c *Capture) putSettings() error {
	if err := c.objects.Setting.Put(uint32(0), c.settings); err != nil {
		return fmt.Errorf("put settings: %w", err)
	}
	return nil
}

// serve has the hooks send connections to the targets of the table that is in
// force: they are this process's from the first Swap on.
func (c *Capture) serve() error {
	if c.settings.Serving != 0 {
		return nil
	}
	c.settings.Serving = 1
	return c.putSettings()
}
