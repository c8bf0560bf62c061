package stream

import (
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
	local packed
	// Dialed says that there was one, Connected how long it took.
	Dialed    bool
	Closed    CloseType
	Connected time.Duration
	// Sent are the bytes that the host got. Those that it sent went all to the
	// client.
	Sent uint64
}

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
	before       *Attempt
}

// Begin notes another connect.
func (u *Upstream) Begin(host *api.Endpoint) {
	var before *Attempt
	if u.Host != nil {
		a := u.Attempt
		before = &a
	}
	u.Attempt = Attempt{Host: host, before: before}
	u.Dialed = true
}

// Attempts are all connects, in order.
func (u *Upstream) Attempts() []Attempt {
	if u.Host == nil {
		return nil
	}
	n := 0
	for a := &u.Attempt; a != nil; a = a.before {
		n++
	}
	all := make([]Attempt, n)
	for a := &u.Attempt; a != nil; a = a.before {
		n--
		all[n] = *a
	}
	return all
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
