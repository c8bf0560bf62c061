// Package extauthz is envoy.filters.network.ext_authz: when a client's first
// bytes have come (or its end), a gRPC service (envoy.service.auth.v3) is asked
// whether they may go on. The call runs in a goroutine, off the worker's loop.
//
// It is one of the leaf packages that speak Envoy's gRPC services, and so may
// know Envoy's protos (test/layers).
package extauthz

import (
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/filter/rbac"
	"github.com/sluice-proxy/sluice/dataplane/grpcservice"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// Envoy's words.
const (
	name   = "envoy.filters.network.ext_authz"
	reason = "ext_authz_close"
)

// Factory is the ext_authz of one filter chain. Read-only after New.
type Factory struct {
	config  *api.ExtAuthz
	enabled func(*stream.Info) bool // nil: for all
	service service

	scope                                                         *stats.Scope
	total, ok, denied, errors, failureAllowed, cxClosed, disabled *stats.Counter
	active                                                        *stats.Gauge
}

// New makes the ext_authz of one chain.
func New(c *api.ExtAuthz, ctx filter.Context) *Factory {
	sc := ctx.Stats.Scope("ext_authz", c.StatPrefix)
	f := &Factory{
		config: c, scope: sc,
		total: sc.Counter("total"), ok: sc.Counter("ok"), denied: sc.Counter("denied"), errors: sc.Counter("error"),
		failureAllowed: sc.Counter("failure_mode_allowed"), cxClosed: sc.Counter("cx_closed"), disabled: sc.Counter("disabled"),
		active: sc.Gauge("active"),
	}
	f.service = service{grpcservice.New(&c.Service, ctx.Cluster)}
	if c.EnabledBy != nil {
		f.enabled = rbac.NewMetadata(c.EnabledBy)
	}
	return f
}

// New makes the filter of a connection.
func (f *Factory) New(c *filter.Connection) filter.Filter { return &session{factory: f, conn: c} }

// Watch says that the first bytes are waited for.
func (*Factory) Watch() filter.Watch { return filter.FirstByte }

// Release forgets the statistics and closes the connection to the service.
func (f *Factory) Release() {
	f.service.Close()
	f.scope.Release()
}

type session struct {
	filter.Base
	factory *Factory
	conn    *filter.Connection
	cancel  func() // of the call under way, or nil
	began   time.Time
}

// Data asks the service.
func (s *session) Data(bool) filter.Status {
	f := s.factory
	if f.enabled != nil && !f.enabled(s.conn.Info) {
		f.disabled.Inc()
		return filter.Continue
	}
	f.total.Inc()
	f.active.Inc()
	s.began = time.Now()
	s.cancel = f.service.call(s.request(), func(a answer) {
		s.conn.Core.Worker.Post(func() { s.answered(a) })
	})
	return filter.Stop
}

// answered is on the worker again. A call that was cancelled says nothing.
func (s *session) answered(a answer) {
	if s.cancel == nil {
		return
	}
	s.cancel = nil
	f, i := s.factory, s.conn.Info
	f.active.Dec()
	switch {
	case a.err != nil:
		f.errors.Inc()
		if f.config.FailureModeAllow {
			f.failureAllowed.Inc()
			s.conn.Resume()
			return
		}
	case codes.Code(a.response.GetStatus().GetCode()) == codes.OK:
		f.ok.Inc()
		s.remember(a.response)
		i.SetMetadata(name, "ext_authz_duration", float64(time.Since(s.began).Milliseconds()))
		s.conn.Resume()
		return
	default:
		f.denied.Inc()
		s.remember(a.response)
	}
	i.Flags.Set(stream.UnauthorizedExternalService)
	f.cxClosed.Inc()
	s.conn.Deny(reason)
}

// remember keeps the service's dynamic metadata.
func (s *session) remember(r *authv3.CheckResponse) {
	for key, v := range r.GetDynamicMetadata().AsMap() {
		s.conn.Info.SetMetadata(name, key, v)
	}
}

// Ended gives a call up.
func (s *session) Ended() {
	if s.cancel != nil {
		s.cancel()
		s.cancel = nil
		s.factory.active.Dec()
	}
}

// request says of the connection what Envoy says.
func (s *session) request() *authv3.CheckRequest {
	i := s.conn.Info
	r := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source:          &authv3.AttributeContext_Peer{Address: address(i.Remote())},
		Destination:     &authv3.AttributeContext_Peer{Address: address(i.Local()), Service: i.Hello().ServerName},
		MetadataContext: &corev3.Metadata{},
	}}
	if s.factory.config.IncludeTLSSession {
		r.Attributes.TlsSession = &authv3.AttributeContext_TLSSession{Sni: i.Hello().ServerName}
	}
	if t, _ := i.TLS(); t != nil {
		if s.factory.config.IncludeTLSSession {
			r.Attributes.TlsSession.Sni = t.ServerName
		}
		r.Attributes.Source.Principal = principal(t.PeerURIs(), t.PeerDNSNames(), t.PeerSubject())
		r.Attributes.Destination.Principal = principal(t.LocalURIs(), t.LocalDNSNames(), t.LocalSubject())
		if s.factory.config.IncludePeerCertificate {
			r.Attributes.Source.Certificate = t.PeerPEM()
		}
	}
	for _, ns := range s.factory.config.MetadataNamespaces {
		values, ok := i.Metadata()[ns]
		if !ok {
			continue
		}
		st, err := structpb.NewStruct(values)
		if err != nil {
			continue // holds what JSON has not
		}
		m := r.Attributes.MetadataContext
		if m.FilterMetadata == nil {
			m.FilterMetadata = map[string]*structpb.Struct{}
		}
		m.FilterMetadata[ns] = st
	}
	return r
}

// principal is whom a certificate is of: its first URI, else its first DNS name, else
// its subject.
func principal(uris, names []string, subject string) string {
	switch {
	case len(uris) > 0:
		return uris[0]
	case len(names) > 0:
		return names[0]
	}
	return subject
}

func address(a netip.AddrPort) *corev3.Address {
	if !a.IsValid() {
		return nil
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: a.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())}}}}
}
