package resource

import (
	"errors"
	"fmt"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/sluice-proxy/sluice/api"
)

// httpProtocolOptions is the extension that says what the older fields say.
const httpProtocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// protocols are what a cluster says of the HTTP that is spoken to its hosts.
type protocols struct {
	http2  *corev3.Http2ProtocolOptions // nil: HTTP/1.1
	byALPN bool                         // or that
	common *corev3.HttpProtocolOptions
}

// httpOptions reads the fields of before HttpProtocolOptions, or those.
func httpOptions(p *clusterv3.Cluster) protocols {
	a := p.GetTypedExtensionProtocolOptions()[httpProtocolOptions]
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
	path := ""
	if a := p.GetTypedExtensionProtocolOptions()[httpProtocolOptions]; a != nil {
		m, _, _, err := open(a)
		path = "typed_extension_protocol_options[" + httpProtocolOptions + "]"
		if err == nil {
			err = constraint("", m)
		}
		if err != nil {
			w.fail(path, err)
			return nil
		}
		w.message(path, m.ProtoReflect())
	}
	o := httpOptions(p)
	if o.http2 == nil {
		return nil
	}
	if o.byALPN && s.TLS == nil {
		w.fail("", fmt.Errorf("ALPN configured for cluster %s which has a non-ALPN transport socket", short(p.GetName())))
	}
	w.notes(join(path, "common_http_protocol_options"), o.common)
	h := api.DefaultHTTP2()
	h.ByALPN = o.byALPN
	common := join(path, "common_http_protocol_options")
	h.MaxRequests = uint32Or(o.common.GetMaxRequestsPerConnection(), p.GetMaxRequestsPerConnection().GetValue()) //nolint:staticcheck // deprecated, and in use
	h.IdleTimeout = w.duration(common+".idle_timeout", o.common.GetIdleTimeout(), api.DefaultHTTPIdleTimeout)
	h.MaxDuration = w.duration(common+".max_connection_duration", o.common.GetMaxConnectionDuration(), 0)
	if kb := o.common.GetMaxResponseHeadersKb(); kb != nil {
		h.MaxHeaders = kb.GetValue() << 10
	}
	h.MaxStreams = uint32Or(o.http2.GetMaxConcurrentStreams(), h.MaxStreams)
	h.StreamWindow, h.ConnWindow = o.http2.GetInitialStreamWindowSize().GetValue(), o.http2.GetInitialConnectionWindowSize().GetValue()
	h.MaxControls = uint32Or(o.http2.GetMaxOutboundControlFrames(), h.MaxControls)
	h.MaxEmpty = uint32Or(o.http2.GetMaxConsecutiveInboundFramesWithEmptyPayload(), h.MaxEmpty)
	h.MaxPriorities = uint32Or(o.http2.GetMaxInboundPriorityFramesPerStream(), h.MaxPriorities)
	h.MaxWindowUpdates = uint32Or(o.http2.GetMaxInboundWindowUpdateFramesPerDataFrameSent(), h.MaxWindowUpdates)
	if k := o.http2.GetConnectionKeepalive(); k != nil {
		at := join(path, "http2_protocol_options.connection_keepalive")
		h.KeepaliveInterval = w.duration(at+".interval", k.GetInterval(), 0)
		h.KeepaliveTimeout = w.duration(at+".timeout", k.GetTimeout(), 0)
	}
	if err := customSettings(o.http2); err != nil {
		w.fail(join(path, "http2_protocol_options.custom_settings_parameters"), err)
	}
	return &h
}

// notes lists what is set and has no effect on tunnels.
func (w *walker) notes(path string, o *corev3.HttpProtocolOptions) {
	for _, n := range []struct {
		what string
		is   bool
	}{
		{"max_connection_duration_jitter", o.GetMaxConnectionDurationJitter() != nil},
		{"max_headers_count", o.GetMaxHeadersCount() != nil},
		{"max_stream_duration", o.GetMaxStreamDuration() != nil},
		{"headers_with_underscores_action", o.GetHeadersWithUnderscoresAction() != 0},
	} {
		if n.is {
			w.unbuilt = append(w.unbuilt, join(path, n.what))
		}
	}
}

// customSettings checks what may stand there only once, or not at all.
func customSettings(o *corev3.Http2ProtocolOptions) error {
	var twice []string
	for _, c := range o.GetCustomSettingsParameters() {
		switch id := c.GetIdentifier().GetValue(); {
		case id == 2 && c.GetValue().GetValue() == 1:
			return errors.New("server push is not supported by Envoy and can not be enabled via a SETTINGS parameter.") //nolint:staticcheck // Envoy's words
		case id == 1 && o.GetHpackTableSize() != nil:
			twice = append(twice, "hpack_table_size")
		case id == 3 && o.GetMaxConcurrentStreams() != nil:
			twice = append(twice, "max_concurrent_streams")
		case id == 4 && o.GetInitialStreamWindowSize() != nil:
			twice = append(twice, "initial_stream_window_size")
		}
	}
	if len(twice) == 0 {
		return nil
	}
	return fmt.Errorf("the {%s} HTTP/2 SETTINGS parameter(s) can not be configured through both named and custom parameters", strings.Join(twice, ","))
}
