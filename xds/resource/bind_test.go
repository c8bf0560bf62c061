package resource

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-proxy/sluice/api"
)

// pipe is a listener on a Unix socket.
func pipe(path string) string {
	return `name: l, address: {pipe: {` + path + `}}, filter_chains: [{filters: [` + tcp + `]}]`
}

func TestBindingIsDecoded(t *testing.T) {
	yes, no, five := true, false, uint32(5)
	plain := api.BindAddress{Addr: netip.MustParseAddrPort("127.0.0.1:80")}
	one := func(o api.SocketOptions) api.Listener {
		b := plain
		b.Socket = o
		return api.Listener{Addresses: []api.BindAddress{b}}
	}
	value := string(binary.NativeEndian.AppendUint32(nil, 7))
	for _, tt := range []struct {
		what, in string
		want     api.Listener
		unbuilt  []string
	}{
		{what: "nothing said", in: plus(``), want: one(api.SocketOptions{})},
		{what: "a Unix socket", in: pipe(`path: /run/a, mode: 432`), want: api.Listener{Addresses: []api.BindAddress{{Path: "/run/a", Mode: 0o660}}}},
		{what: "an abstract one", in: pipe(`path: "@a"`), want: api.Listener{Addresses: []api.BindAddress{{Path: "@a"}}}},
		{what: "both kinds", in: plus(`additional_addresses: [{address: {pipe: {path: /run/a}}}]`), want: api.Listener{Addresses: []api.BindAddress{plain, {Path: "/run/a"}}}},
		{what: "transparent and freebind", in: plus(`transparent: true, freebind: false`), want: one(api.SocketOptions{Transparent: &yes, Freebind: &no})},
		{what: "fast open and keepalive", in: plus(`tcp_fast_open_queue_length: 5, tcp_keepalive: {keepalive_probes: 1, keepalive_time: 2, keepalive_interval: 3}`),
			want: one(api.SocketOptions{FastOpenQueue: &five, Keepalive: &api.Keepalive{Probes: 1, Time: 2, Interval: 3}})},
		{what: "socket options", in: plus(`socket_options: [{level: 1, name: 9, int_value: 7}, {level: 1, name: 25, buf_value: bG8=, state: STATE_BOUND}, {level: 6, name: 23, int_value: 7, state: STATE_LISTENING, type: {stream: {}}}, {level: 2, name: 2, int_value: 7, type: {datagram: {}}}]`),
			want: one(api.SocketOptions{Options: []api.SocketOption{{Level: 1, Name: 9, Value: value}, {Level: 1, Name: 25, Value: "lo", State: api.Bound}, {Level: 6, Name: 23, Value: value, State: api.Listening}}})},
		{what: "an additional address overrides", in: plus(`socket_options: [{level: 1, name: 9, int_value: 7}], tcp_keepalive: {}, additional_addresses: [{address: {socket_address: {address: "::1", port_value: 1}}, socket_options: {}, tcp_keepalive: {keepalive_time: 9}}, {address: {socket_address: {address: "::1", port_value: 2}}}]`),
			want: api.Listener{Addresses: []api.BindAddress{
				{Addr: plain.Addr, Socket: api.SocketOptions{Keepalive: &api.Keepalive{}, Options: []api.SocketOption{{Level: 1, Name: 9, Value: value}}}},
				{Addr: netip.MustParseAddrPort("[::1]:1"), Socket: api.SocketOptions{Keepalive: &api.Keepalive{Time: 9}}},
				{Addr: netip.MustParseAddrPort("[::1]:2"), Socket: api.SocketOptions{Keepalive: &api.Keepalive{}, Options: []api.SocketOption{{Level: 1, Name: 9, Value: value}}}}}}},
		{what: "bound nowhere", in: plus(`bind_to_port: false`), want: api.Listener{HandedOnly: true, Addresses: []api.BindAddress{plain}}},
		{what: "bound nowhere, by the older field", in: plus(`bind_to_port: true, deprecated_v1: {bind_to_port: false}`), want: api.Listener{HandedOnly: true, Addresses: []api.BindAddress{plain}}},
		{what: "how connections come in", in: plus(`max_connections_to_accept_per_socket_event: 3, connection_balance_config: {exact_balance: {}}, ignore_global_conn_limit: true`),
			want: api.Listener{MaxAcceptsPerEvent: 3, ExactBalance: true, IgnoreGlobalLimit: true, Addresses: []api.BindAddress{plain}}},
		{what: "direction and drain", in: plus(`traffic_direction: OUTBOUND, drain_type: MODIFY_ONLY`), want: api.Listener{Direction: api.Outbound, DrainType: api.DrainModifyOnly, Addresses: []api.BindAddress{plain}}},
		{what: "another balance", in: plus(`connection_balance_config: {cpu_locality_balance: {}}`), want: one(api.SocketOptions{}), unbuilt: []string{"connection_balance_config.cpu_locality_balance"}},
	} {
		t.Run(tt.what, func(t *testing.T) {
			_, l, n, err := Listener(pack(t, listenerOf(t, tt.in)))
			if err != nil {
				t.Fatal(err)
			}
			got := api.Listener{Addresses: l.Addresses, HandedOnly: l.HandedOnly, UseOriginalDst: l.UseOriginalDst, MaxAcceptsPerEvent: l.MaxAcceptsPerEvent,
				ExactBalance: l.ExactBalance, IgnoreGlobalLimit: l.IgnoreGlobalLimit, Direction: l.Direction, DrainType: l.DrainType}
			if d := cmp.Diff(tt.want, got, plainAddrs); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(tt.unbuilt, n.Unbuilt); d != "" {
				t.Error(d)
			}
		})
	}
}

// The texts are those of Envoy 1.40.
func TestBindingIsRefused(t *testing.T) {
	long := strings.Repeat("a", 108)
	for _, tt := range []struct{ what, in, want string }{
		{"a path that is too long", pipe(`path: ` + long), `address.pipe.path: Path "` + long + `" exceeds maximum UNIX domain socket path size of 108.`},
		{"permissions of an abstract name", pipe(`path: "@a", mode: 448`), "address.pipe.mode: Cannot set mode for Abstract AF_UNIX sockets"},
		{"permissions", pipe(`path: /a, mode: 512`), "address.pipe.mode: Proto constraint validation failed (PipeValidationError.Mode: value must be less than or equal to 511) (512)"},
		{"MPTCP on a Unix socket", pipe(`path: /a`) + `, enable_mptcp: true`, "enable_mptcp: listener l: enable_mptcp can only be used with IP addresses"},
		{"a NUL", pipe(`path: "a\0b"`), `address.pipe.path: UNIX domain socket pathname contains embedded null characters ("a?b")`},
	} {
		t.Run(tt.what, func(t *testing.T) {
			_, l, _, err := Listener(pack(t, listenerOf(t, tt.in)))
			if err == nil || l != nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}
