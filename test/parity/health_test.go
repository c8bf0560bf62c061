package parity

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/sluice-proxy/sluice/test/peer"
)

// check is an active check that comes often, and whose first word counts.
func check(kind string, config obj) obj {
	return obj{"timeout": "0.5s", "interval": "0.2s", "no_traffic_interval": "0.2s", "unhealthy_threshold": 1, "healthy_threshold": 1, kind: config}
}

// seldom has a check come once, and its connection end.
func seldom() obj {
	return obj{"interval": "60s", "no_traffic_interval": "60s", "reuse_connection": false}
}

func checks(all ...obj) obj { return obj{"health_checks": all} }

// hex is a payload.
func hex(s string) obj { return obj{"text": fmt.Sprintf("%x", s)} }

// flags are the health flags of a cluster's hosts, as the record calls them.
func (r *run) flags(cluster string) string {
	r.Helper()
	body, _, err := r.proxy.get("/clusters")
	if err != nil {
		r.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(body) {
		p := strings.Split(strings.TrimSpace(line), "::")
		if len(p) == 4 && p[0] == cluster && p[2] == "health_flags" {
			out = append(out, r.rename(p[1])+" "+p[3])
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// become waits until the flags of a cluster's hosts are as wanted, and notes what
// they are then.
func (r *run) become(cluster, want string) {
	r.Helper()
	got := r.flags(cluster)
	for deadline := time.Now().Add(5 * time.Second); got != want && time.Now().Before(deadline); got = r.flags(cluster) {
		time.Sleep(20 * time.Millisecond)
	}
	r.note("%s: %s", cluster, got)
}

// speaks starts a back end that can be stopped, and started again.
func (r *run) speaks(name string, h peer.Handler) (netip.AddrPort, func()) {
	r.Helper()
	s, err := peer.Listen(freePort(r.TB, "127.0.0.1").String(), h)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { s.Close() })
	r.call(s.Addr(), name)
	return s.Addr(), func() { s.Close() }
}

// replies says say to every request that comes.
func replies(say string) peer.Handler {
	return func(_ context.Context, c *net.TCPConn) {
		buf := make([]byte, 4096)
		for {
			if n, err := c.Read(buf); n == 0 || err != nil {
				return
			}
			if _, err := c.Write([]byte(say)); err != nil {
				return
			}
		}
	}
}

func httpSays(status, headers string) peer.Handler {
	return replies("HTTP/1.1 " + status + "\r\n" + headers + "content-length: 2\r\n\r\nhi")
}

// whoServes notes who answers n clients.
func (r *run) whoServes(listener string, n int) {
	r.Helper()
	said := map[string]int{}
	for range n {
		c := r.dial(listener)
		buf := make([]byte, 3)
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		k, _ := c.Read(buf)
		said[string(buf[:k])]++
		c.Close()
	}
	r.note("%d clients: %v", n, said)
}

const (
	ofHealth  = `cluster\.[^.]+\.health_check\.(healthy|degraded)|cluster\.[^.]+\.membership_(total|healthy|degraded|excluded)|cluster\.[^.]+\.lb_healthy_panic`
	ofOutlier = `cluster\.[^.]+\.(outlier_detection\..+|membership_healthy)`
)

// checking: active checks.
var checking = []scenario{
	{"hc_tcp_host_dies_and_comes_back", func(r *run) {
		one, stop := r.speaks("one", peer.Banner("one"))
		two := r.serve("two", peer.Banner("two"))
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(one), endpoint(two)).with(checks(check("tcp_health_check", obj{}))).
			with(obj{"common_lb_config": obj{"update_merge_window": "0s"}})})) // else Envoy's workers may learn of it a second later
		r.become("c", "<one> healthy, <two> healthy")
		r.whoServes("l", 4)
		stop()
		r.become("c", "<one> /failed_active_hc, <two> healthy")
		r.whoServes("l", 4)
		r.moved(ofHealth)
		r.serveOn(one.String(), "one", peer.Banner("one"))
		r.become("c", "<one> healthy, <two> healthy")
		r.whoServes("l", 4)
		r.moved(ofHealth)
	}},
	{"hc_tcp_payload", func(r *run) {
		ping := check("tcp_health_check", obj{"send": hex("PING"), "receive": []obj{hex("PO"), hex("NG")}})
		r.start(static(nil, []obj{cluster("c", endpoint(r.serve("good", replies("+PO..NG\r\n"))), endpoint(r.serve("wrong", replies("NGPO"))),
			endpoint(r.serve("silent", peer.Stall))).with(checks(ping))}))
		r.become("c", "<good> healthy, <silent> /failed_active_hc/active_hc_timeout, <wrong> /failed_active_hc/active_hc_timeout")
		r.moved(ofHealth)
	}},
	{"hc_tcp_proxy_protocol", func(r *run) {
		seen := make(chan peer.Seen, 16)
		hc := check("tcp_health_check", obj{"send": hex("PING"), "receive": []obj{hex("PONG")}, "proxy_protocol_config": obj{"version": "V2"}}).with(seldom())
		r.start(static(nil, []obj{cluster("c", endpoint(r.serve("server", peer.Record(seen, peer.CloseAfter("PONG", 20, 0))))).with(checks(hc))}))
		r.note("%q", (<-seen).Data)
	}},
	{"hc_http_statuses", func(r *run) {
		hosts := []obj{endpoint(r.serve("200", httpSays("200 OK", ""))), endpoint(r.serve("204", httpSays("201 Made", ""))), endpoint(r.serve("503", httpSays("503 Bad", ""))),
			endpoint(r.serve("degraded", httpSays("200 OK", "x-envoy-degraded: 1\r\n"))), endpoint(r.serve("excluded", httpSays("503 Bad", "x-envoy-immediate-health-check-fail: 1\r\n"))),
			endpoint(r.serve("garbage", replies("garbage")))}
		r.start(static(nil, []obj{cluster("c", hosts...).with(checks(check("http_health_check", obj{"path": "/healthz"}))),
			cluster("d", hosts[:3]...).with(checks(check("http_health_check", obj{"path": "/healthz", "expected_statuses": []obj{{"start": 201, "end": 504}}})))}))
		r.become("c", "<200> healthy, <204> /failed_active_hc, <503> /failed_active_hc, <degraded> /degraded_active_hc, <excluded> /failed_active_hc/excluded_via_immediate_hc_fail, <garbage> /failed_active_hc")
		r.become("d", "<200> /failed_active_hc, <204> healthy, <503> healthy")
		r.moved(ofHealth)
	}},
	{"hc_http_request", func(r *run) {
		seen := make(chan peer.Seen, 16)
		hc := check("http_health_check", obj{"path": "/a?b=c", "host": "me", "request_headers_to_add": []obj{{"header": obj{"key": "x-a", "value": "b"}}}}).with(seldom())
		e := endpoint(r.serve("server", peer.Record(seen, peer.CloseAfter("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 1, 0))))
		r.start(static(nil, []obj{cluster("c", e).with(checks(hc))}))
		lines := strings.Split(strings.ToLower(strings.TrimSpace(string((<-seen).Data))), "\r\n")
		slices.Sort(lines)
		r.note("%q", lines)
	}},
	{"hc_grpc", func(r *run) {
		health := grpchealth.NewServer()
		health.SetServingStatus("up", grpc_health_v1.HealthCheckResponse_SERVING)
		health.SetServingStatus("down", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		addr := r.grpc(func(s *grpc.Server) { grpc_health_v1.RegisterHealthServer(s, health) })
		r.call(addr, "server")
		of := func(name, service string) obj {
			return cluster(name, endpoint(addr)).with(checks(check("grpc_health_check", obj{"service_name": service}))).with(http2Options)
		}
		r.start(static(nil, []obj{of("c", "up"), of("d", "down"), of("e", "unknown")}))
		r.become("c", "<server> healthy")
		r.become("d", "<server> /failed_active_hc")
		r.become("e", "<server> /failed_active_hc")
		health.SetServingStatus("up", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		health.SetServingStatus("down", grpc_health_v1.HealthCheckResponse_SERVING)
		r.become("c", "<server> /failed_active_hc")
		r.become("d", "<server> healthy")
		r.moved(ofHealth)
	}},
	{"hc_several_checks_of_one_host", func(r *run) {
		r.start(static(nil, []obj{cluster("c", endpoint(r.serve("both", httpSays("200 OK", ""))), endpoint(r.serve("one", httpSays("503 Bad", "")))).with(checks(
			check("tcp_health_check", obj{}).with(obj{"name": "t"}), check("http_health_check", obj{"path": "/"}).with(obj{"name": "h"})))}))
		r.become("c", "<both> healthy, <one> /failed_active_hc")
		r.moved(`cluster\.c\.health_check\..*(healthy|degraded)`, ofHealth)
	}},
	{"hc_of_another_port_and_of_none", func(r *run) {
		alive, dead := r.serve("alive", peer.Banner("hi!")), r.nobody("dead")
		config := func(ap netip.AddrPort, c obj) obj {
			return obj{"endpoint": obj{"address": address(ap), "health_check_config": c}}
		}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", config(alive, obj{"port_value": dead.Port()}), config(dead, obj{"port_value": alive.Port()})).with(checks(check("tcp_health_check", obj{}))),
			cluster("d", config(dead, obj{"disable_active_health_check": true})).with(checks(check("tcp_health_check", obj{})))}))
		r.become("c", "<alive> /failed_active_hc, <dead> healthy")
		r.become("d", "<dead> healthy")
		r.moved(ofHealth)
	}},
	{"hc_all_fail_without_panic", func(r *run) {
		path := r.logFile("tcp")
		dead := r.nobody("dead")
		p := tcpProxy("c").set("access_log", []obj{logTo(path, "%RESPONSE_FLAGS% %UPSTREAM_CLUSTER%\n")})
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(dead)).with(checks(check("tcp_health_check", obj{}))).with(noPanic())}))
		r.become("c", "<dead> /failed_active_hc")
		r.dial("l").end()
		r.logged(path, 1)
		r.moved(ofHealth, `cluster\.c\.upstream_cx_(none_healthy|total)`)
	}},
	{"hc_all_fail_with_panic", func(r *run) {
		alive, dead := r.serve("alive", peer.Banner("hi!")), r.nobody("dead")
		e := obj{"endpoint": obj{"address": address(alive), "health_check_config": obj{"port_value": dead.Port()}}}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", e).with(checks(check("tcp_health_check", obj{})))}))
		r.become("c", "<alive> /failed_active_hc")
		r.whoServes("l", 2)
		r.moved(ofHealth, `cluster\.c\.upstream_cx_(none_healthy|total)`)
	}},
	{"hc_host_that_fails_keeps_its_connections", func(r *run) { r.failsUnder(obj{}) }},
	{"hc_host_that_fails_loses_its_connections", func(r *run) {
		r.failsUnder(obj{"close_connections_on_host_health_failure": true})
	}},
	{"hc_events", func(r *run) {
		path := r.logFile("events")
		alive, stop := r.speaks("alive", peer.Stall)
		hc := check("tcp_health_check", obj{}).with(obj{"event_logger": []obj{{"name": "f", "typed_config": obj{
			"@type": "type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink", "event_log_path": path}}}})
		r.start(static(nil, []obj{cluster("c", endpoint(alive)).with(checks(hc))}))
		r.become("c", "<alive> healthy")
		stop()
		r.become("c", "<alive> /failed_active_hc")
		r.serveOn(alive.String(), "alive", peer.Stall)
		r.become("c", "<alive> healthy")
		r.events(path, 3, alive)
	}},
	{"hc_new_hosts_are_ignored_until_checked", func(r *run) {
		silent := r.serve("silent", peer.Stall)
		hc := check("tcp_health_check", obj{"send": hex("PING"), "receive": []obj{hex("PONG")}}).with(obj{"timeout": "0.3s"})
		r.start(static(nil, []obj{cluster("c", endpoint(silent)).with(checks(hc)).with(obj{"common_lb_config": obj{"ignore_new_hosts_until_first_hc": true}})}))
		r.become("c", "<silent> /failed_active_hc/active_hc_timeout")
		r.moved(ofHealth)
	}},
	{"hc_rejects_two_without_names", func(r *run) {
		hc := check("tcp_health_check", obj{})
		r.rejects(static([]obj{proxyTo("l", "c")}, []obj{cluster("c").with(checks(hc, hc))}), "health check at index 0 is missing a name; all health checks must have a name when multiple health checks are configured")
	}},
	{"hc_rejects_a_payload_that_is_no_hex", func(r *run) {
		r.rejects(static([]obj{proxyTo("l", "c")}, []obj{cluster("c").with(checks(check("tcp_health_check", obj{"send": obj{"text": "zz"}})))}), "invalid hex string 'zz'")
	}},
	{"hc_rejects_grpc_without_http2", func(r *run) {
		r.rejects(static([]obj{proxyTo("l", "c")}, []obj{cluster("c").with(checks(check("grpc_health_check", obj{})))}), "c cluster must support HTTP/2 for gRPC healthchecking")
	}},
	{"hc_rejects_statuses", func(r *run) {
		hc := check("http_health_check", obj{"path": "/", "expected_statuses": []obj{{"start": 200, "end": 200}}})
		r.rejects(static([]obj{proxyTo("l", "c")}, []obj{cluster("c").with(checks(hc))}), "Invalid http expected status range: expecting start < end, but found start=200 and end=200")
	}},
}

// failsUnder has a host fail its check while it has a connection.
func (r *run) failsUnder(with obj) {
	r.Helper()
	path := r.logFile("tcp")
	server := r.serve("server", peer.Echo)
	checked, stop := r.speaks("checked", peer.Stall)
	e := obj{"endpoint": obj{"address": address(server), "health_check_config": obj{"port_value": checked.Port()}}}
	p := tcpProxy("c").set("access_log", []obj{logTo(path, "%RESPONSE_FLAGS% %UPSTREAM_LOCAL_CLOSE_REASON% %DOWNSTREAM_LOCAL_CLOSE_REASON%\n")})
	r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(server)).with(checks(check("tcp_health_check", obj{}))).with(with).with(obj{"load_assignment": assignment("c", e)})}))
	r.become("c", "<server> healthy")
	c := r.dial("l").send("hello").expect("hello")
	stop()
	r.become("c", "<server> /failed_active_hc")
	if len(with) > 0 {
		c.end()
		r.logged(path, 1)
	} else {
		c.send("still").expect("still").leave()
	}
	r.moved(`cluster\.c\.upstream_cx_(active|destroy.*)`)
}

// events notes n lines of an event log without what is another at every run.
func (r *run) events(path string, n int, hosts ...netip.AddrPort) {
	r.Helper()
	var text []byte
	for deadline := time.Now().Add(4 * time.Second); strings.Count(string(text), "\n") < n && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		text, _ = os.ReadFile(path)
	}
	for line := range strings.Lines(string(text)) {
		for _, h := range hosts {
			line = strings.ReplaceAll(line, fmt.Sprintf(`"port_value":%d`, h.Port()), `"port_value":<port>`)
		}
		before, rest, _ := strings.Cut(line, `"timestamp":"`)
		_, after, _ := strings.Cut(rest, `"`)
		line = regexp.MustCompile(`action":"\d+"`).ReplaceAllString(before+`"timestamp":"<now>"`+after, `action":"<some>"`)
		r.note("%s", strings.TrimSpace(line))
	}
}

// ejecting: outlier detection.
var ejecting = []scenario{
	{"outlier_ejects_and_lets_back", func(r *run) {
		path := r.logFile("events")
		dead := r.nobody("dead")
		b := static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("one", peer.Banner("one"))), endpoint(dead)).with(outliers(obj{}))})
		b["cluster_manager"] = obj{"outlier_detection": obj{"event_log_path": path}}
		r.start(b)
		r.whoServes("l", 6) // every other one fails, until the host is out
		r.become("c", "<dead> /failed_outlier_check, <one> healthy")
		r.whoServes("l", 4)
		r.moved(ofOutlier)
		r.become("c", "<dead> healthy, <one> healthy")
		r.moved(ofOutlier)
		r.events(path, 2)
	}},
	{"outlier_of_local_origin", func(r *run) {
		dead := r.nobody("dead")
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("one", peer.Banner("one"))), endpoint(dead)).with(
			outliers(obj{"split_external_local_origin_errors": true, "consecutive_local_origin_failure": 3, "consecutive_5xx": 1}))}))
		r.whoServes("l", 6)
		r.become("c", "<dead> /failed_outlier_check, <one> healthy")
		r.moved(ofOutlier)
	}},
	{"outlier_of_gateways", func(r *run) {
		dead := r.nobody("dead")
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("one", peer.Banner("one"))), endpoint(dead)).with(
			outliers(obj{"consecutive_gateway_failure": 3, "enforcing_consecutive_gateway_failure": 100, "consecutive_5xx": 9}))}))
		r.whoServes("l", 6)
		r.become("c", "<dead> /failed_outlier_check, <one> healthy")
		r.moved(ofOutlier)
	}},
	{"outlier_keeps_most_hosts", func(r *run) {
		dead := r.nobody("dead")
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("one", peer.Banner("one"))), endpoint(dead)).with(outliers(obj{"max_ejection_percent": 10}))}))
		r.whoServes("l", 6)
		r.become("c", "<dead> healthy, <one> healthy")
		r.moved(ofOutlier)
	}},
	{"outlier_always_ejects_one", func(r *run) {
		dead := r.nobody("dead")
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(dead)).with(outliers(obj{"max_ejection_percent": 0, "always_eject_one_host": true})).with(noPanic())}))
		for range 3 {
			r.dial("l").end()
		}
		r.become("c", "<dead> /failed_outlier_check")
		r.dial("l").end()
		r.moved(ofOutlier, `cluster\.c\.upstream_cx_none_healthy`)
	}},
	{"outlier_not_enforced", func(r *run) {
		dead := r.nobody("dead")
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(dead)).with(outliers(obj{"enforcing_consecutive_5xx": 0, "max_ejection_percent": 100}))}))
		for range 3 {
			r.dial("l").end()
		}
		r.become("c", "<dead> healthy")
		r.moved(ofOutlier)
	}},
	{"outlier_does_not_mind_resets", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.ResetAfter("one", 0, 50*time.Millisecond)))).with(outliers(obj{"consecutive_5xx": 1, "max_ejection_percent": 100}))}))
		r.whoServes("l", 3)
		r.become("c", "<server> healthy")
		r.moved(ofOutlier)
	}},
	{"outlier_ejects_by_success_rate", func(r *run) {
		dead := r.nobody("dead")
		hosts := []obj{endpoint(dead)}
		for _, name := range []string{"one", "two", "tri"} {
			hosts = append(hosts, endpoint(r.serve(name, peer.Banner(name))))
		}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", hosts...).with(outliers(obj{"consecutive_5xx": 99, "consecutive_gateway_failure": 99,
			"success_rate_minimum_hosts": 4, "success_rate_request_volume": 2, "success_rate_stdev_factor": 1000}))}))
		for range 16 {
			c := r.dial("l")
			_, _ = c.Read(make([]byte, 3))
			c.Close()
		}
		r.become("c", "<dead> /failed_outlier_check, <one> healthy, <tri> healthy, <two> healthy")
		r.moved(`cluster\.c\.outlier_detection\..+`)
	}},
	{"outlier_rejects_a_short_longest_time", func(r *run) {
		r.rejects(static([]obj{proxyTo("l", "c")}, []obj{cluster("c").with(outliers(obj{"base_ejection_time": "30s", "max_ejection_time": "10s"}))}), "outlier detector's max_ejection_time cannot be smaller than base_ejection_time")
	}},
}

// outliers detects them fast, and ejects for a second.
func outliers(with obj) obj {
	return obj{"outlier_detection": obj{"consecutive_5xx": 3, "interval": "1s", "base_ejection_time": "1s", "max_ejection_percent": 50}.with(with)}
}
