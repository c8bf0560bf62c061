package route

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// addresses follows the addresses that a network namespace's devices have.
type addresses struct {
	// events tells that something changed, questions asks what is there. Both stay
	// in the namespace that they were opened in.
	events    *os.File
	questions int
	set       func(a netip.Addr, has bool) error
	log       *slog.Logger
	done      chan struct{}

	// of the caller until follow runs, then of follow
	have map[netip.Addr]bool
}

// watchAddresses calls set for each address of the calling thread's namespace
// that is not known, and each known one that is none, before it returns, and from
// then on, one call at a time, for each that comes or goes.
func watchAddresses(known []netip.Addr, set func(netip.Addr, bool) error, log *slog.Logger) (w *addresses, err error) {
	w = &addresses{set: set, log: log, questions: -1, done: make(chan struct{}), have: map[netip.Addr]bool{}}
	for _, a := range known {
		w.have[a] = true
	}
	defer func() {
		if err != nil {
			if w.events != nil {
				w.events.Close()
			}
			unix.Close(w.questions)
			w = nil
		}
	}()
	// The events come first, so that nothing changes unseen.
	fd, err := netlink(unix.SOCK_NONBLOCK, unix.RTMGRP_IPV4_IFADDR|unix.RTMGRP_IPV6_IFADDR)
	if err != nil {
		return w, fmt.Errorf("watch own addresses: %w", err)
	}
	w.events = os.NewFile(uintptr(fd), "netlink")
	if w.questions, err = netlink(0, 0); err != nil {
		return w, fmt.Errorf("read own addresses: %w", err)
	}
	if err = w.update(); err != nil {
		return w, err
	}
	go w.follow()
	return w, nil
}

func netlink(flags int, groups uint32) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|flags, unix.NETLINK_ROUTE)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (w *addresses) close() {
	w.events.Close()
	<-w.done
	unix.Close(w.questions)
}

// follow runs until close.
func (w *addresses) follow() {
	defer close(w.done)
	b := make([]byte, 1<<16)
	for {
		// What an event says does not matter, nor that some were lost (ENOBUFS).
		if _, err := w.events.Read(b); err != nil && !errors.Is(err, unix.ENOBUFS) {
			if !errors.Is(err, os.ErrClosed) {
				w.log.Error("watch own addresses: those that come from now on are not known", "error", err)
			}
			return
		}
		if err := w.update(); err != nil {
			w.log.Error("follow own addresses", "error", err)
		}
	}
}

// update asks for all addresses and tells what is not as it was.
func (w *addresses) update() error {
	now, err := w.ask()
	if err != nil {
		return fmt.Errorf("read own addresses: %w", err)
	}
	var errs []error
	for a := range now {
		if !w.have[a] {
			errs = append(errs, w.set(a, true))
		}
	}
	for a := range w.have {
		if !now[a] {
			errs = append(errs, w.set(a, false))
		}
	}
	w.have = now
	return errors.Join(errs...)
}

// ask asks again where addresses changed meanwhile.
func (w *addresses) ask() (now map[netip.Addr]bool, err error) {
	for complete := false; err == nil && !complete; {
		now, complete, err = w.dump()
	}
	return now, err
}

func (w *addresses) dump() (now map[netip.Addr]bool, complete bool, err error) {
	request := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfAddrmsg) // of every family
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], unix.RTM_GETADDR)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	if err := unix.Sendto(w.questions, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, false, err
	}
	now, complete = map[netip.Addr]bool{}, true
	b := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(w.questions, b, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		messages, err := syscall.ParseNetlinkMessage(b[:n])
		if err != nil {
			return nil, false, err
		}
		for i := range messages {
			m := &messages[i]
			complete = complete && m.Header.Flags&unix.NLM_F_DUMP_INTR == 0
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return now, complete, nil
			case unix.NLMSG_ERROR:
				return nil, false, unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
			case unix.RTM_NEWADDR:
				a, err := addressOf(m)
				if err != nil {
					return nil, false, err
				}
				if a.IsValid() {
					now[a] = true
				}
			}
		}
	}
}

// addressOf is our end of what a message names: IFA_LOCAL, which differs from
// IFA_ADDRESS where that is the peer's, or else IFA_ADDRESS. A link-local one has
// the number of its device as its zone.
func addressOf(m *syscall.NetlinkMessage) (netip.Addr, error) {
	attrs, err := syscall.ParseNetlinkRouteAttr(m)
	if err != nil {
		return netip.Addr{}, err
	}
	var local, address netip.Addr
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(a.Value)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(a.Value)
		}
	}
	if !local.IsValid() {
		local = address
	}
	if local.Is6() && local.IsLinkLocalUnicast() {
		device := binary.NativeEndian.Uint32(m.Data[4:]) // ifa_index
		local = local.WithZone(strconv.FormatUint(uint64(device), 10))
	}
	return local, nil
}
