package parity

import (
	"encoding/json"

	_ "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3" // what the stories send
)

// rtdsStories: layers of the runtime come by themselves.
var rtdsStories = []story{
	{"rtds_comes_before_all_else", func(s *stream) {
		s.layers(s.rtds("r", "0s"))
		s.open()
		s.layer("1", "r", obj{"a": 1, "b": obj{"c": "x"}})
		s.cds("1", cluster("c", s.banner("one")))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "one")
		s.runtime()
	}},
	{"rtds_two_layers_are_both_waited_for", func(s *stream) {
		s.layers(s.rtds("r", "0s"), s.rtds("q", "0s"))
		s.open()
		s.layer("1", "q", obj{"a": 1, "b": 5})
		s.layer("2", "r", obj{"a": 2})
		s.cds("1")
		s.runtime()
	}},
	{"rtds_does_not_come_in_time", func(s *stream) {
		s.layers(obj{"name": "base", "static_layer": obj{"a": 7}}, s.rtds("r", "0.5s"))
		s.open()
		s.await("the time is over", func() bool { return s.stats()["runtime.init_fetch_timeout"] == 1 })
		s.settle()
		s.cds("1")
		s.lds("1")
		s.layer("1", "r", obj{"a": 8})
		s.runtime()
	}},
	{"rtds_limits_a_listener", func(s *stream) {
		s.layers(s.rtds("r", "0s"))
		s.open()
		s.layer("1", "r", obj{"envoy.resource_limits.listener.l.connection_limit": 1})
		s.cds("1", cluster("c", s.banner("one")))
		s.lds("1", proxyTo("l", "c"))
		held := s.serves("l", "one")
		s.once("l").as("one too many").end()
		s.layer("2", "r", obj{"envoy.resource_limits.listener.l.connection_limit": 2})
		s.serves("l", "one")
		held.send("still").expect("still")
		s.runtime()
	}},
	{"rtds_changes_breakers", func(s *stream) {
		s.layers(s.rtds("r", "0s"))
		s.open()
		s.layer("1", "r", obj{"circuit_breakers.c.default.max_connections": 0})
		s.cds("1", cluster("c", s.banner("one")))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "nobody")
		s.layer("2", "r", obj{})
		s.serves("l", "one")
		s.runtime()
	}},
	{"rtds_turns_a_filter_off", func(s *stream) {
		s.layers(s.rtds("r", "0s"))
		s.open()
		s.layer("1", "r", obj{"other": true})
		s.cds("1", cluster("c", s.banner("one")))
		limit := connectionLimit(0, obj{"runtime_enabled": obj{"default_value": true, "runtime_key": "limits"}})
		s.lds("1", listener("l", chain(limit, tcpProxy("c"))))
		s.serves("l", "nobody")
		s.layer("2", "r", obj{"limits": false})
		s.serves("l", "one")
		s.runtime()
	}},
	{"reject_rtds_of_another_name", func(s *stream) {
		s.layers(s.rtds("r", "0s"))
		s.open()
		s.layer("1", "q", obj{"a": 1})
		s.layer("2", "r", obj{"a": 1})
		s.layer("3", "r", obj{"a": 2}, obj{"name": "r", "layer": obj{"a": 3}})
		s.cds("1")
		s.runtime()
	}},
	{"reject_rtds_of_another_type", func(s *stream) {
		s.layers(s.rtds("r", "0s"))
		s.open()
		s.send("RTDS", "1", raw("r", types["CDS"], "\x0a\x01r"))
		s.cds("1")
		s.runtime()
	}},
	{"reject_rtds_of_a_value", func(s *stream) {
		s.layers(s.rtds("r", "0s"))
		s.open()
		s.layer("1", "r", obj{"a": 1})
		s.layer("2", "r", obj{"a": []int{1}})
		s.layer("3", "r", obj{"a": nil})
		s.cds("1")
		s.runtime()
	}},
	{"rtds_is_removed_delta_only", func(s *stream) {
		s.layers(s.rtds("r", "0s"))
		s.open()
		s.layer("1", "r", obj{"a": 1})
		s.cds("1")
		s.send("RTDS", "2", gone("r"))
		s.runtime()
	}},
	{"rtds_reconnects", func(s *stream) {
		s.layers(s.rtds("r", "0s"))
		s.open()
		s.layer("1", "r", obj{"a": 1})
		s.cds("1")
		s.closed(nil)
		s.layer("2", "r", obj{"a": 2})
		s.runtime()
	}},
	{"rtds_by_a_stream_of_its_own", func(s *stream) {
		own := s.rtds("r", "0s")
		own["rtds_layer"].(obj)["rtds_config"] = s.stream()
		s.layers(own)
		s.open()
		s.layer("1", "r", obj{"a": 1})
		s.cds("1")
		s.runtime()
	}},
	{"rtds_from_a_file_delta_only", func(s *stream) {
		own := s.rtds("r", "0s")
		own["rtds_layer"].(obj)["rtds_config"] = s.file("rtds.json")
		s.layers(own)
		s.move("rtds.json", "1", "RTDS", obj{"name": "r", "layer": obj{"a": 1}})
		s.open()
		s.cds("1")
		for i, resources := range [][]obj{{{"name": "r", "layer": obj{"a": 2}}}, {{"name": "q", "layer": obj{"a": 3}}}, {}} {
			s.move("rtds.json", "2", "RTDS", resources...)
			s.await("the file was read", func() bool { return s.stats()["runtime.update_attempt"] == int64(i)+2 })
		}
		s.runtime()
	}},
}

// rtds is a layer that the script fills.
func (s *stream) rtds(name, wait string) obj {
	return obj{"name": "layer of " + name, "rtds_layer": obj{"name": name, "rtds_config": obj{"ads": obj{}, "resource_api_version": "V3", "initial_fetch_timeout": wait}}}
}

// layers are those of the bootstrap.
func (s *stream) layers(all ...obj) { s.more = obj{"layered_runtime": obj{"layers": all}} }

// layer sends the values of a layer, and what comes with it.
func (s *stream) layer(version, name string, values obj, more ...obj) {
	s.Helper()
	s.send("RTDS", version, append([]obj{{"name": name, "layer": values}}, more...)...)
}

// runtime notes what there is in the end.
func (s *stream) runtime() {
	s.Helper()
	body, _, err := s.proxy.get("/runtime")
	if err != nil {
		s.Fatal(err)
	}
	var all any
	if err := json.Unmarshal([]byte(body), &all); err != nil {
		s.Fatal(err)
	}
	sorted, err := json.Marshal(all)
	if err != nil {
		s.Fatal(err)
	}
	s.note("/runtime: %s", sorted)
	s.moved(`runtime\.(update_(attempt|success|failure|rejected)|init_fetch_timeout|load_success|load_error|num_.*|override_dir_.*|version)`, `cluster_manager\.cds\.update_(attempt|success)`, `listener\.l\.downstream_cx_overflow`)
}
