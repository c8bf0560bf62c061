package api

import (
	"net/netip"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/api/expression"
)

// RBAC is envoy.filters.network.rbac. An engine that is nil decides nothing; one
// that is there and empty denies all.
type RBAC struct {
	// StatPrefix and ShadowStatPrefix are without a dot at their end.
	// ShadowMetadataPrefix is the second as the configuration has it: it also
	// stands before the shadow engine's dynamic metadata.
	StatPrefix, ShadowStatPrefix, ShadowMetadataPrefix string

	Enforced, Shadow *RBACEngine
	// Continuous asks the engines at every read of the client's bytes, not only at
	// the first.
	Continuous bool
	// DelayDeny is how long a client that is denied is kept, unread.
	DelayDeny time.Duration
}

// RBACEngine decides by Matcher or, if that is nil, by Policies.
type RBACEngine struct {
	// Matcher's actions are written by RBACVerdict.
	Matcher *Matcher
	// Action is what a policy that matches asks for.
	Action RBACAction
	// Policies are sorted by name; the first that matches counts.
	Policies []RBACPolicy
}

// RBACAction is envoy.config.rbac.v3.RBAC.Action.
type RBACAction uint8

// The actions, with the numbers of the proto.
const (
	RBACAllow RBACAction = iota
	RBACDeny
	RBACLog
)

var rbacVerbs = [...]string{"ALLOW", "DENY", "LOG"}

// RBACVerdict writes the action of a matcher: a verb, and the name of the rule.
func RBACVerdict(a RBACAction, name string) string { return rbacVerbs[a] + " " + name }

// ReadRBACVerdict reads what RBACVerdict wrote. Anything else denies.
func ReadRBACVerdict(s string) (a RBACAction, name string) {
	verb, name, _ := strings.Cut(s, " ")
	for i, v := range rbacVerbs {
		if v == verb {
			return RBACAction(i), name
		}
	}
	return RBACDeny, name
}

// RBACPolicy matches if one of its Permissions and one of its Principals do, and its
// Condition holds, if there is one.
type RBACPolicy struct {
	Name                    string
	Permissions, Principals []RBACRule
	Condition               expression.Expression
}

// RBACRule is a Permission or a Principal: exactly one field is set.
type RBACRule struct {
	// Const always answers the same: `any`, and what never matches at layer 4
	// (url_path, uri_template, metadata of a route).
	Const   *bool
	And, Or []RBACRule
	Not     *RBACRule
	// Local is the address that the client meant to reach, Remote the client's,
	// after the PROXY protocol, and Direct the one that is really connected.
	Local, Remote, Direct *netip.Prefix
	LocalPorts            *PortRange
	ServerName            *StringMatch
	Metadata              *MetadataMatch
	FilterState           *FilterStateMatch
	// Authenticated holds of a connection with TLS, MutualTLS of one whose client
	// has shown a certificate that was verified.
	Authenticated *Authenticated
	MutualTLS     *MutualTLS
}

// Authenticated compares the client's name: its URIs, then its DNS names, then its
// subject. A nil Name takes every connection with TLS.
type Authenticated struct{ Name *StringMatch }

// MutualTLS compares the client's alternative names; a nil Name takes every verified
// certificate.
type MutualTLS struct{ Name *SubjectAltName }

// PortRange is first to last, both included.
type PortRange struct{ First, Last uint16 }

// MetadataMatch looks at dynamic metadata: the value at Path under Filter.
type MetadataMatch struct {
	Filter string
	Path   []string
	Value  ValueMatch
	Invert bool
}

// ValueMatch is envoy.type.matcher.v3.ValueMatcher: exactly one field is set.
type ValueMatch struct {
	Null   bool
	Number *NumberMatch
	String *StringMatch
	Bool   *bool
	// Present matches whatever is there; false matches nothing, as in Envoy.
	Present *bool
	// OneOf matches a list that has such an element.
	OneOf *ValueMatch
	Or    []ValueMatch
}

// NumberMatch is Start <= x < End; an exact match has Exact set.
type NumberMatch struct {
	Exact      bool
	Start, End float64
}

// FilterStateMatch looks at the object Key: by Value or, if that is nil, by its
// address.
type FilterStateMatch struct {
	Key    string
	Value  *StringMatch
	Ranges []netip.Prefix
	Invert bool
}
