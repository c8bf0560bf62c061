package stream

import (
	"encoding/json"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/substitution"
)

// Moment is what a format is printed with besides the connection.
type Moment struct {
	Info *Info
	// Type is what %ACCESS_LOG_TYPE% prints; empty is NotSet.
	Type string
	Now  time.Time
}

// getter yields the value of a command: nil where there is none, else a string,
// an integer, a bool, or what JSON has for the rest.
type getter func(Moment) any

// compile finds the getter of a command. What Envoy has for HTTP only, and what is
// not known here (the id of a TLS session), is nil for every connection.
func compile(p substitution.Piece) getter {
	if g := plain(p.Command); g != nil {
		return g
	}
	arg := p.Arg
	switch p.Command {
	case "START_TIME", "START_TIME_LOCAL":
		f := newClockFormat(arg, p.Command == "START_TIME_LOCAL")
		return func(m Moment) any { return f.format(m.Info.Start) }
	case "EMIT_TIME", "EMIT_TIME_LOCAL":
		f := newClockFormat(arg, p.Command == "EMIT_TIME_LOCAL")
		return func(m Moment) any { return f.format(m.Now) }
	case "ENVIRONMENT":
		v, ok := os.LookupEnv(arg)
		if !ok {
			v = "-" // in JSON too
		}
		return func(Moment) any { return v }
	case "HOSTNAME":
		v, err := os.Hostname()
		return func(Moment) any { return given(v, err == nil) }
	case "REQUESTED_SERVER_NAME":
		return func(m Moment) any { return text(m.Info.Hello().ServerName) }
	case "FILTER_STATE":
		return filterState(arg)
	case "DYNAMIC_METADATA":
		return fromMetadata(strings.Split(arg, ":"), func(i *Info) Metadata { return i.Metadata() })
	case "UPSTREAM_METADATA":
		return fromMetadata(strings.Split(arg, ":"), hostMetadata)
	case "CLUSTER_METADATA":
		return fromMetadata(strings.Split(arg, ":"), clusterMetadata)
	case "COMMON_DURATION":
		return between(arg)
	case "COALESCE":
		return coalesce(arg)
	case "CEL", "TYPED_CEL":
		return expressed(p.Expression, p.Command == "TYPED_CEL")
	case "METADATA":
		kind, rest, _ := strings.Cut(arg, ":")
		switch kind {
		case "LISTENER":
			return fromMetadata(strings.Split(rest, ":"), func(i *Info) Metadata { return i.Listener.Metadata })
		case "LISTENER_FILTER_CHAIN":
			return fromMetadata(strings.Split(rest, ":"), chainMetadata)
		case "DYNAMIC":
			return fromMetadata(strings.Split(rest, ":"), func(i *Info) Metadata { return i.Metadata() })
		case "UPSTREAM_HOST":
			return fromMetadata(strings.Split(rest, ":"), hostMetadata)
		case "CLUSTER":
			return fromMetadata(strings.Split(rest, ":"), clusterMetadata)
		}
	case "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
		"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":
		get, bits := address(strings.TrimSuffix(p.Command, "_WITHOUT_PORT")), -1
		if n, err := strconv.Atoi(arg); err == nil {
			bits = n
		}
		return func(m Moment) any { return withoutPort(get(m.Info), bits) }
	}
	if get := secured(p.Command, arg); get != nil {
		return get
	}
	return func(Moment) any { return nil }
}

// address finds one of the six addresses.
func address(command string) func(*Info) netip.AddrPort {
	switch command {
	case "DOWNSTREAM_LOCAL_ADDRESS":
		return func(i *Info) netip.AddrPort { return i.Local() }
	case "DOWNSTREAM_DIRECT_LOCAL_ADDRESS":
		return func(i *Info) netip.AddrPort { return i.DirectLocal() }
	case "DOWNSTREAM_REMOTE_ADDRESS":
		return func(i *Info) netip.AddrPort { return i.Remote() }
	case "DOWNSTREAM_DIRECT_REMOTE_ADDRESS":
		return func(i *Info) netip.AddrPort { return i.DirectRemote() }
	case "UPSTREAM_LOCAL_ADDRESS":
		return func(i *Info) netip.AddrPort { return i.Upstream.Local() }
	case "UPSTREAM_REMOTE_ADDRESS":
		return func(i *Info) netip.AddrPort {
			if i.Upstream.ConnectionID == 0 {
				return netip.AddrPort{}
			}
			return i.Upstream.Addr()
		}
	}
	return nil
}

// plain are the commands without arguments.
func plain(command string) getter {
	if get := address(command); get != nil {
		return func(m Moment) any {
			if a := get(m.Info); a.IsValid() {
				return a.String()
			}
			if strings.HasPrefix(command, "DOWNSTREAM") {
				return text(m.Info.Pipe())
			}
			return nil
		}
	}
	if of, ok := strings.CutSuffix(command, "_PORT"); ok {
		if get := address(of + "_ADDRESS"); get != nil {
			return func(m Moment) any {
				if a := get(m.Info); a.IsValid() {
					return uint64(a.Port())
				}
				return nil
			}
		}
	}
	switch command {
	case "ACCESS_LOG_TYPE":
		return func(m Moment) any {
			if m.Type == "" {
				return "NotSet"
			}
			return m.Type
		}
	case "BYTES_RECEIVED":
		return func(m Moment) any { return m.Info.Received }
	case "BYTES_SENT":
		return func(m Moment) any { return m.Info.Sent }
	case "DOWNSTREAM_WIRE_BYTES_RECEIVED":
		return func(m Moment) any { return m.Info.onTheWire(m.Info.Received) }
	case "DOWNSTREAM_WIRE_BYTES_SENT":
		return func(m Moment) any { return m.Info.onTheWire(m.Info.Sent) }
	case "UPSTREAM_WIRE_BYTES_SENT":
		return func(m Moment) any { return m.Info.Upstream.Sent }
	case "UPSTREAM_WIRE_BYTES_RECEIVED":
		return func(m Moment) any { return m.Info.upstreamReceived() }
	case "RESPONSE_CODE", "BYTES_RETRANSMITTED", "PACKETS_RETRANSMITTED", "REQUEST_HEADERS_BYTES", "RESPONSE_HEADERS_BYTES", "RESPONSE_TRAILERS_BYTES",
		"DOWNSTREAM_HEADER_BYTES_RECEIVED", "DOWNSTREAM_HEADER_BYTES_SENT", "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT",
		"UPSTREAM_HEADER_BYTES_RECEIVED", "UPSTREAM_HEADER_BYTES_SENT", "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", "UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT":
		return func(Moment) any { return uint64(0) } // as Envoy prints them for TCP
	case "CUSTOM_FLAGS", "LOCAL_REPLY_BODY", "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID", "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID":
		return func(Moment) any { return "" }
	case "RESPONSE_FLAGS":
		return func(m Moment) any { return m.Info.Flags.String() }
	case "RESPONSE_FLAGS_LONG":
		return func(m Moment) any { return m.Info.Flags.Long() }
	case "DURATION":
		return func(m Moment) any { return uint64(m.Info.Duration().Milliseconds()) }
	case "CONNECTION_TERMINATION_DETAILS":
		return func(m Moment) any { return text(m.Info.Reasons().Termination) }
	case "DOWNSTREAM_TRANSPORT_FAILURE_REASON":
		return func(m Moment) any {
			return text(strings.ReplaceAll(m.Info.Reasons().DownstreamFailure, " ", "_"))
		}
	case "DOWNSTREAM_LOCAL_CLOSE_REASON":
		return func(m Moment) any { return text(m.Info.Reasons().LocalClose) }
	case "DOWNSTREAM_DETECTED_CLOSE_TYPE":
		return func(m Moment) any { return m.Info.Closed.String() }
	case "CONNECTION_ID":
		return func(m Moment) any { return m.Info.ID }
	case "STREAM_ID", "UNIQUE_ID":
		return func(Moment) any { return uuid.NewString() }
	case "FILTER_CHAIN_NAME":
		return func(m Moment) any { return text(m.Info.ChainName()) }
	case "LISTENER_NAME":
		return func(m Moment) any { return text(m.Info.Listener.Name) }
	case "TLS_JA3_FINGERPRINT":
		return func(m Moment) any { return text(m.Info.Hello().JA3) }
	case "TLS_JA4_FINGERPRINT":
		return func(m Moment) any { return text(m.Info.Hello().JA4) }
	}
	if strings.HasPrefix(command, "UPSTREAM_") {
		return upstream(command)
	}
	return nil
}

// upstream are the plain commands about the other side.
func upstream(command string) getter {
	list := func(one func(Attempt) string) getter {
		return func(m Moment) any {
			var all []string
			for _, a := range m.Info.Attempts() {
				if s := one(a); s != "" {
					all = append(all, s)
				}
			}
			return text(strings.Join(all, ","))
		}
	}
	switch command {
	case "UPSTREAM_REQUEST_ATTEMPT_COUNT":
		return func(m Moment) any { return uint64(len(m.Info.Attempts())) }
	case "UPSTREAM_HOST":
		return func(m Moment) any { return m.Info.Upstream.address() }
	case "UPSTREAM_HOST_NAME":
		return func(m Moment) any {
			if n := m.Info.Upstream.hostname(); n != "" {
				return n
			}
			return m.Info.Upstream.address()
		}
	case "UPSTREAM_HOST_NAME_WITHOUT_PORT":
		return func(m Moment) any {
			if n := m.Info.Upstream.hostname(); n != "" || m.Info.Upstream.Host == nil {
				return text(n)
			}
			return text(bare(m.Info.Upstream.Host))
		}
	case "UPSTREAM_HOSTS_ATTEMPTED":
		return list(func(a Attempt) string { return a.Host.Address() })
	case "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT":
		return list(func(a Attempt) string { return bare(a.Host) })
	case "UPSTREAM_HOST_NAMES_ATTEMPTED", "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT":
		return list(func(a Attempt) string {
			if a.Host.Hostname != "" {
				return a.Host.Hostname
			}
			if command == "UPSTREAM_HOST_NAMES_ATTEMPTED" {
				return a.Host.Address()
			}
			return bare(a.Host)
		})
	case "UPSTREAM_CONNECTION_IDS_ATTEMPTED":
		return list(func(a Attempt) string {
			if a.ConnectionID == 0 {
				return ""
			}
			return strconv.FormatUint(a.ConnectionID, 10)
		})
	case "UPSTREAM_CONNECTION_ID":
		return func(m Moment) any { return m.Info.Upstream.ConnectionID }
	case "UPSTREAM_CLUSTER":
		return func(m Moment) any {
			if c := m.Info.Upstream.Cluster; c != nil {
				return text(c.Stat)
			}
			return nil
		}
	case "UPSTREAM_CLUSTER_RAW":
		return func(m Moment) any { return text(m.Info.Upstream.ClusterName()) }
	case "UPSTREAM_TRANSPORT_FAILURE_REASON":
		return func(m Moment) any { return text(strings.ReplaceAll(m.Info.Reasons().UpstreamFailure, " ", "_")) }
	case "UPSTREAM_LOCAL_CLOSE_REASON":
		return func(m Moment) any { return text(m.Info.Reasons().UpstreamLocalClose) }
	case "UPSTREAM_DETECTED_CLOSE_TYPE":
		return func(m Moment) any {
			if m.Info.Chain == nil || m.Info.Upstream.Absent {
				return nil
			}
			return m.Info.Upstream.Closed.String()
		}
	case "UPSTREAM_CONNECTION_POOL_READY_DURATION":
		return func(m Moment) any {
			if m.Info.Upstream.Host == nil {
				return nil
			}
			return uint64(m.Info.Upstream.Connected.Duration().Milliseconds())
		}
	}
	return nil
}

func text(s string) any { return given(s, s != "") }

func given(s string, ok bool) any {
	if !ok {
		return nil
	}
	return s
}

// address is the host's, or nil.
func (u *Upstream) address() any {
	if u.Host == nil {
		return nil
	}
	return u.Host.Address()
}

// upstreamReceived are the bytes that the host sent: the client got them all.
func (i *Info) upstreamReceived() uint64 {
	if i.Upstream.ConnectionID == 0 {
		return 0
	}
	return i.Sent
}

func (u *Upstream) hostname() string {
	if u.Host == nil {
		return ""
	}
	return u.Host.Hostname
}

func chainMetadata(i *Info) Metadata {
	if i.Chain == nil {
		return nil
	}
	return i.Chain.Metadata
}

func hostMetadata(i *Info) Metadata {
	if i.Upstream.Host == nil {
		return nil
	}
	return Metadata(i.Upstream.Host.Metadata)
}

func clusterMetadata(i *Info) Metadata {
	if i.Upstream.Cluster == nil {
		return nil
	}
	return i.Upstream.Cluster.Metadata
}

// bare is an endpoint's address without its port, or its path.
func bare(e *api.Endpoint) string {
	if e.Path != "" {
		return e.Path
	}
	return e.Addr.Addr().String()
}

// withoutPort prints the address alone, or the network of so many bits of it.
func withoutPort(a netip.AddrPort, bits int) any {
	if !a.IsValid() {
		return nil
	}
	if bits >= 0 {
		return netip.PrefixFrom(a.Addr(), min(bits, a.Addr().BitLen())).Masked().String()
	}
	return a.Addr().String()
}

// filterState prints an object plain (as it is), or typed (as JSON). No object
// here has fields.
func filterState(arg string) getter {
	key, how, _ := strings.Cut(arg, ":")
	if strings.HasPrefix(how, "FIELD") {
		return func(Moment) any { return nil }
	}
	return func(m Moment) any {
		o, ok := m.Info.State()[key]
		if !ok {
			return nil
		}
		if how == "PLAIN" {
			return o.Value
		}
		// Without PLAIN Envoy serializes the object as JSON, a string in quotes;
		// its addresses cannot be.
		if o.Address {
			return nil
		}
		return json.RawMessage(strconv.Quote(o.Value))
	}
}

// fromMetadata walks down to a value by filter name and keys.
func fromMetadata(path []string, of func(*Info) Metadata) getter {
	return func(m Moment) any {
		fields, ok := of(m.Info)[path[0]]
		if !ok {
			return nil
		}
		var v any = fields
		for _, key := range path[1:] {
			inner, ok := v.(map[string]any)
			if !ok {
				return nil
			}
			if v, ok = inner[key]; !ok {
				return nil
			}
		}
		return v
	}
}
