// Package proxyheader writes the PROXY header that hosts of a cluster are sent
// first (envoy.transport_sockets.upstream_proxy_protocol).
package proxyheader

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// Values are TLVs whose values may differ from connection to connection.
type Values []value

type value struct {
	api.TLV
	format *stream.Formatter // nil: the value is fixed
}

// NewValues makes TLVs ready.
func NewValues(in []api.TLV) Values {
	out := make(Values, len(in))
	for i, t := range in {
		out[i].TLV = t
		if t.Format != nil {
			out[i].format = stream.NewText(*t.Format, false)
		}
	}
	return out
}

// of are the TLVs of one connection.
func (vs Values) of(i *stream.Info) []api.TLV {
	out := make([]api.TLV, len(vs))
	for j, v := range vs {
		out[j] = v.TLV
		if v.format != nil {
			out[j].Value = v.format.Append(nil, stream.Moment{Info: i, Now: time.Now()})
		}
	}
	return out
}

// Merged are the TLVs that a connection brings: the client's and tcp_proxy's own.
func Merged(i *stream.Info, own Values, how api.TLVMerge) []api.TLV {
	hello := i.Hello()
	switch {
	case len(own) == 0:
		return hello.TLVs
	case !hello.Proxied:
		return own.of(i)
	case how == api.AddTLVsIfAbsent:
		return hello.TLVs
	}
	mine := own.of(i)
	if how == api.AppendTLVs {
		return slices.Concat(hello.TLVs, mine)
	}
	return slices.Concat(mine, without(hello.TLVs, mine))
}

// without are those of all whose types are none of others'.
func without(all, others []api.TLV) []api.TLV {
	return slices.DeleteFunc(slices.Clone(all), func(t api.TLV) bool {
		return slices.ContainsFunc(others, func(o api.TLV) bool { return o.Type == t.Type })
	})
}

// Append is the header of a connection that brings these TLVs, to a host that has
// some of its own. A client that has
// no IP address gets none in version 2, where Envoy 1.40 sends none either, and one
// of an unknown client in version 1, where Envoy 1.40 dies.
func Append(h *api.ProxyHeader, i *stream.Info, host, brought []api.TLV) ([]byte, error) {
	from, to := i.Remote(), i.Local()
	if !from.IsValid() || !to.IsValid() {
		if h.V2 {
			return nil, nil
		}
		return []byte("PROXY UNKNOWN\r\n"), nil
	}
	header := proxyproto.Header{Version: 1, Command: proxyproto.PROXY, TransportProtocol: proxyproto.TCPv4, SourceAddr: tcp(from), DestinationAddr: tcp(to)}
	if !from.Addr().Is4() || !to.Addr().Is4() {
		header.TransportProtocol = proxyproto.TCPv6
	}
	if !h.V2 {
		return header.Format()
	}
	header.Version = 2
	all := NewValues(host).of(i)
	all = append(all, without(NewValues(h.Added).of(i), all)...)
	for _, t := range without(brought, all) {
		if h.PassAll || slices.Contains(h.PassTypes, t.Type) {
			all = append(all, t)
		}
	}
	tlvs := make([]proxyproto.TLV, len(all))
	for j, t := range all {
		tlvs[j] = proxyproto.TLV{Type: proxyproto.PP2Type(t.Type), Value: t.Value}
	}
	if err := header.SetTLVs(tlvs); err != nil {
		return nil, fmt.Errorf("add TLVs to PROXY header: %w", err)
	}
	return header.Format()
}

func tcp(a netip.AddrPort) net.Addr { return net.TCPAddrFromAddrPort(a) }
