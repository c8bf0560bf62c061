package pair

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// enqueued is the number of bytes that the socket's TCP has taken in to send,
// counted from an arbitrary start. The order of the two reads makes it lag
// behind at worst, so a comparison with it errs on the side of waiting.
func (s *Set) enqueued(fd int) (uint64, bool) {
	if tcpInfo(fd, &s.info) != 0 {
		return 0, false
	}
	q, err := outq(fd)
	s.queued = q
	return s.info.Bytes_acked + uint64(q), err == 0
}

// enqueuedExact is enqueued for a baseline, where a lagging figure would make
// drained true too early: read again until no acknowledgement came between.
func (s *Set) enqueuedExact(fd int) (uint64, bool) {
	for range 1000 {
		sum, ok := s.enqueued(fd)
		acked := s.info.Bytes_acked
		if !ok || tcpInfo(fd, &s.info) != 0 {
			return 0, false
		}
		if s.info.Bytes_acked == acked {
			return sum, true
		}
	}
	return 0, false
}

// drained tells whether the destination's TCP has taken in every byte that was
// redirected to it: then its backlog in the kernel is empty, and what is written
// now comes after.
func (d *direction) drained() bool {
	sum, ok := d.p.set.enqueued(d.dst().fd)
	return ok && sum-d.base == d.slot.Redirected()
}

// handed is the number of bytes from the source that are accounted for: moved
// by user space, or redirected by the verdict.
func (d *direction) handed() uint64 {
	n := d.plain
	if d.slot.Taken() {
		n += d.slot.Redirected()
	}
	return n
}

// balance compares what the source's TCP received with what is accounted for
// and what still waits in its receive queue. 0 is as it must be; more says that
// so many bytes are missing, less that so many came twice. ok is false when
// bytes kept coming in while it looked, or when the source is found broken: then
// the pair knows already.
func (d *direction) balance(finRead bool) (missing int64, ok bool) {
	missing, ok, err := d.compare(finRead)
	if err != 0 && !d.src().failed && !d.p.closed {
		d.p.fail(d.src(), false) // sk_err is told only once
	}
	return missing, ok
}

// compare is balance without consequences, and with the error that it met.
func (d *direction) compare(finRead bool) (missing int64, ok bool, err syscall.Errno) {
	missing, ok, err = d.count(finRead)
	if missing != 0 {
		// An MPTCP socket shows the count of one of its subflows.
		if proto, _ := getsockopt(d.src().fd, unix.SOL_SOCKET, unix.SO_PROTOCOL); proto == unix.IPPROTO_MPTCP {
			return 0, ok, err
		}
	}
	return missing, ok, err
}

func (d *direction) count(finRead bool) (missing int64, ok bool, err syscall.Errno) {
	if d.src().transport() != nil {
		// The kernel counts records. What is lost or changed of them does not
		// decrypt.
		return 0, true, 0
	}
	s, fd := d.p.set, d.src().fd
	for range 50 {
		if err := tcpInfo(fd, &s.info); err != 0 {
			// Not TCP: there is no other count to compare with.
			return 0, err == unix.ENOPROTOOPT || err == unix.EOPNOTSUPP, 0
		}
		received := s.info.Bytes_received - d.before()
		handed := d.handed()
		// A FIN counts one in bytes_received (tcp_rcv_nxt_update).
		if finRead {
			return int64(received) - int64(handed) - 1, true, 0
		}
		queued, err := unread(fd)
		if err != 0 && err != unix.EAGAIN {
			return 0, false, err
		}
		tcpInfo(fd, &s.info)
		if s.info.Bytes_received-d.before() != received {
			continue
		}
		missing := int64(received) - int64(handed) - int64(queued)
		// The state is the second reading's: the kernel reads it before it locks
		// the socket, so that the first may be from before a FIN that is counted.
		// In CLOSE a FIN came or, if an RST did, perhaps not; the end tells.
		if state := s.info.State; state >= tcpTimeWait && (state != tcpClose || missing == 1) {
			missing--
		}
		return missing, true, 0
	}
	return 0, false, 0
}

// before is what was read from the source before it was the pair's.
func (d *direction) before() uint64 {
	if d.src().side == 0 {
		return d.p.cfg.Consumed
	}
	return d.p.cfg.Heard
}
