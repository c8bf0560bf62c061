package resource

import (
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	listenerlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/local_ratelimit/v3"
	originalsrcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_src/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	listenerstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/set_filter_state/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
)

const listenerFilterPrefix = "envoy.extensions.filters.listener."

// listenerFilterDecoder decodes the listener filters of one type.
type listenerFilterDecoder func(w *walker, path string, m proto.Message) api.ListenerFilter

// listenerFilterDecoders are those that are built, by the full name of their
// configuration's message.
func listenerFilterDecoders() map[string]listenerFilterDecoder {
	plain := func(f api.ListenerFilter) listenerFilterDecoder {
		return func(w *walker, path string, m proto.Message) api.ListenerFilter {
			w.message(path, m.ProtoReflect())
			return f
		}
	}
	return map[string]listenerFilterDecoder{
		listenerFilterPrefix + "original_dst.v3.OriginalDst":     plain(api.ListenerFilter{OriginalDst: &api.OriginalDst{}}),
		listenerFilterPrefix + "http_inspector.v3.HttpInspector": plain(api.ListenerFilter{HTTPInspector: &api.HTTPInspector{}}),
		listenerFilterPrefix + "tls_inspector.v3.TlsInspector": func(w *walker, path string, m proto.Message) api.ListenerFilter {
			w.message(path, m.ProtoReflect())
			return api.ListenerFilter{TLSInspector: tlsInspector(m.(*tlsinspectorv3.TlsInspector))}
		},
		listenerFilterPrefix + "original_src.v3.OriginalSrc": func(w *walker, path string, m proto.Message) api.ListenerFilter {
			w.message(path, m.ProtoReflect())
			return api.ListenerFilter{OriginalSrc: &api.OriginalSrc{Mark: m.(*originalsrcv3.OriginalSrc).GetMark()}}
		},
		listenerFilterPrefix + "local_ratelimit.v3.LocalRateLimit": func(w *walker, path string, m proto.Message) api.ListenerFilter {
			p := m.(*listenerlimitv3.LocalRateLimit)
			w.message(path, p.ProtoReflect())
			return api.ListenerFilter{LocalRateLimit: &api.LocalRateLimit{StatPrefix: p.GetStatPrefix(), Bucket: w.tokenBucket(path, p.GetTokenBucket()), Enabled: flag(p.GetRuntimeEnabled())}}
		},
		listenerFilterPrefix + "set_filter_state.v3.Config": func(w *walker, path string, m proto.Message) api.ListenerFilter {
			w.message(path, m.ProtoReflect())
			values := w.filterStateValues(path+".on_accept", m.(*listenerstatev3.Config).GetOnAccept())
			return api.ListenerFilter{SetFilterState: append([]api.FilterStateValue{}, values...)}
		},
		listenerFilterPrefix + "proxy_protocol.v3.ProxyProtocol": func(w *walker, path string, m proto.Message) api.ListenerFilter {
			w.message(path, m.ProtoReflect())
			p := proxyProtocol(m.(*proxyprotocolv3.ProxyProtocol))
			if p.NoV1 && p.NoV2 {
				w.fail(path, errors.New("Proxy Protocol filter is misconfigured: all proxy protocol versions are disallowed."))
			}
			return api.ListenerFilter{ProxyProtocol: p}
		},
	}
}

func (w *walker) listenerFilters(in []*listenerv3.ListenerFilter) []api.ListenerFilter {
	var out []api.ListenerFilter
	known := listenerFilterDecoders()
	for i, f := range in {
		place := fmt.Sprintf("listener_filters[%d]", i)
		w.message(place, f.ProtoReflect())
		if f.GetConfigDiscovery() != nil {
			out = append(out, w.withPredicate(place, f, w.discoveredListener(place, f)))
			continue
		}
		m, name, _, err := open(f.GetTypedConfig())
		decode := known[name]
		switch {
		case err != nil:
			w.fail(place, err)
			continue
		case decode == nil:
			cause := unregistered(f.GetName(), f.GetTypedConfig())
			if cause == "" {
				cause = "not supported yet (" + name + ")"
			}
			w.fail(anyPath(place, name), errors.New(cause))
			continue
		}
		one := decode(w, anyPath(place, name), m)
		one.Name = f.GetName()
		out = append(out, w.withPredicate(place, f, one))
	}
	return out
}

func (w *walker) withPredicate(path string, f *listenerv3.ListenerFilter, one api.ListenerFilter) api.ListenerFilter {
	if p := f.GetFilterDisabled(); p != nil {
		d := w.predicate(path+".filter_disabled", p)
		one.Disabled = &d
	}
	return one
}

func (w *walker) predicate(path string, p *listenerv3.ListenerFilterChainMatchPredicate) api.ListenerFilterPredicate {
	set := func(of *listenerv3.ListenerFilterChainMatchPredicate_MatchSet) []api.ListenerFilterPredicate {
		out := []api.ListenerFilterPredicate{}
		for i, r := range of.GetRules() {
			out = append(out, w.predicate(fmt.Sprintf("%s.rules[%d]", path, i), r))
		}
		return out
	}
	switch r := p.GetRule().(type) {
	case *listenerv3.ListenerFilterChainMatchPredicate_OrMatch:
		return api.ListenerFilterPredicate{Or: set(r.OrMatch)}
	case *listenerv3.ListenerFilterChainMatchPredicate_AndMatch:
		return api.ListenerFilterPredicate{And: set(r.AndMatch)}
	case *listenerv3.ListenerFilterChainMatchPredicate_NotMatch:
		n := w.predicate(path+".not_match", r.NotMatch)
		return api.ListenerFilterPredicate{Not: &n}
	case *listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange:
		// int32Range: the end is exclusive.
		return api.ListenerFilterPredicate{PortFrom: uint32(max(r.DestinationPortRange.GetStart(), 0)), PortTo: uint32(max(r.DestinationPortRange.GetEnd(), 0))}
	}
	return api.ListenerFilterPredicate{Any: true}
}

// defaultClientHello is Envoy's TLS_MAX_CLIENT_HELLO.
const defaultClientHello = 16 << 10

func tlsInspector(p *tlsinspectorv3.TlsInspector) *api.TLSInspector {
	return &api.TLSInspector{
		MaxClientHello: min(uint32Or(p.GetMaxClientHelloSize(), defaultClientHello), defaultClientHello),
		CloseOnError:   p.GetCloseConnectionOnClientHelloParsingErrors(),
		JA3:            p.GetEnableJa3Fingerprinting().GetValue(),
		JA4:            p.GetEnableJa4Fingerprinting().GetValue(),
	}
}

func proxyProtocol(p *proxyprotocolv3.ProxyProtocol) *api.ProxyProtocol {
	out := &api.ProxyProtocol{
		Optional:      p.GetAllowRequestsWithoutProxyProtocol(),
		StatPrefix:    p.GetStatPrefix(),
		ToFilterState: p.GetTlvLocation() == proxyprotocolv3.ProxyProtocol_FILTER_STATE,
	}
	for _, v := range p.GetDisallowedVersions() {
		out.NoV1 = out.NoV1 || v == corev3.ProxyProtocolConfig_V1
		out.NoV2 = out.NoV2 || v == corev3.ProxyProtocolConfig_V2
	}
	for _, r := range p.GetRules() {
		if kv := r.GetOnTlvPresent(); kv != nil {
			out.Rules = append(out.Rules, api.TLVRule{Type: uint8(r.GetTlvType()), Namespace: kv.GetMetadataNamespace(), Key: kv.GetKey(),
				Base64: kv.GetValueStringEncoding() == proxyprotocolv3.ProxyProtocol_KeyValuePair_BASE64})
		}
	}
	if t := p.GetPassThroughTlvs(); t != nil {
		out.PassAllTLVs = t.GetMatchType() == corev3.ProxyProtocolPassThroughTLVs_INCLUDE_ALL
		for _, k := range t.GetTlvType() {
			out.PassTLVs = append(out.PassTLVs, uint8(k))
		}
	}
	return out
}
