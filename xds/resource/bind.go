package resource

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/api"
)

// maxUnixPath is the size of sockaddr_un's sun_path, with its closing NUL.
const maxUnixPath = 108

// addresses decodes where a listener listens, and what is set on its sockets.
func (w *walker) addresses(p *listenerv3.Listener) []api.BindAddress {
	own := api.SocketOptions{
		Transparent: tri(p.GetTransparent()), Freebind: tri(p.GetFreebind()), FastOpenQueue: number(p.GetTcpFastOpenQueueLength()),
		Keepalive: keepalive(p.GetTcpKeepalive()), Options: socketOptions(p.GetSocketOptions()),
	}
	var out []api.BindAddress
	add := func(path string, a *corev3.Address, o api.SocketOptions) {
		if b, ok := w.bindAddress(path, a); ok {
			b.Socket = o
			if b.Path != "" && p.GetEnableMptcp() {
				w.fail("enable_mptcp", fmt.Errorf("listener %s: enable_mptcp can only be used with IP addresses", short(p.GetName())))
			}
			out = append(out, b)
		}
	}
	add("address", p.GetAddress(), own)
	for i, more := range p.GetAdditionalAddresses() {
		path := fmt.Sprintf("additional_addresses[%d]", i)
		if more.GetAddress() == nil {
			w.fail(path+".address", errors.New("Address must be set"))
			continue
		}
		w.message(path, more.ProtoReflect())
		o := own
		if more.GetSocketOptions() != nil {
			o.Options = socketOptions(more.GetSocketOptions().GetSocketOptions())
		}
		if more.GetTcpKeepalive() != nil {
			o.Keepalive = keepalive(more.GetTcpKeepalive())
		}
		add(path+".address", more.GetAddress(), o)
	}
	return out
}

// bindAddress reads an address to listen on. Only here may it be a pipe.
func (w *walker) bindAddress(path string, a *corev3.Address) (b api.BindAddress, ok bool) {
	pipe := a.GetPipe()
	if pipe == nil {
		w.message(path, a.ProtoReflect())
		b.Addr, b.IPv4Compat = w.addr(path, a)
		return b, b.Addr.IsValid()
	}
	b.Path, b.Mode = pipe.GetPath(), pipe.GetMode()
	switch {
	case len(b.Path) >= maxUnixPath:
		w.fail(path+".pipe.path", fmt.Errorf("Path %q exceeds maximum UNIX domain socket path size of %d.", short(b.Path), maxUnixPath))
	case strings.HasPrefix(b.Path, "@") && b.Mode != 0:
		w.fail(path+".pipe.mode", errors.New("Cannot set mode for Abstract AF_UNIX sockets"))
	case strings.ContainsRune(strings.TrimPrefix(b.Path, "@"), 0):
		w.fail(path+".pipe.path", fmt.Errorf("UNIX domain socket pathname contains embedded null characters (%q)", short(b.Path)))
	default:
		return b, true
	}
	return b, false
}

func tri(v *wrapperspb.BoolValue) *bool {
	if v == nil {
		return nil
	}
	b := v.GetValue()
	return &b
}

// bindToPort also heeds the field's older place, as Envoy does.
func bindToPort(p *listenerv3.Listener) bool {
	for _, v := range []*wrapperspb.BoolValue{p.GetBindToPort(), p.GetDeprecatedV1().GetBindToPort()} {
		if v != nil && !v.GetValue() {
			return false
		}
	}
	return true
}

func number(v *wrapperspb.UInt32Value) *uint32 {
	if v == nil {
		return nil
	}
	n := v.GetValue()
	return &n
}

func keepalive(p *corev3.TcpKeepalive) *api.Keepalive {
	if p == nil {
		return nil
	}
	return &api.Keepalive{Probes: p.GetKeepaliveProbes().GetValue(), Time: p.GetKeepaliveTime().GetValue(), Interval: p.GetKeepaliveInterval().GetValue()}
}

// socketOptions decodes those that concern a stream socket.
func socketOptions(in []*corev3.SocketOption) []api.SocketOption {
	var out []api.SocketOption
	for _, o := range in {
		if o.GetType().GetDatagram() != nil && o.GetType().GetStream() == nil {
			continue
		}
		value := string(o.GetBufValue())
		if v, ok := o.GetValue().(*corev3.SocketOption_IntValue); ok {
			// The kernel reads an int.
			value = string(binary.NativeEndian.AppendUint32(nil, uint32(v.IntValue)))
		}
		out = append(out, api.SocketOption{Level: int(o.GetLevel()), Name: int(o.GetName()), Value: value, State: api.SocketState(o.GetState())})
	}
	return out
}
