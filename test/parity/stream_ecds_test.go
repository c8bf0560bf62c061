package parity

import (
	"encoding/json"
	"regexp"
	"strings"
)

// ecdsStories: the configuration of a filter comes by itself.
var ecdsStories = []story{
	{"ecds_listener_waits", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one")), cluster("d", s.banner("two"))))
		s.lds("2", listener("l", chain(discovered("f"))))
		s.serves("l", "nobody")
		s.ecds("1", typedExtension("f", tcpProxy("c")))
		s.serves("l", "one")
		s.ecds("2", typedExtension("f", tcpProxy("d")))
		s.serves("l", "two")
		s.extensions()
	}},
	{"ecds_at_start", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), listener("l", chain(discovered("f"))))
		s.ecds("1", typedExtension("f", tcpProxy("c")))
		s.proxy.awaitLive(s.TB, s.kind)
		s.serves("l", "one")
		s.extensions()
	}},
	{"ecds_default_after_the_timeout", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one")), cluster("d", s.banner("two"))))
		f := discovered("f").discovery("default_config", tcpProxy("d")["typed_config"]).fetch("1s")
		s.lds("2", listener("l", chain(f)))
		s.serves("l", "two")
		s.ecds("1", typedExtension("f", tcpProxy("c")))
		s.serves("l", "one")
		s.extensions()
	}},
	{"ecds_nothing_after_the_timeout", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))))
		s.lds("2", listener("l", chain(discovered("f").fetch("1s"))))
		s.serves("l", "FIN")
		s.ecds("1", typedExtension("f", tcpProxy("c")))
		s.serves("l", "one")
		s.extensions()
	}},
	{"ecds_default_without_warming", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one")), cluster("d", s.banner("two"))))
		f := discovered("f").discovery("default_config", tcpProxy("d")["typed_config"]).discovery("apply_default_config_without_warming", true)
		s.lds("2", listener("l", chain(f)))
		s.serves("l", "two")
		s.ecds("1", typedExtension("f", tcpProxy("c")))
		s.serves("l", "one")
		s.extensions()
	}},
	{"ecds_update_keeps_connections", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one")), cluster("d", s.banner("two"))))
		s.lds("2", listener("l", chain(discovered("f"))))
		s.ecds("1", typedExtension("f", tcpProxy("c")))
		c := s.serves("l", "one")
		s.ecds("2", typedExtension("f", tcpProxy("d")))
		s.serves("l", "two")
		c.send("still").expect("still")
		s.extensions()
	}},
	{"ecds_of_another_type", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))))
		s.lds("2", listener("l", chain(discovered("f"))))
		s.ecds("1", typedExtension("f", obj{"typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo"}}))
		s.ecds("2", typedExtension("f", tcpProxy("c")))
		s.serves("l", "one")
		s.extensions()
	}},
	{"ecds_bad_update_keeps_the_old_one", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))))
		s.lds("2", listener("l", chain(discovered("f"))))
		s.ecds("1", typedExtension("f", tcpProxy("c")))
		s.serves("l", "one")
		s.ecds("2", typedExtension("f", tcpProxy("").set("stat_prefix", "")))
		s.serves("l", "one")
		s.extensions()
	}},
	{"ecds_shared_by_two_listeners", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))))
		s.lds("2", listener("l", chain(discovered("f"))), listener("m", chain(discovered("f"))))
		s.ecds("1", typedExtension("f", tcpProxy("c")))
		s.serves("l", "one")
		s.serves("m", "one")
		s.lds("3", gone("m"), listener("l", chain(discovered("f"))))
		s.lds("4", gone("l"))
		s.extensions()
	}},
	{"ecds_two_filters_answered_apart", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))))
		s.lds("2", listener("l", chain(discovered("f"))), listener("m", chain(discovered("g"))))
		s.ecds("1", typedExtension("g", tcpProxy("c")))
		s.serves("m", "one")
		s.serves("l", "nobody")
		s.ecds("2", typedExtension("f", tcpProxy("c")), typedExtension("g", tcpProxy("c")))
		s.serves("l", "one")
		s.extensions()
	}},
	{"ecds_removed", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one")), cluster("d", s.banner("two"))))
		f := discovered("f").discovery("default_config", tcpProxy("d")["typed_config"])
		s.lds("2", listener("l", chain(f)))
		s.ecds("1", typedExtension("f", tcpProxy("c")))
		s.serves("l", "one")
		s.ecds("2", gone("f"))
		s.serves("l", "two")
		s.extensions()
	}},
	{"ecds_old_listener_serves_while_the_new_one_waits", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one")), cluster("d", s.banner("two"))), proxyTo("l", "c"))
		s.serves("l", "one")
		s.lds("2", listener("l", chain(discovered("f"))).with(obj{"tcp_backlog_size": 64}))
		s.serves("l", "one")
		s.ecds("1", typedExtension("f", tcpProxy("d")))
		s.serves("l", "two")
		s.extensions()
	}},
	{"ecds_waiting_is_shown", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		s.lds("2", listener("l", chain(discovered("f"))).with(obj{"tcp_backlog_size": 64}), listener("m", chain(discovered("g"))))
		s.states()
		s.ecds("1", typedExtension("f", tcpProxy("c")))
		s.serves("l", "one")
		s.states()
	}},
	{"ecds_waiting_listener_removed", func(s *stream) {
		s.ready(nil)
		s.lds("2", listener("l", chain(discovered("f"))))
		s.lds("3", gone("l"))
		s.extensions()
	}},
	{"ecds_reconnect", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))))
		s.lds("2", listener("l", chain(discovered("f"))))
		s.ecds("1", typedExtension("f", tcpProxy("c")))
		s.closed(nil)
		s.serves("l", "one")
		s.extensions()
	}},
}

func (s *stream) ecds(version string, resources ...obj) {
	s.Helper()
	s.send("ECDS", version, resources...)
}

// discovered is a filter whose configuration ECDS has; it waits for ever.
func discovered(name string) obj {
	return obj{"name": name, "config_discovery": obj{
		"config_source": obj{"ads": obj{}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
		"type_urls":     []string{"type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"}}}
}

func (o obj) discovery(field string, v any) obj {
	o["config_discovery"].(obj)[field] = v
	return o
}

func (o obj) fetch(d string) obj {
	o["config_discovery"].(obj)["config_source"].(obj)["initial_fetch_timeout"] = d
	return o
}

func typedExtension(name string, filter obj) obj {
	return obj{"name": name, "typed_config": filter["typed_config"]}
}

// extensions notes the figures of extensions, and those of listeners.
func (s *stream) extensions() {
	s.Helper()
	s.moved(`extension_config_discovery\..*(config_(reload|fail|conflict)|update_(attempt|success|failure|rejected|empty)|init_fetch_timeout)`, strings.ReplaceAll(ofManagers, "control_plane", "x"), `listener\.[^.]+\.network_extension_config_missing`)
}

// states notes which states of which listeners /config_dump shows, and what
// /init_dump says is waited for.
func (s *stream) states() {
	s.Helper()
	body, _, err := s.proxy.get("/config_dump?resource=dynamic_listeners")
	if err != nil {
		s.Fatal(err)
	}
	var dump struct {
		Configs []struct {
			Name    string
			Active  json.RawMessage `json:"active_state"`
			Warming json.RawMessage `json:"warming_state"`
		}
	}
	if err := json.Unmarshal([]byte(body), &dump); err != nil {
		s.Fatalf("read /config_dump: %v: %s", err, body)
	}
	for _, l := range dump.Configs {
		s.note("%s: active %v, warming %v", l.Name, len(l.Active) > 0, len(l.Warming) > 0)
	}
	body, _, err = s.proxy.get("/init_dump")
	if err != nil {
		s.Fatal(err)
	}
	var unready struct {
		Dumps []struct {
			Name    string
			Targets []string `json:"target_names"`
		} `json:"unready_targets_dumps"`
	}
	if err := json.Unmarshal([]byte(body), &unready); err != nil {
		s.Fatalf("read /init_dump: %v: %s", err, body)
	}
	for _, d := range unready.Dumps {
		s.note("%s waits for %v", regexp.MustCompile(` \d+$`).ReplaceAllString(d.Name, ""), d.Targets)
	}
}
