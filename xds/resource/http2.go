package resource

import (
	"errors"
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/sluice-proxy/sluice/api"
)

// protocols are what a cluster says of the HTTP that is spoken to its hosts.
type protocols struct {
	http2  *corev3.Http2ProtocolOptions // nil: HTTP/1.1
	byALPN bool                         // or that
	common *corev3.HttpProtocolOptions
}

// httpOptions reads the fields of before HttpProtocolOptions, or those.
func httpOptions(p *clusterv3.Cluster) protocols {
	a := p.GetTypedExtensionProtocolOptions()["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]
	m, _, _, _ := open(a)
	o, ok := m.(*upstreamhttpv3.HttpProtocolOptions)
	if !ok {
		return protocols{http2: p.GetHttp2ProtocolOptions(), common: p.GetCommonHttpProtocolOptions()} //nolint:staticcheck // deprecated, and in use
	}
	out := protocols{common: o.GetCommonHttpProtocolOptions()}
	switch k := o.GetUpstreamProtocolOptions().(type) {
	case *upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_:
		out.http2 = k.ExplicitHttpConfig.GetHttp2ProtocolOptions()
	case *upstreamhttpv3.HttpProtocolOptions_UseDownstreamProtocolConfig:
		out.http2 = k.UseDownstreamProtocolConfig.GetHttp2ProtocolOptions()
	case *upstreamhttpv3.HttpProtocolOptions_AutoConfig:
		out.byALPN, out.http2 = true, k.AutoConfig.GetHttp2ProtocolOptions()
		if out.http2 == nil {
			out.http2 = &corev3.Http2ProtocolOptions{}
		}
	}
	return out
}

// http2 decodes how HTTP/2 is spoken to the cluster's hosts; nil: it is not.
func (w *walker) http2(p *clusterv3.Cluster, s *api.UpstreamSocket) *api.HTTP2 {
	o := httpOptions(p)
	if o.http2 == nil {
		return nil
	}
	if o.byALPN && s.TLS == nil {
		w.fail("", fmt.Errorf("ALPN configured for cluster %s which has a non-ALPN transport socket", short(p.GetName())))
	}
	h := &api.HTTP2{ByALPN: o.byALPN, MaxStreams: uint32Or(o.http2.GetMaxConcurrentStreams(), api.DefaultMaxStreams),
		MaxRequests: uint32Or(p.GetMaxRequestsPerConnection(), 0)} //nolint:staticcheck // deprecated, and in use
	if h.MaxStreams == 0 || h.MaxStreams > 1<<31-1 {
		w.fail("http2_protocol_options.max_concurrent_streams", errors.New("value must be inside range [1, 2147483647]"))
	}
	if m := o.common.GetMaxRequestsPerConnection(); m != nil {
		h.MaxRequests = m.GetValue()
	}
	h.IdleTimeout = w.duration("common_http_protocol_options.idle_timeout", o.common.GetIdleTimeout(), api.DefaultHTTPIdleTimeout)
	return h
}
