// Package proxyprotocol is envoy.filters.listener.proxy_protocol: it reads the
// PROXY header at the start of a connection, restores the addresses that it
// names, and takes exactly the header out of the socket.
//
// Source: haproxy's proxy-protocol.txt; what moves when was seen on Envoy 1.40.
package proxyprotocol

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"net"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/pires/go-proxyproto"
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

const (
	signatureV1 = "PROXY "
	signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"
	headerV2    = 16
	// longestV1 is a whole line, with its end.
	longestV1 = 107
	// longest is the longest header of version 2.
	longest = headerV2 + 1<<16 - 1
	// namespace is where rules without one store.
	namespace = "envoy.filters.listener.proxy_protocol"
)

// version are the counters of one version.
type version struct{ found, disallowed, err *stats.Counter }

// Factory makes the filters of a listener.
type Factory struct {
	config                 *api.ProxyProtocol
	scopes                 []*stats.Scope
	v1, v2                 version
	missing, missingPassed *stats.Counter
	failed                 *stats.Counter
}

// New makes a factory. listener is the scope of the listener's own counters.
func New(c *api.ProxyProtocol, store *stats.Store) *Factory {
	prefix := "proxy_proto"
	if c.StatPrefix != "" {
		prefix += "." + c.StatPrefix
	}
	sc, bare := store.Scope(prefix), store.Scope("")
	of := func(name string) version {
		return version{found: sc.Counter("versions." + name + ".found"), disallowed: sc.Counter("versions." + name + ".disallowed"), err: sc.Counter("versions." + name + ".error")}
	}
	return &Factory{config: c, scopes: []*stats.Scope{sc, bare}, v1: of("v1"), v2: of("v2"),
		missing: sc.Counter("not_found_disallowed"), missingPassed: sc.Counter("not_found_allowed"), failed: bare.Counter("downstream_cx_proxy_proto_error")}
}

// New makes the filter of a socket.
func (f *Factory) New(*filter.Socket) filter.ListenerFilter { return (*reader)(f) }

// Release gives the statistics back.
func (f *Factory) Release() {
	for _, s := range f.scopes {
		s.Release()
	}
}

// reader holds nothing of a socket: the bytes are all there every time.
type reader Factory

// Accepted wants bytes.
func (f *reader) Accepted(*filter.Socket) filter.Status { return filter.Stop }

// Wants is the longest header.
func (f *reader) Wants() int { return longest }

// Data reads the header once all of it is there.
func (f *reader) Data(s *filter.Socket, b []byte) filter.Status {
	c := f.config
	// A version that is disallowed is not looked for where headers are optional.
	if v2 := !(c.NoV2 && c.Optional); v2 && begins(b, signatureV2) {
		if len(b) < headerV2 {
			return filter.Stop
		}
		size := headerV2 + int(b[14])<<8 + int(b[15])
		if c.NoV2 {
			f.v2.found.Inc()
			f.v2.disallowed.Inc()
			return filter.Closed
		}
		if len(b) < size {
			return filter.Stop
		}
		return f.header(s, b[:size], f.v2)
	}
	if v1 := !(c.NoV1 && c.Optional); v1 && begins(b, signatureV1) {
		end := bytes.Index(b, []byte("\r\n"))
		switch {
		case len(b) >= len(signatureV1) && c.NoV1:
			f.v1.found.Inc()
			f.v1.disallowed.Inc()
			return filter.Closed
		case end < 0 && len(b) >= longestV1:
			return f.absent()
		case end+2 > longestV1:
			return f.fail(f.v1)
		case end < 0:
			return filter.Stop
		}
		return f.header(s, b[:end+2], f.v1)
	}
	if c.Optional {
		f.missingPassed.Inc()
		return filter.Continue
	}
	return f.absent()
}

// absent refuses what is no PROXY header at all.
func (f *reader) absent() filter.Status {
	f.missing.Inc()
	f.failed.Inc()
	return filter.Closed
}

// begins tells whether b may begin with the signature, as far as it is there.
func begins(b []byte, signature string) bool {
	n := min(len(b), len(signature))
	return string(b[:n]) == signature[:n]
}

func (f *reader) fail(v version) filter.Status {
	v.err.Inc()
	f.failed.Inc()
	return filter.Closed
}

func (f *reader) header(s *filter.Socket, b []byte, v version) filter.Status {
	h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(b)))
	if err != nil {
		return f.fail(v)
	}
	if h.TransportProtocol.IsUnix() {
		return f.fail(v) // Envoy knows no such address family
	}
	var tlvs []proxyproto.TLV
	if h.Version == 2 {
		if tlvs, err = h.TLVs(); err != nil {
			return f.fail(v)
		}
	}
	if h.Command == proxyproto.PROXY && (h.TransportProtocol == proxyproto.TCPv4 || h.TransportProtocol == proxyproto.TCPv6) {
		remote, local := addrPort(h.SourceAddr), addrPort(h.DestinationAddr)
		if !unicast(remote) || !unicast(local) {
			return f.fail(v)
		}
		s.Info.RestoreRemote(remote)
		if local != s.Info.Local() {
			s.Info.RestoreLocal(local)
		}
	}
	s.Info.Found().Proxied = true
	for _, t := range tlvs {
		f.store(s.Info, uint8(t.Type), t.Value)
	}
	if !s.Consume(len(b)) {
		return filter.Closed
	}
	v.found.Inc()
	return filter.Continue
}

// unicast is as Envoy has it: a port of 0 is one, too.
func unicast(a netip.AddrPort) bool {
	ip := a.Addr()
	return ip.IsValid() && !ip.IsUnspecified() && !ip.IsMulticast() && ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ip, _ := netip.AddrFromSlice(t.IP)
	return netip.AddrPortFrom(ip.Unmap(), uint16(t.Port))
}

// store keeps what a rule, or the header to the upstream, asks for.
func (f *reader) store(info *stream.Info, kind uint8, value []byte) {
	for _, r := range f.config.Rules {
		if r.Type != kind {
			continue
		}
		text := sanitize(value)
		if r.Base64 {
			text = base64.StdEncoding.EncodeToString(value)
		}
		name := r.Namespace
		if name == "" {
			name = namespace
		}
		if f.config.ToFilterState {
			info.SetState(name+"."+r.Key, stream.Object{Value: text})
			continue
		}
		info.SetMetadata(name, r.Key, text)
	}
	if f.config.PassAllTLVs || slices.Contains(f.config.PassTLVs, kind) {
		found := info.Found()
		found.TLVs = append(found.TLVs, api.TLV{Type: kind, Value: bytes.Clone(value)})
	}
}

// sanitize makes text of bytes: what is no UTF-8 becomes an exclamation mark
// (MessageUtil::sanitizeUtf8String).
func sanitize(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var out strings.Builder
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			out.WriteByte('!')
		} else {
			out.Write(b[:n])
		}
		b = b[n:]
	}
	return out.String()
}
