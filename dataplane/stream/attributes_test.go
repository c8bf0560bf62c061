package stream

import (
	"net/netip"
	"testing"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/test/celtext"
)

func TestAttributes(t *testing.T) {
	bare := func() *Info {
		return New(1, &Listener{Pipe: "/run/s"}, netip.AddrPort{}, netip.AddrPort{})
	}
	full := func() *Info {
		i := example()
		i.Listener.Direction = 2
		i.SetState("address", Object{Value: "[fd00::1]:5", Address: true, Hashable: true})
		i.SetState("ip", Object{Value: "1.2.3.4:0", Address: true})
		i.Upstream.Cluster.Metadata = Metadata{"f": {"n": 5.0}}
		i.Upstream.Host.Metadata = api.Metadata{"f": {"b": true}}
		i.Explain().Termination, i.Explain().DownstreamFailure = "why", "tls"
		i.SetDownstreamTLS(&TLS{Version: "TLSv1.3"})
		return i
	}
	for _, tt := range []struct {
		text string
		of   func() *Info
		want bool
	}{
		{`source.address == "[2001:db8::1]:1234" && source.port == 1234`, full, true},
		{`destination.address == "10.1.2.3:80" && destination.port == 80`, full, true},
		{`source.address == "/run/s" && destination.address == "/run/s" && !has(source.port) && !has(destination.port)`, bare, true},
		{`connection.id == 7u && connection.requested_server_name == "sni.example" && connection.termination_details == "why" && connection.transport_failure_reason == "tls"`, full, true},
		{`connection.requested_server_name == "" && !has(connection.termination_details) && !has(connection.transport_failure_reason)`, bare, true},
		{`connection.tls_version == "TLSv1.3" && !connection.mtls && connection.subject_peer_certificate == "" && connection.subject_local_certificate == ""`, full, true},
		{`has(connection.uri_san_peer_certificate) || has(connection.dns_san_local_certificate) || has(connection.sha256_peer_certificate_digest) || has(connection.peer_certificate)`, full, false},
		{`has(connection.tls_version) || has(connection.subject_peer_certificate) || connection.mtls`, bare, false},
		{`upstream.address == "10.0.0.1:5" && upstream.port == 5 && upstream.local_address == "10.0.0.9:6" && upstream.request_attempt_count == 2u`, full, true},
		{`upstream.transport_failure_reason == "delayed connect error: x" && upstream.cx_pool_ready_duration == duration("2ms") && !has(upstream.tls_version)`, full, true},
		{`has(upstream.address) || has(upstream.port) || has(upstream.local_address) || has(upstream.cx_pool_ready_duration)`, bare, false},
		{`upstream.request_attempt_count == 0u && upstream.transport_failure_reason == ""`, bare, true},
		{`request.size == 5 && request.total_size == 5 && response.size == 6 && response.total_size == 6 && request.duration == duration("1.5s")`, full, true},
		{`request.time.getFullYear() == 2026 && request.headers_bytes == 0 && !has(request.headers.x) && !has(response.trailers.x)`, full, true},
		{`has(request.duration) || has(request.path) || has(request.protocol) || has(response.code) || has(response.code_details)`, bare, false},
		{`response.flags == 0x8020`, full, true}, // UF and URX
		{`metadata.filter_metadata.f.k.deep == 1 && has(metadata.filter_metadata) && size(metadata.typed_filter_metadata) == 0`, full, true},
		{`has(metadata.filter_metadata) || metadata.filter_metadata.f.k == 1`, bare, false},
		{`has(metadata.nope)`, full, false},
		{`!has(metadata.nope)`, full, false},
		{`filter_state["plain"] == b"a \"b\"" && filter_state.address.ip == "fd00::1" && filter_state.address.port == 5 && filter_state.ip == b"1.2.3.4:0"`, full, true},
		{`has(filter_state.plain) || has(filter_state.address.ip)`, bare, false},
		{`has(filter_state.address.nope)`, full, false},
		{`!has(upstream_filter_state.x)`, full, true},
		{`!has(upstream_filter_state.x)`, bare, false},
		{`xds.cluster_name == "raw" && xds.cluster_metadata.filter_metadata.f.n == 5 && xds.upstream_host_metadata.filter_metadata.f.b`, full, true},
		{`xds.filter_chain_name == "chain" && xds.listener_metadata.filter_metadata.f.k == "of l" && xds.listener_direction == 2`, full, true},
		{`xds.filter_chain_name == "" && xds.listener_direction == 0 && !has(xds.cluster_name) && !has(xds.cluster_metadata) && !has(xds.upstream_host_metadata)`, bare, true},
		{`has(xds.route_name) || has(xds.nope)`, full, false},
		{`has(nope.x) || true`, full, true},
		{`nope`, full, false},
	} {
		c, err := NewCondition(celtext.Expression(t, tt.text))
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Holds(tt.of()); got != tt.want {
			t.Errorf("%s: %v", tt.text, got)
		}
	}
}

func TestLegacyFlagsAreEnvoys(t *testing.T) {
	// CoreResponseFlag, which grows by one bit each.
	for f, want := range map[Flags]int64{
		0: 0, NoHealthyUpstream: 0x2, LocalReset: 0x8, UpstreamRemoteReset: 0x10, UpstreamConnectionFailure: 0x20, UpstreamConnectionTermination: 0x40,
		UpstreamOverflow: 0x80, NoRouteFound: 0x100, RateLimited: 0x800, UnauthorizedExternalService: 0x1000, DownstreamConnectionTermination: 0x4000,
		UpstreamRetryLimitExceeded: 0x8000, StreamIdleTimeout: 0x10000, DurationTimeout: 0x400000, NoClusterFound: 0x1000000, OverloadManager: 0x2000000,
	} {
		if got := f.legacy(); got != want {
			t.Errorf("%s: %#x, want %#x", f.Long(), got, want)
		}
	}
}

func BenchmarkCondition(b *testing.B) {
	c, err := NewCondition(celtext.Expression(b, `source.address.startsWith("[2001:") && destination.port in [80, 443] && connection.requested_server_name == "sni.example"`))
	if err != nil {
		b.Fatal(err)
	}
	i := example()
	b.ReportAllocs()
	for b.Loop() {
		if !c.Holds(i) {
			b.Fatal("does not hold")
		}
	}
}
