package api

import (
	"net/netip"
	"reflect"
)

// TransportRawBuffer is the transport protocol of a connection in which no
// listener filter found another one.
const TransportRawBuffer = "raw_buffer"

// FilterChainMatch is envoy.config.listener.v3.FilterChainMatch. A criterion
// that is empty takes every connection; so does the zero value.
type FilterChainMatch struct {
	// DestinationPort is the port of the connection's local address.
	DestinationPort uint16
	// Prefixes hold the local address; they are masked.
	Prefixes []netip.Prefix
	// ServerNames are lower case; `*.example.com` is any name that ends with
	// `.example.com`.
	ServerNames []string
	// TransportProtocol is raw_buffer, tls, or what a listener filter sets.
	TransportProtocol    string
	ApplicationProtocols []string
	// DirectSourcePrefixes hold the peer that is really connected, whatever the
	// PROXY protocol says; SourcePrefixes the one that it names.
	DirectSourcePrefixes []netip.Prefix
	SourceType           SourceType
	SourcePrefixes       []netip.Prefix
	SourcePorts          []uint16
}

// Equal compares by content.
func (m *FilterChainMatch) Equal(o *FilterChainMatch) bool { return reflect.DeepEqual(m, o) }

// SourceType is FilterChainMatch.ConnectionSourceType.
type SourceType uint8

// The source types, with the numbers of the proto.
const (
	SourceAny SourceType = iota
	// SourceSameIPOrLoopback is a peer at 127.0.0.1 or ::1, one with the local
	// address, or one on a Unix socket.
	SourceSameIPOrLoopback
	SourceExternal
)

// Matcher is xds.type.matcher.v3.Matcher: either a list, of which the first that
// holds counts, or a tree by one input. Neither is a matcher that never matches.
type Matcher struct {
	List []FieldMatcher
	Tree *MatcherTree
	// OnNoMatch may be nil.
	OnNoMatch *OnMatch
}

// OnMatch is what a match leads to: a further matcher, or an action.
type OnMatch struct {
	Matcher *Matcher
	// Action has the meaning that the matcher's place gives it: in a listener it
	// is the name of a filter chain.
	Action string
	// KeepMatching goes on as if nothing had matched.
	KeepMatching bool
}

// FieldMatcher is one element of a matcher's list.
type FieldMatcher struct {
	Predicate Predicate
	OnMatch   OnMatch
}

// Predicate is exactly one of its fields.
type Predicate struct {
	Single *SinglePredicate
	Or     []Predicate
	And    []Predicate
	Not    *Predicate
}

// SinglePredicate looks at one input: by Value or, if that is nil, by Prefixes
// (envoy.matching.matchers.ip). An input that is absent never holds.
type SinglePredicate struct {
	Input    MatchInput
	Value    *StringMatch
	Prefixes []netip.Prefix
}

// MatcherTree looks up one input. Exactly one of its lists and maps is set.
type MatcherTree struct {
	Input  MatchInput
	Exact  map[string]*OnMatch
	Prefix map[string]*OnMatch
	Ranges []RangeMatcher
	// Domains is xds.type.matcher.v3.ServerNameMatcher.
	Domains []DomainMatcher
}

// RangeMatcher is one entry of xds.type.matcher.v3.IPMatcher. Of two ranges that
// hold an address the longer one counts, and of two equal ones the first; if its
// OnMatch leads to nothing the next is tried, but one that is Exclusive only if
// it is the first.
type RangeMatcher struct {
	Prefixes  []netip.Prefix
	OnMatch   OnMatch
	Exclusive bool
}

// DomainMatcher is one entry of a ServerNameMatcher: names, `*.example.com` for
// all below one, `*` for all.
type DomainMatcher struct {
	Domains []string
	OnMatch OnMatch
}

// StringMatch is a StringMatcher.
type StringMatch struct {
	Kind StringMatchKind
	// Value is the pattern; a regular expression (RE2) has to hold for the whole
	// input.
	Value      string
	IgnoreCase bool
}

// StringMatchKind says how a StringMatch compares.
type StringMatchKind uint8

// The kinds of a StringMatch.
const (
	MatchExact StringMatchKind = iota
	MatchPrefix
	MatchSuffix
	MatchContains
	MatchRegex
)

// MatchInput is what a matcher looks at.
type MatchInput struct {
	Kind MatchInputKind
	// Key and Field are of InputFilterState.
	Key, Field string
}

// MatchInputKind names an input by its message in
// envoy.extensions.matching.common_inputs.
type MatchInputKind uint8

// The inputs.
const (
	InputDestinationIP MatchInputKind = iota
	InputDestinationPort
	InputSourceIP
	InputSourcePort
	InputDirectSourceIP
	InputSourceType
	InputServerName
	InputTransportProtocol
	InputApplicationProtocol
	InputFilterState
	InputNetworkNamespace
	InputURISAN
	InputDNSSAN
	InputSubject
)
