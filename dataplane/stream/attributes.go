package stream

import (
	"github.com/sluice-proxy/sluice/api/expression"
	"github.com/sluice-proxy/sluice/dataplane/cel"
)

// Condition is an expression that asks for the attributes of a connection. It is
// safe for concurrent use.
type Condition struct{ program *cel.Program }

// NewCondition makes an expression ready.
func NewCondition(e expression.Expression) (*Condition, error) {
	p, err := cel.New(e)
	if err != nil {
		return nil, err
	}
	return &Condition{p}, nil
}

// Holds is false for an expression that comes to an error, as it does by an
// attribute that is absent.
func (c *Condition) Holds(i *Info) bool { return c.program.Holds(names{i}) }

// typed is a value that JSON has by its type where it stands alone.
type typed struct {
	text string
	json any
}

// expressed is %CEL% or %TYPED_CEL%.
func expressed(e expression.Expression, keepsType bool) getter {
	p, err := cel.New(e)
	if err != nil {
		return func(Moment) any { return nil } // it was read before
	}
	return func(m Moment) any {
		text, value, ok := p.Print(names{m.Info})
		switch {
		case !ok:
			return nil
		case keepsType:
			return typed{text, value}
		}
		return text
	}
}

// names are the roots of the attributes (advanced/attributes.rst), each by the
// name that Envoy gives it, found when they are asked for.
type names struct{ *Info }

func (n names) Name(name string) (any, bool) {
	switch i := n.Info; name {
	case "source":
		return source{Info: i}, true
	case "destination":
		return destination{Info: i}, true
	case "connection":
		return connection{Info: i}, true
	case "upstream":
		return upstreamSide{Info: i}, true
	case "request":
		return request{Info: i}, true
	case "response":
		return response{Info: i}, true
	case "metadata":
		return metadataMessage(i.Metadata()), true
	case "filter_state":
		return stateFields(i.State()), true
	case "upstream_filter_state":
		return stateFields(nil), i.Upstream.ConnectionID != 0
	case "xds":
		return xds{Info: i}, true
	}
	return nil, false
}

// root is an object of names: JSON has nothing for it.
type root struct{}

func (root) Root() {}

// absent has no member: the headers of what is no HTTP.
type absent struct{}

func (absent) Field(string) (any, bool) { return nil, false }

type source struct {
	*Info
	root
}

func (s source) Field(name string) (any, bool) {
	switch a := s.Remote(); {
	case name == "address" && a.IsValid():
		return a.String(), true
	case name == "address":
		return s.Pipe(), true
	case name == "port" && a.IsValid():
		return int64(a.Port()), true
	}
	return nil, false
}

type destination struct {
	*Info
	root
}

func (d destination) Field(name string) (any, bool) {
	switch a := d.Local(); {
	case name == "address" && a.IsValid():
		return a.String(), true
	case name == "address":
		return d.Pipe(), true
	case name == "port" && a.IsValid():
		return int64(a.Port()), true
	}
	return nil, false
}

type connection struct {
	*Info
	root
}

func (c connection) Field(name string) (any, bool) {
	t, _ := c.TLS()
	switch name {
	case "mtls":
		return t.leaf() != nil, true
	case "requested_server_name":
		return c.Hello().ServerName, true
	case "id":
		return c.ID, true
	case "termination_details":
		return nonEmpty(c.Reasons().Termination)
	case "transport_failure_reason":
		return nonEmpty(c.Reasons().DownstreamFailure)
	}
	return t.field(name)
}

// field is what both sides have of TLS; without it, nothing.
func (t *TLS) field(name string) (any, bool) {
	if t == nil {
		return nil, false
	}
	switch name {
	case "tls_version":
		return t.Version, true
	case "subject_local_certificate":
		return t.LocalSubject(), true
	case "subject_peer_certificate":
		return t.PeerSubject(), true
	case "uri_san_local_certificate":
		return first(t.LocalURIs())
	case "uri_san_peer_certificate":
		return first(t.PeerURIs())
	case "dns_san_local_certificate":
		return first(t.LocalDNSNames())
	case "dns_san_peer_certificate":
		return first(t.PeerDNSNames())
	case "sha256_peer_certificate_digest":
		if c := t.leaf(); c != nil {
			return fingerprint256(c), true
		}
	case "peer_certificate":
		return nonEmpty(t.PeerPEM())
	}
	return nil, false
}

func first(of []string) (any, bool) {
	if len(of) == 0 {
		return nil, false
	}
	return of[0], true
}

func nonEmpty(s string) (any, bool) { return s, s != "" }

type upstreamSide struct {
	*Info
	root
}

func (u upstreamSide) Field(name string) (any, bool) {
	up := &u.Upstream
	switch name {
	case "address":
		if up.Host != nil {
			return up.Host.Address(), true
		}
		return nil, false
	case "port":
		return int64(up.Addr().Port()), up.Addr().IsValid()
	case "local_address":
		return up.Local().String(), up.Local().IsValid()
	case "transport_failure_reason":
		return u.Reasons().UpstreamFailure, true
	case "cx_pool_ready_duration":
		return up.Connected.Duration(), up.ConnectionID != 0
	case "request_attempt_count":
		return uint64(len(u.Attempts())), true
	}
	_, t := u.TLS()
	return t.field(name)
}

// request: what there is of it without HTTP. A connection is its own request.
type request struct {
	*Info
	root
}

func (r request) Field(name string) (any, bool) {
	switch name {
	case "headers":
		return absent{}, true
	case "headers_bytes":
		return int64(0), true
	case "time":
		return r.Start, true
	case "size", "total_size":
		return int64(r.Received), true
	case "duration":
		return r.Lasted, r.Lasted > 0
	}
	return nil, false
}

type response struct {
	*Info
	root
}

func (r response) Field(name string) (any, bool) {
	switch name {
	case "headers", "trailers":
		return absent{}, true
	case "headers_bytes":
		return int64(0), true
	case "size", "total_size":
		return int64(r.Sent), true
	case "flags":
		return r.Flags.legacy(), true
	}
	return nil, false
}

// stateFields is filter state: addresses with a port have fields, the rest is bytes.
type stateFields State

// Root has JSON print nothing.
func (stateFields) Root() {}

func (s stateFields) Field(name string) (any, bool) {
	o, ok := s[name]
	switch {
	case !ok:
		return nil, false
	case o.Address && o.Hashable: // envoy.network.ip is neither hashable nor has fields
		return addressFields(o.Value), true
	}
	return []byte(o.Value), true
}

type xds struct {
	*Info
	root
}

func (x xds) Field(name string) (any, bool) {
	switch up := &x.Upstream; name {
	case "cluster_name":
		return up.ClusterName(), up.Cluster != nil
	case "cluster_metadata":
		return metadataMessage(clusterMetadata(x.Info)), up.Cluster != nil
	case "upstream_host_metadata":
		return metadataMessage(hostMetadata(x.Info)), up.Host != nil
	case "filter_chain_name":
		return x.ChainName(), true
	case "listener_metadata":
		if x.Listener == nil {
			return nil, false
		}
		return metadataMessage(x.Listener.Metadata), true
	case "listener_direction":
		if x.Listener == nil {
			return nil, false
		}
		return x.Listener.Direction, true
	}
	return nil, false
}
