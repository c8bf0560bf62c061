package api

// ListenerFilter looks at a connection before its filter chain is known: exactly
// one pointer beside Disabled is set.
type ListenerFilter struct {
	// Name is the filter's name in the configuration; it decides nothing.
	Name string
	// Disabled, if set, leaves the filter out where it matches.
	Disabled      *ListenerFilterPredicate
	OriginalDst   *OriginalDst
	TLSInspector  *TLSInspector
	HTTPInspector *HTTPInspector
	ProxyProtocol *ProxyProtocol
	OriginalSrc   *OriginalSrc
	// LocalRateLimit closes sockets for which there is no token; its ShareKey is
	// empty. SetFilterState sets objects when a socket is accepted.
	LocalRateLimit *LocalRateLimit
	SetFilterState []FilterStateValue
	// Discovery is set if its configuration comes by itself; no published snapshot
	// has one. Missing says that none came: every socket is closed.
	Discovery *FilterDiscovery
	Missing   bool
}

// ListenerFilterPredicate is Envoy's ListenerFilterChainMatchPredicate. Exactly
// one field is set.
type ListenerFilterPredicate struct {
	Any      bool
	Or, And  []ListenerFilterPredicate
	Not      *ListenerFilterPredicate
	PortFrom uint32 // of the local address, inclusive
	PortTo   uint32 // exclusive; 0 where no range is meant
}

// Matches tells whether the predicate holds for a local port.
func (p *ListenerFilterPredicate) Matches(port uint16) bool {
	switch {
	case p.Any:
		return true
	case p.Or != nil:
		for i := range p.Or {
			if p.Or[i].Matches(port) {
				return true
			}
		}
		return false
	case p.And != nil:
		for i := range p.And {
			if !p.And[i].Matches(port) {
				return false
			}
		}
		return true
	case p.Not != nil:
		return !p.Not.Matches(port)
	}
	return uint32(port) >= p.PortFrom && uint32(port) < p.PortTo
}

// OriginalDst restores the address that a redirected client meant.
type OriginalDst struct{}

// TLSInspector finds server name and ALPN in a ClientHello.
type TLSInspector struct {
	// MaxClientHello bounds the ClientHello, in bytes.
	MaxClientHello uint32
	// CloseOnError ends connections whose first bytes are no ClientHello.
	CloseOnError bool
	JA3, JA4     bool
}

// HTTPInspector finds out whether the first line is HTTP's.
type HTTPInspector struct{}

// ProxyProtocol reads and removes the PROXY header.
type ProxyProtocol struct {
	// Optional lets connections without a header pass.
	Optional bool
	// NoV1 and NoV2 disallow a version.
	NoV1, NoV2 bool
	StatPrefix string
	Rules      []TLVRule
	// ToFilterState stores what rules find there, not in dynamic metadata.
	ToFilterState bool
	// PassTLVs are kept for the header to the upstream: all, or these types.
	PassAllTLVs bool
	PassTLVs    []uint8
}

// TLVRule stores the value of a TLV under a key.
type TLVRule struct {
	Type           uint8
	Namespace, Key string
	// Base64 stores the value so encoded, not as text made valid.
	Base64 bool
}

// OriginalSrc connects upstream from the client's own address.
type OriginalSrc struct {
	// Mark is SO_MARK of the upstream socket, 0 for none.
	Mark uint32
}
