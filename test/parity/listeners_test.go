package parity

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

func pipeAt(path string) obj { return obj{"pipe": obj{"path": path}} }

// socketPath is a path for a Unix socket, short enough, called <socket> in the
// record.
func (r *run) socketPath() string {
	r.Helper()
	dir, err := os.MkdirTemp("", "p")
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { os.RemoveAll(dir) })
	p := filepath.Join(dir, "s")
	r.names = append(r.names, p, "<socket>")
	return p
}

// visitUnix says hello at a Unix socket and notes the answer up to the end.
func (r *run) visitUnix(path string) { r.callUnix(path, "hello") }

func (r *run) callUnix(path, hello string) {
	r.Helper()
	if r.plant {
		r.note("impostor")
		return
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		r.note("unix client: %v", errnoOf(err))
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if hello != "" { // bytes that nobody reads would make the end a reset, or not
		_, _ = io.WriteString(c, hello)
		_ = c.(*net.UnixConn).CloseWrite()
	}
	got, err := io.ReadAll(c)
	r.note("unix client: got %q, then %v", got, endText(cmpErr(err)))
}

func cmpErr(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

func errnoOf(err error) error {
	if n := syscall.Errno(0); errors.As(err, &n) {
		return n
	}
	return err
}

// refusal notes what becomes of a connection that nobody is to serve.
func (r *run) refusal(what string, at netip.AddrPort) {
	r.Helper()
	if r.plant {
		r.note("impostor")
		return
	}
	nc, err := net.DialTimeout("tcp", at.String(), 5*time.Second)
	if err != nil {
		r.note("%s: %v", what, errnoOf(err))
		return
	}
	defer nc.Close()
	data, end, err := peer.ReadToEnd(nc.(*net.TCPConn), 5*time.Second)
	if err != nil {
		r.note("%s: got %q, then error %v", what, data, err)
		return
	}
	r.note("%s: got %q, then %s", what, data, end)
}

// holding opens a connection that is served, and leaves it open.
func (r *run) holding(at netip.AddrPort) *client {
	r.Helper()
	return r.dialAt(at).send("hello").expect("hello")
}

func limited(listeners []obj, clusters []obj, more obj) obj {
	return static(listeners, clusters).with(more)
}

func overload(n int) obj {
	return obj{"overload_manager": obj{"resource_monitors": []obj{extension("envoy.resource_monitors.global_downstream_max_connections",
		"type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig", obj{"max_active_downstream_connections": n})}}}
}

func runtimeLayer(values obj) obj {
	return obj{"layered_runtime": obj{"layers": []obj{{"name": "static", "static_layer": values}}}}
}

const ofLimits = `listener\.[a-z]+\.downstream_(cx_(total|destroy|active|overflow)|global_cx_overflow)`

func (r *run) echoCluster() obj {
	r.Helper()
	return cluster("c", endpoint(r.serve("server", peer.Echo)))
}

// binding: where listeners listen, and whom they turn away.
var binding = []scenario{
	{"listen_unix", func(r *run) {
		path := r.socketPath()
		r.start(static([]obj{proxyTo("l", "c").with(obj{"address": pipeAt(path)})}, []obj{r.echoCluster()}))
		r.visitUnix(path)
		r.visitUnix(path)
		r.movedByConnections()
	}},
	{"listen_unix_abstract", func(r *run) {
		path := "@" + strings.ReplaceAll(r.socketPath(), "/", "-")
		r.start(static([]obj{proxyTo("l", "c").with(obj{"address": pipeAt(path)})}, []obj{r.echoCluster()}))
		r.visitUnix(path)
		r.movedByConnections()
	}},
	{"listen_unix_mode", func(r *run) {
		path := r.socketPath()
		a := obj{"pipe": obj{"path": path, "mode": 0o620}}
		r.start(static([]obj{proxyTo("l", "c").with(obj{"address": a})}, []obj{r.echoCluster()}))
		st, err := os.Stat(path)
		if err != nil {
			r.Fatal(err)
		}
		r.note("mode %v", st.Mode()&fs.ModePerm)
		r.visitUnix(path)
		r.movedByConnections()
	}},
	{"listen_unix_over_an_old_socket", func(r *run) {
		path := r.socketPath()
		old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			r.Fatal(err)
		}
		old.SetUnlinkOnClose(false)
		old.Close()
		r.start(static([]obj{proxyTo("l", "c").with(obj{"address": pipeAt(path)})}, []obj{r.echoCluster()}))
		r.visitUnix(path)
		r.movedByConnections()
	}},
	{"listen_unix_and_tcp", func(r *run) {
		path := r.socketPath()
		at := freePort(r, "127.0.0.1")
		r.start(static([]obj{proxyTo("l", "c").with(obj{"address": address(at), "additional_addresses": []obj{{"address": pipeAt(path)}}})}, []obj{r.echoCluster()}))
		r.visitUnix(path)
		r.dialAt(at).send("hello").expect("hello").fin().ended()
		r.movedByConnections()
	}},
	{"listen_unix_is_local", func(r *run) {
		path := r.socketPath()
		l := listener("l", one(obj{"source_type": "SAME_IP_OR_LOOPBACK"})).with(obj{"address": pipeAt(path)})
		r.start(static([]obj{l}, []obj{r.echoCluster()}))
		r.visitUnix(path)
		r.movedByConnections()
	}},
	{"listen_unix_has_no_port", func(r *run) {
		path := r.socketPath()
		l := listener("l", one(obj{"destination_port": 80}), one(obj{"source_ports": []int{1}})).with(obj{"address": pipeAt(path)})
		r.start(static([]obj{l}, []obj{r.echoCluster()}))
		r.callUnix(path, "")
		r.moved(ofListener)
	}},
	{"listen_unix_has_no_address", func(r *run) {
		path := r.socketPath()
		l := listener("l", one(obj{"prefix_ranges": ranges("127.0.0.0/8")}), one(obj{"source_prefix_ranges": ranges("10.0.0.0/8")})).with(obj{"address": pipeAt(path)})
		r.start(static([]obj{l}, []obj{r.echoCluster()}))
		r.callUnix(path, "")
		r.moved(ofListener)
	}},
	{"listen_not_bound", func(r *run) {
		at := freePort(r, "127.0.0.1")
		r.start(static([]obj{proxyTo("l", "c").with(obj{"address": address(at), "bind_to_port": false})}, []obj{r.echoCluster()}))
		r.refusal("client", at)
		r.listed()
		r.moved(ofListener)
	}},
	{"listen_not_bound_by_the_older_field", func(r *run) {
		at := freePort(r, "127.0.0.1")
		r.start(static([]obj{proxyTo("l", "c").with(obj{"address": address(at), "deprecated_v1": obj{"bind_to_port": false}})}, []obj{r.echoCluster()}))
		r.refusal("client", at)
		r.moved(ofListener)
	}},
	{"listen_with_every_socket_option", func(r *run) {
		l := proxyTo("l", "c").with(obj{"freebind": true, "tcp_fast_open_queue_length": 5, "tcp_backlog_size": 7, "tcp_keepalive": obj{"keepalive_probes": 3},
			"connection_balance_config": obj{"exact_balance": obj{}}, "max_connections_to_accept_per_socket_event": 1,
			"socket_options": []obj{{"level": 1, "name": 9, "int_value": 1}, {"level": 6, "name": 18, "int_value": 5000, "state": "STATE_BOUND"}, {"level": 6, "name": 23, "int_value": 9, "state": "STATE_LISTENING"}}})
		r.start(static([]obj{l}, []obj{r.echoCluster()}))
		for range 3 {
			r.dial("l").send("hello").expect("hello").fin().ended()
		}
		r.movedByConnections()
	}},
	{"limit_of_the_process", func(r *run) {
		r.start(limited([]obj{proxyTo("l", "c"), proxyTo("m", "c")}, []obj{r.echoCluster()}, overload(2)))
		l, m := r.bound("l"), r.bound("m")
		r.holding(l)
		r.holding(m)
		r.refusal("third", l)
		r.refusal("fourth", m)
		r.moved(ofLimits)
	}},
	{"limit_of_the_process_is_given_back", func(r *run) {
		r.start(limited([]obj{proxyTo("l", "c")}, []obj{r.echoCluster()}, overload(1)))
		l := r.bound("l")
		r.holding(l).fin().ended()
		r.moved(ofLimits)
		r.holding(l)
		r.refusal("second", l)
		r.moved(ofLimits)
	}},
	{"limit_of_the_process_is_ignored", func(r *run) {
		r.start(limited([]obj{proxyTo("l", "c"), proxyTo("m", "c").with(obj{"ignore_global_conn_limit": true})}, []obj{r.echoCluster()}, overload(1)))
		l, m := r.bound("l"), r.bound("m")
		r.holding(l)
		r.refusal("second", l)
		r.holding(m)
		r.moved(ofLimits)
	}},
	{"limit_of_a_listener", func(r *run) {
		r.start(limited([]obj{proxyTo("l", "c"), proxyTo("m", "c")}, []obj{r.echoCluster()}, runtimeLayer(obj{"envoy.resource_limits.listener.l.connection_limit": 1})))
		l, m := r.bound("l"), r.bound("m")
		r.holding(l)
		r.refusal("second", l)
		r.holding(m)
		r.holding(m)
		r.moved(ofLimits)
	}},
}

func words(name, text string, l obj) scenario { return rejected(name, text, l) }

// bindingRejections: listeners that cannot be.
var bindingRejections = []scenario{
	words("reject_listener_without_address", "error adding listener named 'l': address is necessary", obj{"name": "l", "filter_chains": []obj{one(obj{})}}),
	words("reject_long_socket_path", `exceeds maximum UNIX domain socket path size of 108.`, proxyTo("l", "c").with(obj{"address": pipeAt("/" + strings.Repeat("a", 107))})),
	words("reject_mode_of_abstract_socket", "Cannot set mode for Abstract AF_UNIX sockets", proxyTo("l", "c").with(obj{"address": obj{"pipe": obj{"path": "@a", "mode": 0o600}}})),
	words("reject_mode_of_socket", "value must be less than or equal to 511", proxyTo("l", "c").with(obj{"address": obj{"pipe": obj{"path": "/a", "mode": 512}}})),
	words("reject_mptcp_on_unix", "listener l: enable_mptcp can only be used with IP addresses", proxyTo("l", "c").with(obj{"address": pipeAt("@a"), "enable_mptcp": true})),
	words("reject_no_balance_type", "is required", proxyTo("l", "c").with(obj{"connection_balance_config": obj{}})),
	words("reject_no_accepts", "value must be greater than 0", proxyTo("l", "c").with(obj{"max_connections_to_accept_per_socket_event": 0})),
	words("reject_socket_option_without_value", "is required", proxyTo("l", "c").with(obj{"socket_options": []obj{{"level": 1, "name": 9}}})),
	words("reject_malformed_address", "malformed IP address: foo", proxyTo("l", "c").with(obj{"address": obj{"socket_address": obj{"address": "foo", "port_value": 1}}})),
	words("reject_address_port", "value must be less than or equal to 65535", proxyTo("l", "c").with(obj{"address": obj{"socket_address": obj{"address": "127.0.0.1", "port_value": 65536}}})),
	{"reject_two_listeners_on_one_address", func(r *run) {
		at := netip.MustParseAddrPort("127.0.0.1:1234")
		r.rejects(static([]obj{proxyTo("l", "c").with(obj{"address": address(at)}), proxyTo("m", "c").with(obj{"address": address(at)})}, []obj{cluster("c")}),
			"error adding listener: 'm' has duplicate address '127.0.0.1:1234' as existing listener, to check if the listener has duplicated addresses with other listeners or 'enable_reuse_port' is set to 'false' for the listener")
	}},
	{"reject_two_listeners_on_one_socket_path", func(r *run) {
		r.rejects(static([]obj{proxyTo("l", "c").with(obj{"address": pipeAt("@a")}), proxyTo("m", "c").with(obj{"address": pipeAt("@a")})}, []obj{cluster("c")}),
			"error adding listener: 'm' has duplicate address '@a' as existing listener")
	}},
	{"reject_two_listeners_bound_nowhere_on_port_0", func(r *run) {
		unbound := func(name string) obj { return proxyTo(name, "c").with(obj{"bind_to_port": false}) }
		r.rejects(static([]obj{unbound("l"), unbound("m")}, []obj{cluster("c")}),
			"error adding listener: 'm' has duplicate address '127.0.0.1:0' as existing listener")
	}},
}

// bindingStories: what a control plane is told of sockets.
var bindingStories = []story{
	{"bind_foreign_address", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		s.lds("2", proxyTo("l", "c"), proxyTo("m", "c").with(obj{"address": address(netip.MustParseAddrPort("192.0.2.1:0"))}))
		s.serves("l", "one")
		s.serves("m", "nobody")
	}},
	{"bind_foreign_address_free", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c").with(obj{"address": address(netip.MustParseAddrPort("192.0.2.1:0")), "freebind": true}))
		s.await("bound", func() bool { return len(s.addresses("l")) == 1 })
		s.note("port given: %t", s.addresses("l")[0].Port() != 0)
	}},
	{"bind_reuse_port_changes", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		s.serves("l", "one")
		s.lds("2", proxyTo("l", "c").with(obj{"enable_reuse_port": false}))
		s.serves("l", "one")
	}},
	{"bind_options_change_without_reuse_port", func(s *stream) {
		at := s.free("listener")
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c").with(obj{"address": address(at), "enable_reuse_port": false}))
		s.serves("l", "one")
		s.lds("2", proxyTo("l", "c").with(obj{"address": address(at), "enable_reuse_port": false, "socket_options": []obj{{"level": 1, "name": 9, "int_value": 1}}}))
		s.serves("l", "one")
	}},
	{"bind_options_change_at_any_port", func(s *stream) {
		l := func() obj { return proxyTo("l", "c").with(obj{"enable_reuse_port": false}) }
		s.ready(clusters(cluster("c", s.banner("one"))), l())
		s.serves("l", "one")
		s.lds("2", l().with(obj{"socket_options": []obj{{"level": 1, "name": 9, "int_value": 1}}}))
		s.serves("l", "one")
	}},
	{"bind_options_change_with_reuse_port", func(s *stream) {
		at := s.free("listener")
		s.ready(clusters(cluster("c", s.banner("one"), s.banner("one"))), proxyTo("l", "c").with(obj{"address": address(at)}))
		c := s.serves("l", "one")
		s.lds("2", proxyTo("l", "c").with(obj{"address": address(at), "socket_options": []obj{{"level": 1, "name": 9, "int_value": 1}}}))
		s.serves("l", "one")
		_ = c.Close()
	}},
}
