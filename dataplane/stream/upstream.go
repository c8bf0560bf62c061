package stream

import (
	"math"
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// Upstream is what is known of the other side.
type Upstream struct {
	// Cluster is where the connection goes, shared; nil before one was found.
	Cluster *Cluster
	// Attempt is the connect that was made last.
	Attempt
	local  packed
	Closed CloseType
	// Absent says that nobody ever meant to go anywhere: there is no tcp_proxy, which
	// counts the bytes on the wire too.
	Absent bool
	// Dialed is when the last connect began, from the connection's start on;
	// Connected is how long it took, if it succeeded.
	Dialed, Connected Micros
	// Sent are the bytes that the host got. Those that it sent went all to the
	// client.
	Sent uint64
}

// Micros is a short time to the microsecond, in half the memory of a
// time.Duration; the longest is 71 minutes.
type Micros uint32

// Microseconds is d, or the longest.
func Microseconds(d time.Duration) Micros {
	return Micros(min(max(d.Microseconds(), 0), math.MaxUint32))
}

// Duration is m as everybody has it.
func (m Micros) Duration() time.Duration { return time.Duration(m) * time.Microsecond }

// Cluster is what connections to one cluster have in common.
type Cluster struct {
	// Name is the cluster's, Stat what statistics call it.
	Name, Stat string
	Metadata   Metadata
}

// Attempt is one connect.
type Attempt struct {
	// Host is the endpoint that was picked, shared and read-only.
	Host *api.Endpoint
	// ConnectionID is that of the connection that came of it, 0 for none.
	ConnectionID uint64
}

// Connecting notes another connect; nil is one that there is nobody for.
func (i *Info) Connecting(host *api.Endpoint) {
	if u := &i.Upstream; u.Host != nil {
		r := i.needRare()
		r.attempts = append(r.attempts, u.Attempt)
	}
	i.Upstream.Attempt = Attempt{Host: host}
}

// Attempts are all connects, in order.
func (i *Info) Attempts() []Attempt {
	if i.Upstream.Host == nil {
		return nil
	}
	var before []Attempt
	if i.rare != nil {
		before = i.rare.attempts
	}
	return append(before[:len(before):len(before)], i.Upstream.Attempt)
}

// ClusterName is empty before there is a cluster.
func (u *Upstream) ClusterName() string {
	if u.Cluster == nil {
		return ""
	}
	return u.Cluster.Name
}

// Addr is the address of the host that was picked last.
func (u *Upstream) Addr() netip.AddrPort {
	if u.Host == nil {
		return netip.AddrPort{}
	}
	return u.Host.Addr
}

// Local is our address of the connection to the host.
func (u *Upstream) Local() netip.AddrPort { return u.local.unpack() }

// SetLocal notes it.
func (u *Upstream) SetLocal(a netip.AddrPort) { u.local = pack(a) }

// onTheWire is n, where somebody counts that.
func (i *Info) onTheWire(n uint64) uint64 {
	if i.Upstream.Absent {
		return 0
	}
	return n
}
