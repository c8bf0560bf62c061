package resource

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
)

// httpManagers is the filter of HTTP chains. It becomes one of three:
//   - a tcp_proxy, where all requests of the chain go to one place and nothing
//     is asked for but what Envoy does to the headers of every request;
//   - an api.HTTP, where its routes and filters are those that are built;
//   - else an api.UnservedHTTP. The listener is accepted all the same: a NACK
//     would cost it its TCP chains, and an Istio pod its readiness, which hangs on
//     one LDS response without a rejection.
//
// What Envoy refuses is refused.
func httpManagers() map[string]networkFilter {
	return map[string]networkFilter{
		typeHTTP: {terminal: true, decode: func(w *walker, path string, m proto.Message) api.Filter {
			return w.httpManager(path, m.(*hcmv3.HttpConnectionManager))
		}},
	}
}

// httpDecoder reads one connection manager. Its own walker collects what is not
// built; bad is the listener's, and collects what Envoy refuses.
type httpDecoder struct {
	*walker
	bad *walker
	// chooses says that requests are answered or changed in more ways than Envoy
	// changes all of them.
	chooses bool
	bodyMax uint32
}

func (w *walker) httpManager(path string, p *hcmv3.HttpConnectionManager) api.Filter {
	d := httpDecoder{walker: &walker{policies: w.policies}, bad: w, bodyMax: 4096}
	d.message(path, p.ProtoReflect())
	h := d.manager(path, p)
	logs := w.accessLogs(path+".access_log", p.GetAccessLog())
	w.unbuilt = append(w.unbuilt, d.unbuilt...)
	if d.errs != nil {
		w.unbuilt = append(w.unbuilt, path)
		return api.Filter{UnservedHTTP: &api.UnservedHTTP{StatPrefix: h.StatPrefix, Why: d.err().Error()}}
	}
	if to := d.onlyWay(h); to != nil {
		return api.Filter{TCPProxy: &api.TCPProxy{
			StatPrefix: h.StatPrefix, Cluster: to.Cluster, Clusters: to.Clusters, IdleTimeout: h.IdleTimeout,
			MaxConnectAttempts: api.DefaultMaxConnectAttempts, AccessLogs: logs, ForHTTP: true,
		}}
	}
	return api.Filter{HTTP: h}
}

func (d *httpDecoder) manager(path string, p *hcmv3.HttpConnectionManager) *api.HTTP {
	h := &api.HTTP{
		StatPrefix:       p.GetStatPrefix(),
		ServerName:       p.GetServerName(),
		KeepServer:       p.GetServerHeaderTransformation() == hcmv3.HttpConnectionManager_PASS_THROUGH,
		HTTP1:            p.GetCodecType() != hcmv3.HttpConnectionManager_HTTP2,
		HTTP2:            p.GetCodecType() != hcmv3.HttpConnectionManager_HTTP1,
		HTTP10:           p.GetHttpProtocolOptions().GetAcceptHttp_10(),
		MaxHeaderBytes:   api.DefaultMaxHeaderBytes,
		IdleTimeout:      d.bad.duration(path+".common_http_protocol_options.idle_timeout", p.GetCommonHttpProtocolOptions().GetIdleTimeout(), api.DefaultIdleTimeout),
		RequestTimeout:   d.bad.duration(path+".request_timeout", p.GetRequestTimeout(), 0),
		HeadersTimeout:   d.bad.duration(path+".request_headers_timeout", p.GetRequestHeadersTimeout(), 0),
		UseRemoteAddress: p.GetUseRemoteAddress().GetValue(),
		SkipXFF:          p.GetSkipXffAppend(),
		RequestID:        p.GetGenerateRequestId() == nil || p.GetGenerateRequestId().GetValue(),
		IgnorePort:       p.GetStripMatchingHostPort() || p.GetStripAnyHostPort() || p.GetRouteConfig().GetIgnorePortInHostMatching(),
		NormalizePath:    p.GetNormalizePath().GetValue(),
		MergeSlashes:     p.GetMergeSlashes(),
	}
	if p.GetCodecType() == hcmv3.HttpConnectionManager_HTTP3 {
		d.bad.fail(path+".codec_type", errors.New("HTTP/3 codec configured on non-QUIC listener."))
	}
	if h.ServerName == "" {
		h.ServerName = api.DefaultServerName
	}
	if kb := p.GetMaxRequestHeadersKb(); kb != nil {
		h.MaxHeaderBytes = kb.GetValue() << 10
	}
	d.httpFilters(path, p.GetHttpFilters(), h)
	if c := p.GetRouteConfig(); c != nil {
		if n := c.GetMaxDirectResponseBodySizeBytes(); n != nil {
			d.bodyMax = n.GetValue()
		}
		h.Headers = d.headers(path+".route_config", c)
		upgrades := map[string]bool{}
		for _, u := range p.GetUpgradeConfigs() {
			upgrades[strings.ToLower(u.GetUpgradeType())] = u.GetEnabled() == nil || u.GetEnabled().GetValue()
		}
		d.virtualHosts(path+".route_config", c, h, upgrades)
	}
	return h
}

// onlyWay is where all requests go, if there is one such way and nothing is done
// to them on it but what Envoy does to all.
func (d *httpDecoder) onlyWay(h *api.HTTP) *api.HTTPForward {
	if d.chooses || len(h.HealthChecks) > 0 || len(h.VirtualHosts) != 1 {
		return nil
	}
	v := &h.VirtualHosts[0]
	if !slices.Contains(v.Domains, "*") || len(v.Routes) != 1 {
		return nil
	}
	r := &v.Routes[0]
	m := &r.Match
	if r.Forward == nil || m.Path != api.PathPrefix || m.Value != "/" && m.Value != "" || len(m.Headers)+len(m.Query) > 0 || m.GRPC {
		return nil
	}
	return r.Forward
}

// quiet are HTTP filters that change neither where requests go nor who may make
// them, nor their bodies: figures, what peers tell each other of themselves, and
// compression of answers.
func quiet(name string) bool {
	switch name {
	case "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
		"envoy.extensions.filters.http.compressor.v3.Compressor",
		"stats.PluginConfig", "io.istio.http.peer_metadata.Config", "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
		"envoy.config.filter.http.alpn.v2alpha1.FilterConfig":
		return true
	}
	return false
}

// httpFilters decides the HTTP filters by their types.
func (d *httpDecoder) httpFilters(path string, in []*hcmv3.HttpFilter, h *api.HTTP) {
	last := len(in) - 1
	for i, f := range in {
		place := fmt.Sprintf("%s.http_filters[%d]", path, i)
		if f.GetConfigDiscovery() != nil {
			d.fail(place+".config_discovery", errors.New("not supported yet"))
			continue
		}
		m, name, _, err := open(f.GetTypedConfig())
		inner := anyPath(place, name)
		router := name == typeRouter
		switch {
		case err != nil:
			d.bad.fail(place, err)
			continue
		case m == nil && !quiet(name) && f.GetIsOptional():
			d.unbuilt = append(d.unbuilt, inner)
			continue
		case m == nil && !quiet(name), m != nil && !isHTTPFilter(name):
			d.bad.fail(inner, fmt.Errorf("Didn't find a registered implementation for '%s' with type URL: '%s'", short(f.GetName()), short(name)))
			continue
		case router && i != last:
			d.bad.fail(inner, fmt.Errorf("Error: terminal filter named %s of type %s must be the last filter in a http filter chain.", short(f.GetName()), httpFactory(name)))
		case !router && i == last:
			d.bad.fail(inner, fmt.Errorf("Error: non-terminal filter named %s of type %s is the last filter in a http filter chain.", short(f.GetName()), httpFactory(name)))
		}
		switch {
		case f.GetDisabled() && !router: // a route could only turn it on by what is refused there
			d.unbuilt = append(d.unbuilt, inner)
		case quiet(name):
			d.unbuilt = append(d.unbuilt, inner)
		case d.policies[m.ProtoReflect().Descriptor().FullName()] != nil:
			d.httpFilter(inner, m, h)
		default:
			d.fail(inner, fmt.Errorf("not supported yet (%s)", name))
		}
	}
	if last < 0 || innerURL(in[last].GetTypedConfig()) != typeRouter {
		d.fail(path+".http_filters", errors.New("without a router no request is answered"))
	}
}

const typeRouter = "envoy.extensions.filters.http.router.v3.Router"

// isHTTPFilter knows them by their package, or as Istio's.
func isHTTPFilter(name string) bool {
	return strings.HasPrefix(name, "envoy.extensions.filters.http.") || quiet(name)
}

func httpFactory(message string) string {
	rest := strings.TrimPrefix(message, "envoy.extensions.filters.http.")
	folder, _, _ := strings.Cut(rest, ".")
	return "envoy.filters.http." + folder
}
