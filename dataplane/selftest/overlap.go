package selftest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// overlap sends a segment of five bytes that were delivered before and five new
// ones, as a re-packetised retransmit does. A verdict that does not cut the old
// ones off delivers them again.
func overlap(r *rig) error {
	if err := r.exchange("0123456789"); err != nil {
		return err
	}
	raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w: needs CAP_NET_RAW", errSkip)
	}
	if err != nil {
		return fmt.Errorf("open raw socket: %w", err)
	}
	defer unix.Close(raw)
	snd, rcv, err := sequences(r.client)
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: needs CAP_NET_ADMIN to read sequence numbers", errSkip)
	}
	if err != nil {
		return err
	}
	from := r.client.LocalAddr().(*net.TCPAddr).AddrPort()
	to := r.client.RemoteAddr().(*net.TCPAddr).AddrPort()
	seg := segment(from, to, snd-5, rcv, []byte("56789ABCDE"))
	if err := unix.Sendto(raw, seg, 0, &unix.SockaddrInet4{Addr: to.Addr().As4()}); err != nil {
		return fmt.Errorf("send raw segment: %w", err)
	}
	return expect(r.server, "ABCDE")
}

// sequences reads snd_nxt and rcv_nxt by TCP_REPAIR.
func sequences(c *net.TCPConn) (snd, rcv uint32, err error) {
	sc, err := c.SyscallConn()
	if err != nil {
		return 0, 0, fmt.Errorf("reach socket: %w", err)
	}
	var opErr error
	err = sc.Control(func(p uintptr) {
		fd := int(p)
		if opErr = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1); opErr != nil {
			return
		}
		defer unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP)
		for queue, into := range map[int]*uint32{1: &rcv, 2: &snd} { // TCP_RECV_QUEUE, TCP_SEND_QUEUE
			if opErr = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, queue); opErr != nil {
				return
			}
			var v int
			if v, opErr = unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ); opErr != nil {
				return
			}
			*into = uint32(v)
		}
	})
	if opErr != nil {
		err = fmt.Errorf("read sequence numbers: %w", opErr)
	}
	return snd, rcv, err
}

// segment builds a TCP segment without options (RFC 9293, section 3.1).
func segment(from, to netip.AddrPort, seq, ack uint32, payload []byte) []byte {
	const header = 20
	b := make([]byte, header+len(payload))
	binary.BigEndian.PutUint16(b[0:], from.Port())
	binary.BigEndian.PutUint16(b[2:], to.Port())
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], ack)
	b[12] = header / 4 << 4
	b[13] = 0x18 // PSH, ACK
	binary.BigEndian.PutUint16(b[14:], 512)
	copy(b[header:], payload)
	pseudo := make([]byte, 0, 12+len(b))
	src, dst := from.Addr().As4(), to.Addr().As4()
	pseudo = append(append(pseudo, src[:]...), dst[:]...)
	pseudo = append(pseudo, 0, unix.IPPROTO_TCP, byte(len(b)>>8), byte(len(b)))
	binary.BigEndian.PutUint16(b[16:], checksum(append(pseudo, b...)))
	return b
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
