package parity

import (
	"regexp"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

// get notes those lines of an answer of the admin server that match.
func (r *run) get(path string, lines *regexp.Regexp) {
	r.Helper()
	body, code, err := r.proxy.get(path)
	if err != nil {
		r.Fatal(err)
	}
	r.note("GET %s: %d", path, code)
	for l := range strings.Lines(body) {
		if lines.MatchString(l) {
			r.note("%s", strings.TrimSpace(l))
		}
	}
}

// echoed is one conversation, in whatever time.
func (r *run) echoed(listener string) {
	r.Helper()
	r.dial(listener).send("hello").expect("hello").fin().ended()
}

// postFor is post, of a long answer.
func (r *run) postFor(path string, lines *regexp.Regexp) {
	r.Helper()
	at := len(r.record)
	r.post(path)
	head, body, _ := strings.Cut(r.record[at], " \"")
	r.record[at] = head
	for l := range strings.SplitSeq(body, `\n`) {
		if lines.MatchString(l) {
			r.note("%s", strings.TrimSpace(l))
		}
	}
}

// figures: what the process counts of itself, and what may not be asked of it.
var figures = []scenario{
	{"hosts_of_tcp_count_no_answers", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c"), proxyTo("m", "d")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo))), cluster("d", endpoint(r.nobody("nobody")))}))
		r.echoed("l")
		r.dial("m").ended()
		r.moved(`cluster\.[cd]\.upstream_cx_(total|connect_fail|active)`)
		r.get("/clusters", regexp.MustCompile(`::(rq|cx)_`))
	}},
	{"figures_of_one_host", func(r *run) {
		host := r.serve("server", peer.Echo)
		named := cluster("d", obj{"endpoint": obj{"address": obj{"socket_address": obj{"address": "localhost", "port_value": host.Port()}}}, "load_balancing_weight": 7})
		r.start(static([]obj{proxyTo("l", "c"), proxyTo("m", "d")}, []obj{cluster("c", endpoint(host)).with(obj{"lb_policy": "MAGLEV"}), named.with(obj{"type": "LOGICAL_DNS", "dns_lookup_family": "V4_ONLY"})}))
		r.echoed("l")
		r.echoed("m")
		r.get("/stats", regexp.MustCompile(`^cluster\.[cd]\.(maglev_lb|max_host_weight|membership_total)`))
	}},
	{"upstream_config_of_the_generic_pool", func(r *run) {
		pool := obj{"name": "p", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.upstreams.tcp.generic.v3.GenericConnectionPoolProto"}}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo))).with(obj{"upstream_config": pool})}))
		r.echoed("l")
		r.movedByConnections()
	}},
	{"times_are_whole_milliseconds", func(r *run) {
		b := static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))})
		r.start(b.with(obj{"stats_flush_interval": "0.1s"}))
		r.echoed("l")
		whole := regexp.MustCompile(`totals=[0-9]+,`)
		for deadline := time.Now().Add(4 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			body, _, err := r.proxy.get("/stats?histogram_buckets=detailed&filter=" + `^cluster.c.upstream_cx_(connect|length)_ms`)
			if err != nil {
				r.Fatal(err)
			}
			if n := len(whole.FindAllString(body, -1)); n == 2 || time.Now().After(deadline) {
				r.note("%d of 2 in whole milliseconds", n)
				return
			}
		}
	}},
	{"figures_of_the_runtime", func(r *run) {
		b := static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))})
		r.start(b.with(obj{"layered_runtime": obj{"layers": []obj{{"name": "s", "static_layer": obj{"a": 1, "b": obj{"c": 2}}}, {"name": "adm", "admin_layer": obj{}}}}}))
		r.echoed("l")
		of := regexp.MustCompile(`^runtime\.`)
		r.get("/stats", of)
		r.post("/runtime_modify?x=1&a=2")
		r.get("/stats", of)
		r.post("/runtime_modify?x=&a=")
		r.get("/stats", of)
	}},
	{"figures_of_the_process", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.echoed("l")
		r.get("/stats", regexp.MustCompile(`^server\.(compilation_settings|debug_assertion|envoy_|dropped_stat|wip_protos|static_unknown|dynamic_unknown|concurrency|live|state)`))
	}},
	{"loggers_have_names", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.echoed("l")
		all, some := regexp.MustCompile(`.`), regexp.MustCompile(`^( *(config|main|upstream|error|usage)\b)`)
		r.postFor("/logging", all)
		r.postFor("/logging?config=debug", some)
		r.postFor("/logging?paths=main:error,upstream:trace", some)
		r.postFor("/logging?group=main:info", some)
		r.postFor("/logging?level=critical", some)
		r.postFor("/logging?nope=debug", some)
		r.postFor("/logging?main=loud", some)
		r.postFor("/logging?paths=main", some)
		r.postFor("/logging?main=debug&config=debug", some)
	}},
	{"loggers_have_levels_at_the_start", func(r *run) {
		r.kind.args = []string{"--component-log-level", "upstream:debug,main:error"}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.echoed("l")
		r.postFor("/logging", regexp.MustCompile(`^ *(config|main|upstream):`))
	}},
	{"stats_tags_of_the_command_line", func(r *run) {
		r.kind.args = []string{"--stats-tag", "a:b", "--stats-tag", "c:d:e"}
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.echoed("l")
		body, _, err := r.proxy.get("/stats/prometheus?filter=^(cluster.c.upstream_cx_total|server.live)$")
		if err != nil {
			r.Fatal(err)
		}
		r.note("a=b %d times, c=d:e %d times", strings.Count(body, `a="b"`), strings.Count(body, `c="d:e"`))
	}},
	{"reject_flags", func(r *run) {
		for _, bad := range []struct{ flag, value, words string }{
			{"--component-log-level", "nope:debug", "error: invalid component specified 'nope'"},
			{"--component-log-level", "upstream:loud", "error: invalid log level specified 'loud'"},
			{"--component-log-level", "upstream", "error: component log level not correctly specified 'upstream'"},
			{"--local-address-ip-version", "v7", "error: unknown IP address version 'v7'"},
			{"--stats-tag", "bad", "error: misformatted stats-tag 'bad'"},
			{"--stats-tag", "a_b:c", "error: misformatted stats-tag 'a_b:c' contains invalid char in 'a_b'"},
			{"--stats-tag", "a:b.c", "error: misformatted stats-tag 'a:b.c' contains invalid char in 'b.c'"},
		} {
			r.note("%s %s", bad.flag, bad.value)
			if r.kind.args = []string{bad.flag, bad.value}; r.plant {
				r.kind.args = nil
			}
			r.rejects(static([]obj{proxyTo("l", "c")}, []obj{cluster("c")}), bad.words)
		}
	}},
	{"reject_flushing_twice", func(r *run) {
		r.rejects(static([]obj{proxyTo("l", "c")}, []obj{cluster("c")}).with(obj{"stats_flush_interval": "1s", "stats_flush_on_admin": true}),
			"Only one of stats_flush_interval or stats_flush_on_admin should be set!")
	}},
	{"figures_of_a_plain_process", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.echoed("l")
		// Of subscriptions that there are none of Sluice has figures, too.
		r.figureNames(`cluster\.c\.([^l]|lb_[^z])|cluster_manager\.[^.]*:|dns\.|envoy\.|filesystem\.(flushed|reopen|write_(buffered|completed|failed|total))|http1\.|listener\.l\.|listener_manager\.[^.]*:|overload\.|runtime\.|tcp\.|thread_local_cluster_manager\.`)
	}},
	{"figures_of_the_admin", func(r *run) {
		r.start(static(nil, nil))
		for range 3 {
			r.get("/ready", regexp.MustCompile("."))
		}
		r.get("/none", regexp.MustCompile("^invalid"))
		r.proxy.http.CloseIdleConnections()
		r.await("http.admin.downstream_cx_active", 1, 1) // the one that asks
		r.await("http.admin.downstream_cx_destroy_remote", 1, 1000)
		now := r.stats()
		for _, same := range [][2]string{{"listener.admin.downstream_cx_total", "http.admin.downstream_cx_total"}, {"listener.admin.main_thread.downstream_cx_total", "http.admin.downstream_cx_http1_total"},
			{"http.admin.downstream_cx_destroy", "listener.admin.downstream_cx_destroy"}, {"http.admin.downstream_cx_destroy", "http.admin.downstream_cx_destroy_remote"},
			{"http.admin.downstream_rq_total", "http.admin.downstream_rq_http1_total"}} {
			r.note("%s is %s: %v", same[0], same[1], now[same[0]] == now[same[1]] && now[same[0]] > 0)
		}
		r.note("%d of 404, %d active, requests of more than 100 bytes each way: %v", now["http.admin.downstream_rq_4xx"], now["http.admin.downstream_rq_active"],
			now["http.admin.downstream_cx_rx_bytes_total"] > 50*now["http.admin.downstream_rq_total"] && now["http.admin.downstream_cx_tx_bytes_total"] > 100*now["http.admin.downstream_rq_total"])
	}},
	{"buckets_of_histograms", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}).with(obj{"stats_config": obj{"histogram_bucket_settings": []obj{
			{"match": obj{"exact": "listener.l.downstream_cx_length_ms"}, "buckets": []float64{100000, 50000, 500}},
			{"match": obj{"prefix": "cluster.c"}, "buckets": []float64{70000}}, {"match": obj{"suffix": "_ms"}, "buckets": []float64{9}}}}, "stats_flush_interval": "0.1s"}))
		c := r.dial("l").send("hello").expect("hello")
		time.Sleep(time.Second)
		c.fin().ended()
		r.await("listener.l.downstream_cx_destroy", 1, 1)
		time.Sleep(time.Second) // histograms are merged at a flush, the next one ends the interval
		shown := regexp.MustCompile(`^envoy_(listener_downstream_cx_length_ms|cluster_upstream_cx_length_ms)_(bucket|count)`)
		r.get("/stats/prometheus", shown)
		for _, mode := range []string{"cumulative", "disjoint"} {
			r.get("/stats?filter=cx_length_ms&histogram_buckets="+mode, regexp.MustCompile(`^(listener\.l|cluster)\.`))
		}
	}},
	{"a_tag_replaced", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c")}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}).with(obj{"stats_config": obj{"allow_default_tag_overrides": true,
			"stats_tags": []obj{{"tag_name": "envoy.cluster_name", "regex": `^cluster\.((c)\.)`}, {"tag_name": "envoy.worker_id"}}}}))
		r.get("/stats/prometheus", regexp.MustCompile(`^envoy_(cluster_upstream_cx_total|tcp_c?_?downstream_cx_total|listener_worker)`))
	}},
	{"reject_overload_managers", func(r *run) {
		monitor := func(bytes int) obj {
			return obj{"name": "envoy.resource_monitors.fixed_heap", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig", "max_heap_size_bytes": bytes}}
		}
		unknown := obj{"name": "envoy.nope", "typed_config": obj{"@type": "type.googleapis.com/google.protobuf.Empty"}}
		trigger := func(resource string) obj { return obj{"name": resource, "threshold": obj{"value": 0.9}} }
		action := func(name string, triggers ...obj) obj { return obj{"name": name, "triggers": triggers} }
		shrinking := obj{"@type": "type.googleapis.com/envoy.config.overload.v3.ShrinkHeapConfig"}
		timer := obj{"timer": "TRANSPORT_SOCKET_CONNECT", "min_timeout": "1s"}
		scaling := func(timers ...obj) obj {
			return obj{"@type": "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig", "timer_scale_factors": timers}
		}
		const heap, stop = "envoy.resource_monitors.fixed_heap", "envoy.overload_actions.stop_accepting_connections"
		for _, bad := range []struct {
			manager obj
			words   string
		}{
			{obj{"resource_monitors": []obj{unknown}}, "Didn't find a registered implementation for 'envoy.nope' with type URL: 'google.protobuf.Empty'"},
			{obj{"resource_monitors": []obj{monitor(1), monitor(1)}}, "Duplicate resource monitor " + heap},
			{obj{"resource_monitors": []obj{monitor(0)}}, "fixed_heap: max heap size must be greater than 0"},
			{obj{"resource_monitors": []obj{monitor(1)}, "actions": []obj{action("envoy.nope", trigger(heap))}}, "Unknown Overload Manager Action envoy.nope"},
			{obj{"resource_monitors": []obj{monitor(1)}, "actions": []obj{action(stop, trigger("x"))}}, "Unknown trigger resource x for overload action " + stop},
			{obj{"resource_monitors": []obj{monitor(1)}, "actions": []obj{action(stop, trigger(heap)), action(stop, trigger(heap))}}, "Duplicate overload action " + stop},
			{obj{"resource_monitors": []obj{monitor(1)}, "actions": []obj{action(stop, trigger(heap), trigger(heap))}}, "Duplicate trigger resource for overload action " + stop},
			{obj{"resource_monitors": []obj{monitor(1)}, "actions": []obj{action(stop, obj{"name": heap, "scaled": obj{"scaling_threshold": 0.9, "saturation_threshold": 0.8}})}}, "scaling_threshold must be less than saturation_threshold"},
			{obj{"resource_monitors": []obj{monitor(1)}, "actions": []obj{action(stop)}}, "OverloadActionValidationError.Triggers: value must contain at least 1 item(s)"},
			{obj{"resource_monitors": []obj{monitor(1)}, "actions": []obj{action(stop, obj{"name": heap})}}, "is required"},
			{obj{"resource_monitors": []obj{monitor(1)}, "actions": []obj{action(stop, trigger(heap)).with(obj{"typed_config": shrinking})}}, "Overload action \"" + stop + "\" has an unexpected value for the typed_config field"},
			{obj{"resource_monitors": []obj{monitor(1)}, "actions": []obj{action(actionTimeouts, trigger(heap))}}, "Overload action \"" + actionTimeouts + "\" requires typed_config"},
			{obj{"resource_monitors": []obj{monitor(1)}, "actions": []obj{action(actionTimeouts, trigger(heap)).with(obj{"typed_config": shrinking})}}, "typed_config resolves to envoy.config.overload.v3.ShrinkHeapConfig instead of envoy.config.overload.v3.ScaleTimersOverloadActionConfig"},
			{obj{"resource_monitors": []obj{monitor(1)}, "actions": []obj{action(actionTimeouts, trigger(heap)).with(obj{"typed_config": scaling(timer, timer)})}}, "Found duplicate entry for timer type TRANSPORT_SOCKET_CONNECT"},
			{obj{"resource_monitors": []obj{monitor(1)}, "actions": []obj{action(actionShrink, trigger(heap)).with(obj{"typed_config": scaling(timer)})}}, "Overload action name \"" + actionShrink + "\" conflicts with its typed config"},
			{obj{"resource_monitors": []obj{monitor(1)}, "actions": []obj{action("envoy.overload_actions.reset_high_memory_stream", trigger(heap))}}, "Overload action \"envoy.overload_actions.reset_high_memory_stream\" requires buffer_factory_config."},
			{obj{"resource_monitors": []obj{monitor(1)}, "loadshed_points": []obj{action("p", trigger("x"))}}, "Unknown trigger resource x for loadshed point p"},
			{obj{"resource_monitors": []obj{monitor(1)}, "loadshed_points": []obj{action("p", trigger(heap), trigger(heap))}}, "Duplicate trigger resource for LoadShedPoint p"},
			{obj{"resource_monitors": []obj{monitor(1)}, "loadshed_points": []obj{action("p", trigger(heap)), action("p", trigger(heap))}}, "Duplicate loadshed point p"},
			{obj{"resource_monitors": []obj{monitorOf("r", "injected_resource.v3.InjectedResourceConfig", obj{"filename": "/nowhere/r"})}}, "unable to add filesystem watch for file /nowhere/r: No such file or directory"},
		} {
			r.note("%s", bad.words)
			r.rejects(static([]obj{proxyTo("l", "c")}, []obj{cluster("c")}).with(obj{"overload_manager": bad.manager}), bad.words)
		}
	}},
}
