package parity

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

// everything is a format of all that is the same on every run.
const everything = `flags=%RESPONSE_FLAGS% long=%RESPONSE_FLAGS_LONG% code=%RESPONSE_CODE% details=%CONNECTION_TERMINATION_DETAILS% received=%BYTES_RECEIVED% sent=%BYTES_SENT% ` +
	`attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT% host=%UPSTREAM_HOST% hosts=%UPSTREAM_HOSTS_ATTEMPTED% remote=%UPSTREAM_REMOTE_ADDRESS% local=%UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% ` +
	`cluster=%UPSTREAM_CLUSTER% raw=%UPSTREAM_CLUSTER_RAW% failure=%UPSTREAM_TRANSPORT_FAILURE_REASON% up-close=%UPSTREAM_LOCAL_CLOSE_REASON% down-close=%DOWNSTREAM_LOCAL_CLOSE_REASON% ` +
	`up=%UPSTREAM_DETECTED_CLOSE_TYPE% down=%DOWNSTREAM_DETECTED_CLOSE_TYPE% wire=%UPSTREAM_WIRE_BYTES_RECEIVED%/%UPSTREAM_WIRE_BYTES_SENT%/%DOWNSTREAM_WIRE_BYTES_RECEIVED%/%DOWNSTREAM_WIRE_BYTES_SENT% ` +
	`type=%ACCESS_LOG_TYPE% chain=%FILTER_CHAIN_NAME% direct=%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% sni=%REQUESTED_SERVER_NAME% http=%REQ(:METHOD)%/%PROTOCOL%` + "\n"

// logFile is a path for an access log, of its own for each proxy.
func (r *run) logFile(name string) string { return filepath.Join(r.TempDir(), name) }

// logTo is a file access log with a text format.
func logTo(path, format string) obj {
	return obj{"name": "log", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": path,
		"log_format": obj{"text_format_source": obj{"inline_string": format}}}}
}

// logged waits for n lines of a log, gives stragglers a chance, and notes them.
func (r *run) logged(path string, n int) {
	r.Helper()
	read := func() string {
		b, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			r.Fatal(err)
		}
		return string(b)
	}
	for deadline := time.Now().Add(4 * time.Second); strings.Count(read(), "\n") < n && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	time.Sleep(150 * time.Millisecond) // a line too many would be as wrong
	for line := range strings.Lines(read()) {
		r.note("%s: %s", filepath.Base(path), strings.TrimSuffix(line, "\n"))
	}
}

// told runs a scenario whose verdict is the log line of one connection.
func told(name string, act func(r *run, p obj)) scenario {
	return scenario{name, func(r *run) { act(r, tcpProxy("c")) }}
}

// logs: what is written about a connection, and when.
var logs = []scenario{
	told("log_of_an_echo", func(r *run, p obj) {
		path := r.logFile("tcp")
		r.start(static([]obj{listener("l", chain(p.set("access_log", []obj{logTo(path, everything)})).with(obj{"name": "first"}))},
			[]obj{cluster("c", endpoint(r.serve("server", peer.Echo))).with(obj{"alt_stat_name": "other"})}))
		r.dial("l").send("hello").expect("hello").fin().end()
		r.logged(path, 1)
	}),
	told("log_of_listener_comes_after_that_of_tcp_proxy", func(r *run, p obj) {
		path := r.logFile("both")
		l := listener("l", chain(p.set("access_log", []obj{logTo(path, "tcp "+everything)}))).with(obj{"access_log": []obj{logTo(path, "listener "+everything)}})
		r.start(static([]obj{l}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").fin().end()
		r.logged(path, 2)
	}),
	told("log_of_refused_connect", func(r *run, p obj) {
		path := r.logFile("tcp")
		r.start(static([]obj{listener("l", chain(p.set("access_log", []obj{logTo(path, everything)})))}, []obj{cluster("c", endpoint(r.nobody("nobody")))}))
		r.dial("l").end()
		r.logged(path, 1)
		r.movedByConnections()
	}),
	told("log_of_three_refused_connects", func(r *run, p obj) {
		path := r.logFile("tcp")
		p.set("access_log", []obj{logTo(path, everything)}).set("max_connect_attempts", 3)
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.nobody("nobody")))}))
		r.dial("l").end()
		r.logged(path, 1)
	}),
	told("log_of_no_cluster", func(r *run, p obj) {
		path := r.logFile("tcp")
		p.set("access_log", []obj{logTo(path, everything)}).set("cluster", "none")
		r.start(static([]obj{listener("l", chain(p))}, nil))
		r.dial("l").end()
		r.logged(path, 1)
		r.movedByConnections()
	}),
	told("log_of_no_hosts", func(r *run, p obj) {
		path := r.logFile("tcp")
		r.start(static([]obj{listener("l", chain(p.set("access_log", []obj{logTo(path, everything)})))}, []obj{cluster("c")}))
		r.dial("l").end()
		r.logged(path, 1)
	}),
	told("log_of_overflow", func(r *run, p obj) {
		path := r.logFile("tcp")
		c := cluster("c", endpoint(r.serve("server", peer.Echo))).with(obj{"circuit_breakers": obj{"thresholds": []obj{{"max_connections": 0}}}})
		r.start(static([]obj{listener("l", chain(p.set("access_log", []obj{logTo(path, everything)})))}, []obj{c}))
		r.dial("l").end()
		r.logged(path, 1)
	}),
	told("log_of_no_filter_chain", func(r *run, p obj) {
		path := r.logFile("listener")
		l := listener("l", chain(p).with(obj{"filter_chain_match": obj{"destination_port": 1}})).with(obj{"access_log": []obj{logTo(path, everything)}})
		r.start(static([]obj{l}, []obj{cluster("c")}))
		r.dial("l").end()
		r.logged(path, 1)
	}),
	told("log_of_idle_timeout", func(r *run, p obj) {
		path := r.logFile("tcp")
		p.set("access_log", []obj{logTo(path, everything)}).set("idle_timeout", "0.5s")
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").end()
		r.logged(path, 1)
	}),
	told("log_of_client_reset", func(r *run, p obj) {
		path := r.logFile("tcp")
		r.start(static([]obj{listener("l", chain(p.set("access_log", []obj{logTo(path, everything)})))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").reset()
		r.logged(path, 1)
	}),
	told("log_of_server_reset", func(r *run, p obj) {
		path := r.logFile("tcp")
		r.start(static([]obj{listener("l", chain(p.set("access_log", []obj{logTo(path, everything)})))},
			[]obj{cluster("c", endpoint(r.serve("server", peer.ResetAfter("bye", 5, 200*time.Millisecond))))}))
		r.dial("l").send("hello").end()
		r.logged(path, 1)
	}),
	told("log_at_start_and_when_connected", func(r *run, p obj) {
		path := r.logFile("tcp")
		p.set("access_log", []obj{logTo(path, everything)}).set("access_log_options", obj{"flush_access_log_on_start": true, "flush_access_log_on_connected": true})
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").fin().end()
		r.logged(path, 3)
	}),
	told("log_when_connected_in_the_form_of_old", func(r *run, p obj) {
		path := r.logFile("tcp")
		p.set("access_log", []obj{logTo(path, everything)}).set("flush_access_log_on_connected", true)
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").fin().end()
		r.logged(path, 2)
	}),
	told("log_every_half_second", func(r *run, p obj) {
		path := r.logFile("tcp")
		p.set("access_log", []obj{logTo(path, everything)}).set("access_log_options", obj{"access_log_flush_interval": "0.5s"})
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		c := r.dial("l").send("hello").expect("hello")
		time.Sleep(1250 * time.Millisecond)
		c.fin().end()
		r.logged(path, 3)
	}),
	told("log_as_json_keeps_types_and_sorts", func(r *run, p obj) {
		path := r.logFile("json")
		log := obj{"name": "log", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": path, "log_format": obj{"json_format": obj{
			"bytes": "%BYTES_RECEIVED%", "none": "%PROTOCOL%", "text": "%BYTES_SENT% of %PROTOCOL% \"q\" <&>", "a": obj{"z": 1, "y": 1.5, "x": true, "w": nil, "v": []any{"%BYTES_SENT%", "s", 2}},
			"host": "%UPSTREAM_HOST%", "flags": "%RESPONSE_FLAGS%", "empty": "", "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"}}}}
		r.start(static([]obj{listener("l", chain(p.set("access_log", []obj{log})))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").fin().end()
		r.logged(path, 1)
	}),
	told("log_as_json_without_empty_values", func(r *run, p obj) {
		path := r.logFile("json")
		log := obj{"name": "log", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": path, "log_format": obj{"omit_empty_values": true, "json_format": obj{
			"p": "%PROTOCOL%", "q": "x%PROTOCOL%y", "n": obj{"p": "%PROTOCOL%"}, "m": obj{}, "l": []any{"%PROTOCOL%", "%BYTES_SENT%"}}}}}
		r.start(static([]obj{listener("l", chain(p.set("access_log", []obj{log})))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").fin().end()
		r.logged(path, 1)
	}),
	told("log_as_text_without_empty_values", func(r *run, p obj) {
		path := r.logFile("text")
		log := logTo(path, "[%PROTOCOL%] [%BYTES_SENT%] 100%%\n")
		log["typed_config"].(obj)["log_format"].(obj)["omit_empty_values"] = true
		r.start(static([]obj{listener("l", chain(p.set("access_log", []obj{log})))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").fin().end()
		r.logged(path, 1)
	}),
	told("log_filters_by_flag_and_duration", func(r *run, p obj) {
		path := r.logFile("filtered")
		only := func(format string, filter obj) obj { return logTo(path, format).with(obj{"filter": filter}) }
		compare := func(op string, v int) obj {
			return obj{"comparison": obj{"op": op, "value": obj{"default_value": v, "runtime_key": "none"}}}
		}
		p.set("access_log", []obj{
			only("any flag\n", obj{"response_flag_filter": obj{}}),
			only("UF\n", obj{"response_flag_filter": obj{"flags": []string{"UF"}}}),
			only("NR\n", obj{"response_flag_filter": obj{"flags": []string{"NR"}}}),
			only("long\n", obj{"duration_filter": compare("GE", 10_000)}),
			only("short\n", obj{"duration_filter": compare("LE", 10_000)}),
			only("code 0\n", obj{"status_code_filter": compare("EQ", 0)}),
			only("server error\n", obj{"status_code_filter": compare("GE", 500)}),
			only("not a health check\n", obj{"not_health_check_filter": obj{}}),
			only("start\n", obj{"log_type_filter": obj{"types": []string{"TcpConnectionStart"}}}),
			only("end\n", obj{"log_type_filter": obj{"types": []string{"TcpConnectionEnd"}}}),
			only("not end\n", obj{"log_type_filter": obj{"types": []string{"TcpConnectionEnd"}, "exclude": true}}),
			only("and\n", obj{"and_filter": obj{"filters": []obj{{"response_flag_filter": obj{}}, {"status_code_filter": compare("GE", 500)}}}}),
			only("or\n", obj{"or_filter": obj{"filters": []obj{{"response_flag_filter": obj{}}, {"status_code_filter": compare("GE", 500)}}}}),
			only("sampled\n", obj{"runtime_filter": obj{"runtime_key": "none", "percent_sampled": obj{"numerator": 100}}}),
			only("not sampled\n", obj{"runtime_filter": obj{"runtime_key": "none", "percent_sampled": obj{"numerator": 0}}}),
			only("header\n", obj{"header_filter": obj{"header": obj{"name": "x", "present_match": true}}}),
		})
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.nobody("nobody")))}))
		r.dial("l").end()
		r.logged(path, 8)
	}),
	told("log_of_host_names_and_metadata", func(r *run, p obj) {
		path := r.logFile("tcp")
		p.set("access_log", []obj{logTo(path, "%UPSTREAM_HOST_NAME% %UPSTREAM_METADATA(envoy.lb:k)% %UPSTREAM_METADATA(envoy.lb:n)% %UPSTREAM_METADATA(envoy.lb:none)% %UPSTREAM_METADATA(envoy.lb)% %DYNAMIC_METADATA(a:b)% %FILTER_STATE(x)% %ENVIRONMENT(NO_SUCH)% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(8)%\n")})
		e := endpoint(r.serve("server", peer.Echo))
		e["endpoint"].(obj)["hostname"] = "host.example"
		e["metadata"] = obj{"filter_metadata": obj{"envoy.lb": obj{"k": "v", "n": 1}}}
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", e)}))
		r.dial("l").send("hello").expect("hello").fin().end()
		r.logged(path, 1)
	}),
	told("log_with_the_default_format", func(r *run, p obj) {
		path := r.logFile("tcp")
		log := obj{"name": "log", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": path}}
		r.start(static([]obj{listener("l", chain(p.set("access_log", []obj{log})))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").fin().end()
		b := r.waitFile(path)
		_, rest, _ := strings.Cut(b, "] ") // the time
		r.note("%s", strings.Join(strings.Fields(rest)[:7], " "))
	}),
}

// waitFile waits until a file holds a line.
func (r *run) waitFile(path string) string {
	r.Helper()
	for deadline := time.Now().Add(4 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), "\n") {
			return string(b)
		}
	}
	return "] no line was written at all in time"
}

// nobody is an address that refuses connections.
func (r *run) nobody(name string) netip.AddrPort {
	ap := freePort(r.TB, "127.0.0.1")
	r.call(ap, name)
	return ap
}
