package api

import (
	"net/netip"
	"time"

	"github.com/sluice-proxy/sluice/api/substitution"
)

// DefaultCleanupInterval is how often an ORIGINAL_DST cluster looks for hosts that
// nobody wants any more.
const DefaultCleanupInterval = 5 * time.Second

// BindConfig says where connections to hosts come from.
type BindConfig struct {
	// Sources are at most one of each family; the first is source_address. The one
	// of the host's family is taken, else the first.
	Sources  []SourceAddress
	Freebind *bool
}

// SourceAddress is an address to bind to; port 0 leaves the port to the kernel.
// An invalid address stands for options alone.
type SourceAddress struct {
	Addr    netip.AddrPort
	Options []SocketOption
}

// For is the source of a connection to an address; nil if there is none. An
// invalid address is that of a unix socket.
func (b *BindConfig) For(to netip.Addr) *SourceAddress {
	if b == nil || len(b.Sources) == 0 {
		return nil
	}
	for i := range b.Sources {
		if s := &b.Sources[i]; to.IsValid() && s.Addr.IsValid() && s.Addr.Addr().Is4() == to.Is4() {
			return s
		}
	}
	return &b.Sources[0]
}

// HappyEyeballs orders the addresses of a host that has several: Count of the
// first family, one of the other, and so on.
type HappyEyeballs struct {
	First AddressFamily
	Count uint32
}

// AddressFamily is a version of IP.
type AddressFamily uint8

// The families, with the numbers of UpstreamConnectionOptions.
const (
	// DefaultFamily is that of the host's own address.
	DefaultFamily AddressFamily = iota
	IPv4
	IPv6
)

// ByDestination says how a cluster's host is made of a connection's destination.
type ByDestination struct {
	// Cleanup is how often hosts go that nobody asked for since.
	Cleanup time.Duration
	// Port replaces the destination's port, unless it is 0.
	Port uint16
	// Metadata is where the connection's dynamic metadata may have it; nil is
	// nowhere.
	Metadata *MetadataKey
}

// ByName says how a cluster's hosts are made of the names that connections bring.
type ByName struct {
	// Cache resolves them. Without one every name is to be a cluster of its own
	// (sub_clusters_config), which nothing that speaks TCP makes, in Envoy either.
	Cache *DNSCache
}

// ProxyHeader is the PROXY header that hosts are sent first.
type ProxyHeader struct {
	// V2 is version 2; else it is version 1.
	V2 bool
	// PassAll, or these types of PassTypes, of the TLVs that came with the client
	// or that tcp_proxy adds.
	PassAll   bool
	PassTypes []uint8
	// Added are further TLVs; of their types no others pass.
	Added []TLV
}

// TLV is a type-length-value of the PROXY protocol, version 2.
type TLV struct {
	Type  uint8
	Value []byte
	// Format, if it is not nil, prints the value for each connection.
	Format *substitution.Format
}

// TLVMerge says what becomes of tcp_proxy's TLVs where the client has sent some.
type TLVMerge uint8

// The policies, with the numbers of tcp_proxy's.
const (
	// AddTLVsIfAbsent adds them only if the client sent no PROXY header.
	AddTLVsIfAbsent TLVMerge = iota
	// OverwriteTLVs has them in the place of those of the same types.
	OverwriteTLVs
	// AppendTLVs adds them.
	AppendTLVs
)
