package parity

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sluice-proxy/sluice/test/peer"
)

const ofExtAuthz = `ext_authz\..*`

// authority is an authorization service that answers all alike.
type authority struct {
	authv3.UnimplementedAuthorizationServer
	answer func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error)
	asked  atomic.Pointer[asked]
}

// asked is the last question.
type asked struct {
	request *authv3.CheckRequest
	md      metadata.MD
}

func (a *authority) Check(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	a.asked.Store(&asked{r, md})
	return a.answer(ctx, r)
}

// answers is an authority that answers with a code.
func answers(c codes.Code) *authority {
	return &authority{answer: func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(c)}}, nil
	}}
}

// failing is an authority whose calls fail.
func failing(c codes.Code) *authority {
	return &authority{answer: func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		return nil, status.Error(c, "no")
	}}
}

// answersAfter waits, or until the call is given up.
func answersAfter(d time.Duration, c codes.Code) *authority {
	return &authority{answer: func(ctx context.Context, _ *authv3.CheckRequest) (*authv3.CheckResponse, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(d):
			return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(c)}}, nil
		}
	}}
}

// authorized starts an authority.
func (r *run) authorized(a *authority) netip.AddrPort {
	r.Helper()
	return r.grpc(func(s *grpc.Server) { authv3.RegisterAuthorizationServer(s, a) })
}

// grpc starts a server of the services that register puts in.
func (r *run) grpc(register func(*grpc.Server)) netip.AddrPort {
	r.Helper()
	var lc net.ListenConfig
	ln, err := lc.Listen(r.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		r.Fatal(err)
	}
	s := grpc.NewServer()
	register(s)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ln) }() // ends by Stop
	r.Cleanup(func() { s.Stop(); <-done })
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// http2Options has a cluster speak HTTP/2.
var http2Options = obj{"typed_extension_protocol_options": obj{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": obj{
	"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": obj{"http2_protocol_options": obj{}}}}}

// authCluster is a cluster that speaks HTTP/2.
func authCluster(eps ...obj) obj { return cluster("auth", eps...).with(http2Options) }

func extAuthz(more obj) obj {
	return network("ext_authz", "ExtAuthz", obj{"stat_prefix": "p", "transport_api_version": "V3",
		"grpc_service": obj{"timeout": "1s", "envoy_grpc": obj{"cluster_name": "auth"}}}.with(more))
}

// authzLog prints what ext_authz leaves behind.
const authzLog = `flags=%RESPONSE_FLAGS% details=%CONNECTION_TERMINATION_DETAILS% down-close=%DOWNSTREAM_LOCAL_CLOSE_REASON% up-close=%UPSTREAM_LOCAL_CLOSE_REASON% sent=%BYTES_SENT% ` +
	`user=%DYNAMIC_METADATA(envoy.filters.network.ext_authz:user)%` + "\n"

// guarded starts a proxy that asks a, whose clients get a banner.
func (r *run) guarded(a *authority, filters ...obj) (log string, seen <-chan peer.Seen) {
	r.Helper()
	return r.guardedAt(r.authorized(a), filters...)
}

func (r *run) guardedAt(at netip.AddrPort, filters ...obj) (log string, seen <-chan peer.Seen) {
	r.Helper()
	addr, seen := r.recorder(peer.ResponseThen("banner", peer.Echo))
	log = r.logFile("tcp")
	p := tcpProxy("c").set("access_log", []obj{logTo(log, authzLog)})
	r.start(static([]obj{listener("l", chain(append(filters, p)...))}, []obj{cluster("c", endpoint(addr)), authCluster(endpoint(at))}))
	return log, seen
}

// movedByAuthz leaves out what the connection to the service moves.
func (r *run) movedByAuthz() {
	r.Helper()
	r.moved(ofExtAuthz, ofListener, ofTCP, `cluster\.c\.upstream_cx_(total|destroy(_local|_remote)?)`)
}

// asking is a scenario of one client that speaks.
func asking(name string, a func() *authority, more obj) scenario {
	return scenario{"ext_authz_" + name, func(r *run) {
		log, _ := r.guarded(a(), extAuthz(more))
		r.speak()
		r.logged(log, 1)
		r.movedByAuthz()
	}}
}

func always(c codes.Code) func() *authority { return func() *authority { return answers(c) } }

func broken(c codes.Code) func() *authority { return func() *authority { return failing(c) } }

func late() *authority { return answersAfter(3*time.Second, codes.OK) }

func withMetadata(c codes.Code) func() *authority {
	return func() *authority {
		return &authority{answer: func(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
			s, err := structpb.NewStruct(map[string]any{"user": "me"})
			return &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(c)}, DynamicMetadata: s}, err
		}}
	}
}

// authorizing: ext_authz over gRPC.
var authorizing = []scenario{
	asking("allows", always(codes.OK), nil),
	asking("denies", always(codes.PermissionDenied), nil),
	asking("denies_by_any_code", always(codes.Unauthenticated), nil),
	asking("fails", broken(codes.Internal), nil),
	asking("is_unavailable", broken(codes.Unavailable), nil),
	asking("denies_by_the_status_of_the_call", broken(codes.PermissionDenied), nil),
	asking("fails_and_all_may", broken(codes.Internal), obj{"failure_mode_allow": true}),
	asking("denies_although_all_may", always(codes.PermissionDenied), obj{"failure_mode_allow": true}),
	asking("times_out", late, nil),
	asking("times_out_and_all_may", late, obj{"failure_mode_allow": true}),
	asking("times_out_by_default", late, obj{"grpc_service": obj{"envoy_grpc": obj{"cluster_name": "auth"}}}),
	asking("cluster_is_unknown", always(codes.OK), obj{"grpc_service": obj{"timeout": "1s", "envoy_grpc": obj{"cluster_name": "nosuch"}}}),
	asking("cluster_is_unknown_and_all_may", always(codes.OK), obj{"failure_mode_allow": true, "grpc_service": obj{"timeout": "1s", "envoy_grpc": obj{"cluster_name": "nosuch"}}}),
	asking("metadata_of_the_answer", withMetadata(codes.OK), nil),
	asking("metadata_of_a_denial", withMetadata(codes.PermissionDenied), nil),
	asking("not_enabled_by_metadata", always(codes.PermissionDenied), obj{"filter_enabled_metadata": shadowSaid("shadow_engine_result", obj{"present_match": true})}),
	asking("enabled_by_metadata", always(codes.PermissionDenied), obj{"filter_enabled_metadata": shadowSaid("shadow_engine_result", obj{"present_match": true}).with(obj{"invert": true})}),
	{"ext_authz_nobody_there", func(r *run) {
		log, _ := r.guardedAt(r.refused(), extAuthz(nil))
		r.speak()
		r.logged(log, 1)
		r.movedByAuthz()
	}},
	{"ext_authz_denial_as_the_server_sees_it", func(r *run) {
		log, seen := r.guarded(answers(codes.PermissionDenied), extAuthz(nil))
		r.dial("l").expect("banner").send("hello").end()
		r.saw(seen)
		r.logged(log, 1)
	}},
	{"ext_authz_silent_client_is_not_asked_about", func(r *run) {
		r.guarded(answers(codes.PermissionDenied), extAuthz(nil))
		c := r.dial("l").expect("banner")
		time.Sleep(breath)
		r.movedByAuthz()
		c.reset()
		r.moved(ofExtAuthz, ofListener)
	}},
	{"ext_authz_end_without_bytes", func(r *run) {
		log, _ := r.guarded(answers(codes.PermissionDenied), extAuthz(nil))
		r.dial("l").expect("banner").leave()
		r.logged(log, 1)
		r.movedByAuthz()
	}},
	{"ext_authz_bytes_wait_for_the_answer", func(r *run) {
		log, seen := r.guarded(answersAfter(1500*time.Millisecond, codes.OK), extAuthz(obj{"grpc_service": obj{"timeout": "5s", "envoy_grpc": obj{"cluster_name": "auth"}}}))
		c := r.dial("l").expect("banner").send("one ")
		time.Sleep(breath)
		r.moved(ofExtAuthz)
		c.send("two").expect("one two").leave()
		r.saw(seen)
		r.logged(log, 1)
		r.movedByAuthz()
	}},
	{"ext_authz_client_fin_while_asked", func(r *run) {
		log, seen := r.guarded(answersAfter(500*time.Millisecond, codes.OK), extAuthz(nil))
		r.dial("l").expect("banner").send("hello").fin().end()
		r.saw(seen)
		r.logged(log, 1)
		r.movedByAuthz()
	}},
	{"ext_authz_client_rst_while_asked", func(r *run) {
		r.guarded(answersAfter(time.Second, codes.OK), extAuthz(obj{"grpc_service": obj{"timeout": "3s", "envoy_grpc": obj{"cluster_name": "auth"}}}))
		c := r.dial("l").expect("banner").send("hello")
		time.Sleep(breath)
		c.reset()
		r.moved(ofExtAuthz, ofListener)
		time.Sleep(time.Second)
		r.moved(ofExtAuthz, ofListener)
	}},
	{"ext_authz_server_closes_while_asked", func(r *run) {
		addr := r.serve("server", peer.CloseAfter("bye", 0, 0))
		slow := extAuthz(obj{"grpc_service": obj{"timeout": "9s", "envoy_grpc": obj{"cluster_name": "auth"}}})
		r.start(static([]obj{listener("l", chain(slow, tcpProxy("c")))}, []obj{cluster("c", endpoint(addr)), authCluster(endpoint(r.authorized(answersAfter(9*time.Second, codes.PermissionDenied))))}))
		r.dial("l").send("hello").expect("bye").end()
		r.moved(ofExtAuthz, ofListener)
	}},
	{"ext_authz_question", func(r *run) {
		a := answers(codes.OK)
		more := obj{"grpc_service": obj{"timeout": "1s", "envoy_grpc": obj{"cluster_name": "auth", "authority": "the.authority"}, "initial_metadata": []obj{{"key": "X-Key", "value": "the value"}}},
			"metadata_context_namespaces": []string{"envoy.filters.network.rbac", "nothing"}, "include_peer_certificate": true, "include_tls_session": true}
		r.guarded(a, rbac(obj{"shadow_rules": rules("ALLOW", anyone, anyone)}), extAuthz(more))
		c := r.dial("l")
		r.call(c.LocalAddr().(*net.TCPAddr).AddrPort(), "client")
		r.call(c.RemoteAddr().(*net.TCPAddr).AddrPort(), "proxy")
		c.expect("banner").send("hello").expect("hello").leave()
		q := a.asked.Load()
		if q == nil {
			r.note("nobody asked")
			return
		}
		at := q.request.GetAttributes()
		r.note("source %s, principal %q, service %q, certificate %q, labels %v", socketOf(at.GetSource().GetAddress()), at.GetSource().GetPrincipal(), at.GetSource().GetService(), at.GetSource().GetCertificate(), at.GetSource().GetLabels())
		r.note("destination %s, principal %q, service %q, labels %v", socketOf(at.GetDestination().GetAddress()), at.GetDestination().GetPrincipal(), at.GetDestination().GetService(), at.GetDestination().GetLabels())
		r.note("request %t, tls %t, extensions %v", at.GetRequest() != nil, at.GetTlsSession() != nil, at.GetContextExtensions())
		for ns, s := range at.GetMetadataContext().GetFilterMetadata() {
			r.note("metadata %s: %v", ns, s.AsMap())
		}
		r.note("authority %q, key %q", q.md.Get(":authority"), q.md.Get("x-key"))
	}},
	{"ext_authz_google_grpc", func(r *run) {
		at := r.authorized(answers(codes.PermissionDenied))
		log, _ := r.guardedAt(at, extAuthz(obj{"grpc_service": obj{"timeout": "1s", "google_grpc": obj{"target_uri": at.String(), "stat_prefix": "g"}}}))
		r.speak()
		r.logged(log, 1)
		r.movedByAuthz()
	}},
	{"ext_authz_many_clients", func(r *run) {
		r.guarded(answers(codes.OK), extAuthz(nil))
		for i := range 5 {
			r.dial("l").as(fmt.Sprint("client ", i)).expect("banner").send("hello").expect("hello").leave()
		}
		r.movedByAuthz()
	}},
	{"ext_authz_after_rbac_denied", func(r *run) {
		log, _ := r.guarded(answers(codes.OK), rbac(obj{"rules": obj{}}), extAuthz(nil))
		r.speak()
		r.logged(log, 1)
		r.moved(ofExtAuthz, ofRBAC)
	}},
	{"ext_authz_then_rbac", func(r *run) {
		log, _ := r.guarded(withMetadata(codes.OK)(), extAuthz(nil), rbac(obj{"rules": rules("ALLOW", anyone, obj{"metadata": obj{"filter": "envoy.filters.network.ext_authz", "path": []obj{{"key": "user"}}, "value": obj{"string_match": obj{"exact": "you"}}}})}))
		r.speak()
		r.logged(log, 1)
		r.moved(ofExtAuthz, ofRBAC)
	}},
	{"ext_authz_before_echo", func(r *run) {
		at := r.authorized(answersAfter(300*time.Millisecond, codes.OK))
		r.start(static([]obj{listener("l", chain(extAuthz(nil), network("echo", "Echo", nil)))}, []obj{authCluster(endpoint(at))}))
		r.dial("l").send("hello").expect("hello").leave()
		r.moved(ofExtAuthz, ofListener)
	}},
	{"ext_authz_denies_before_echo", func(r *run) {
		at := r.authorized(answers(codes.PermissionDenied))
		r.start(static([]obj{listener("l", chain(extAuthz(nil), network("echo", "Echo", nil)))}, []obj{authCluster(endpoint(at))}))
		r.dial("l").send("hello").end()
		r.moved(ofExtAuthz, ofListener)
	}},
}

func socketOf(a *corev3.Address) string {
	s := a.GetSocketAddress()
	return fmt.Sprintf("%s:%d", s.GetAddress(), s.GetPortValue())
}
