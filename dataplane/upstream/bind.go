package upstream

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/address"
)

// BindError is why a socket could not be bound.
type BindError struct {
	To  netip.AddrPort
	Why error
}

func (e *BindError) Error() string { return fmt.Sprintf("bind to %v: %v", e.To, e.Why) }
func (e *BindError) Unwrap() error { return e.Why }

// prepare sets what the way asks for on a socket to an address. A source that
// original_src gave counts before the configuration's.
func (w *Way) prepare(fd, family int, to netip.Addr) error {
	if err := keepalive(fd, w.Keepalive); err != nil {
		return err
	}
	if len(w.Header) > 0 {
		// What comes after the header is not to wait for its acknowledgement.
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return fmt.Errorf("set TCP_NODELAY: %w", err)
		}
	}
	from := w.Bind.For(to)
	if from == nil || w.From.Addr.IsValid() {
		return w.From.bind(fd, family)
	}
	if err := (Source{Mark: w.From.Mark, Segment: w.From.Segment}).bind(fd, family); err != nil {
		return err
	}
	if f := w.Bind.Freebind; f != nil && *f {
		level, name := unix.SOL_IP, unix.IP_FREEBIND
		if family == unix.AF_INET6 {
			level, name = unix.SOL_IPV6, ipv6Freebind
		}
		if err := unix.SetsockoptInt(fd, level, name, 1); err != nil {
			return fmt.Errorf("set IP_FREEBIND: %w", err)
		}
	}
	if err := set(fd, from.Options, api.Prebind); err != nil {
		return err
	}
	if from.Addr.IsValid() {
		if from.Addr.Port() == 0 {
			if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
				return fmt.Errorf("set IP_BIND_ADDRESS_NO_PORT: %w", err)
			}
		}
		if err := address.Bind(fd, from.Addr); err != nil {
			return &BindError{from.Addr, err}
		}
	}
	return set(fd, from.Options, api.Bound)
}

// ipv6Freebind is IPV6_FREEBIND, which x/sys/unix does not name.
const ipv6Freebind = 78

func set(fd int, options []api.SocketOption, state api.SocketState) error {
	for _, o := range options {
		if o.State != state {
			continue
		}
		if err := unix.SetsockoptString(fd, o.Level, o.Name, o.Value); err != nil {
			return fmt.Errorf("set socket option %d/%d: %w", o.Level, o.Name, err)
		}
	}
	return nil
}

func keepalive(fd int, k *api.Keepalive) error {
	if k == nil {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1); err != nil {
		return fmt.Errorf("set SO_KEEPALIVE: %w", err)
	}
	for name, v := range map[int]uint32{unix.TCP_KEEPCNT: k.Probes, unix.TCP_KEEPIDLE: k.Time, unix.TCP_KEEPINTVL: k.Interval} {
		if v == 0 {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, name, int(v)); err != nil {
			return fmt.Errorf("set keep-alive: %w", err)
		}
	}
	return nil
}
