package resource

import (
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	proxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/proxy_protocol/v3"

	"github.com/sluice-proxy/sluice/api"
)

const typeProxied = "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"

func proxyPolicies() policies {
	return policies{
		typeProxied: policy{}.
			// The socket within is decoded where transport sockets are. Without an IP
			// address there is never one to write.
			fields(built, "transport_socket", "allow_unspecified_address").
			fields(inside, "config").
			// Only HTTP keeps connections for others.
			fields(noted, "tlv_as_pool_key"),
		"envoy.config.core.v3.ProxyProtocolConfig": policy{}.
			fields(built, "version", "pass_through_tlvs", "added_tlvs"),
	}
}

// proxiedTransport is the socket that sends a PROXY header first, or nil.
func proxiedTransport(ts *corev3.TransportSocket) *proxyv3.ProxyProtocolUpstreamTransport {
	m, _, _, err := open(ts.GetTypedConfig())
	if err != nil {
		return nil
	}
	p, _ := m.(*proxyv3.ProxyProtocolUpstreamTransport)
	return p
}

// proxied reads the header that a transport socket asks for.
func (w *walker) proxied(path string, p *proxyv3.ProxyProtocolUpstreamTransport) *api.ProxyHeader {
	if err := constraint(path, p); err != nil {
		w.fail("", err)
		return nil
	}
	w.message(path, p.ProtoReflect())
	c := p.GetConfig()
	h := &api.ProxyHeader{V2: c.GetVersion() == corev3.ProxyProtocolConfig_V2}
	if t := c.GetPassThroughTlvs(); t != nil {
		h.PassAll = t.GetMatchType() == corev3.ProxyProtocolPassThroughTLVs_INCLUDE_ALL
		for _, n := range t.GetTlvType() {
			h.PassTypes = append(h.PassTypes, uint8(n)) // the proto bounds it
		}
	}
	h.Added = w.tlvs(path+".config.added_tlvs", c.GetAddedTlvs())
	return h
}

// tlvs reads values, and formats of values.
func (w *walker) tlvs(path string, in []*corev3.TlvEntry) (out []api.TLV) {
	for i, e := range in {
		at := fmt.Sprintf("%s[%d]", path, i)
		t := api.TLV{Type: uint8(e.GetType()), Value: e.GetValue()} // the proto bounds it
		switch f := e.GetFormatString(); {
		case f != nil && len(e.GetValue()) > 0:
			w.fail(at, errors.New("Invalid TLV configuration: only one of 'value' or 'format_string' must be set."))
		case f != nil:
			var format api.AccessLog
			w.substitutionFormat(at+".format_string", &format, f)
			if format.JSON != nil {
				w.fail(at+".format_string", errors.New("not supported yet (json_format)"))
			}
			t.Format = &format.Text
		case len(e.GetValue()) == 0:
			w.fail(at, errors.New("Invalid TLV configuration: one of 'value' or 'format_string' must be set."))
		}
		out = append(out, t)
	}
	return out
}

// hostTLVs are those that a host's metadata has for the PROXY header.
func (w *walker) hostTLVs(path string, m *corev3.Metadata) []api.TLV {
	const key = "envoy.transport_sockets.proxy_protocol"
	a := m.GetTypedFilterMetadata()[key]
	if a == nil {
		return nil
	}
	v, _, _, err := open(a)
	if err != nil {
		w.fail(path+"["+key+"]", err)
		return nil
	}
	p, _ := v.(*corev3.PerHostConfig)
	out := w.tlvs(path+"["+key+"].added_tlvs", p.GetAddedTlvs())
	for i := range out {
		out[i].Format = nil // Envoy 1.40 sends an empty value
	}
	return out
}
