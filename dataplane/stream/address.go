package stream

import "net/netip"

// packed is an IPv4 or IPv6 address and a port in 20 bytes, where a
// netip.AddrPort has 32: the addresses of sockets that are told here have no
// zone. The zero value is invalid.
type packed struct {
	ip   [16]byte
	port uint16
	bits uint8 // of the address
}

func pack(a netip.AddrPort) packed {
	return packed{ip: a.Addr().As16(), port: a.Port(), bits: uint8(a.Addr().BitLen())}
}

func (p packed) unpack() netip.AddrPort {
	switch p.bits {
	case 32:
		return netip.AddrPortFrom(netip.AddrFrom16(p.ip).Unmap(), p.port)
	case 128:
		return netip.AddrPortFrom(netip.AddrFrom16(p.ip), p.port)
	}
	return netip.AddrPort{}
}

// accepted are the addresses of the client's socket, before others were restored.
type accepted struct {
	local, remote packed
	localRestored bool
}

// Local is where the client meant to go: the address accepted on, or what a
// listener filter restored. It is invalid on a unix socket, as the other three
// are; v4-mapped addresses are IPv4.
func (i *Info) Local() netip.AddrPort { return i.local.unpack() }

// Remote is who the client is, after the PROXY protocol.
func (i *Info) Remote() netip.AddrPort { return i.remote.unpack() }

// DirectLocal is the address accepted on, before anything was restored.
func (i *Info) DirectLocal() netip.AddrPort {
	if a := i.directs(); a != nil {
		return a.local.unpack()
	}
	return i.Local()
}

// DirectRemote is the peer of the socket.
func (i *Info) DirectRemote() netip.AddrPort {
	if a := i.directs(); a != nil {
		return a.remote.unpack()
	}
	return i.Remote()
}

// LocalRestored says that Local is not the address accepted on.
func (i *Info) LocalRestored() bool {
	a := i.directs()
	return a != nil && a.localRestored
}

// RestoreLocal changes Local.
func (i *Info) RestoreLocal(a netip.AddrPort) {
	i.keepDirects().localRestored = true
	i.local = pack(a)
}

// RestoreRemote changes Remote.
func (i *Info) RestoreRemote(a netip.AddrPort) {
	i.keepDirects()
	i.remote = pack(a)
}

func (i *Info) directs() *accepted {
	if i.rare == nil {
		return nil
	}
	return i.rare.accepted
}

func (i *Info) keepDirects() *accepted {
	r := i.needRare()
	if r.accepted == nil {
		r.accepted = &accepted{local: i.local, remote: i.remote}
	}
	return r.accepted
}
