package parity

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

// replace writes a file of resources, moved into place.
func (r *run) replace(path string, resources ...obj) {
	r.Helper()
	text, err := json.Marshal(obj{"version_info": "1", "resources": append([]obj{}, resources...)})
	if err != nil {
		r.Fatal(err)
	}
	if err := os.WriteFile(path+".next", text, 0o600); err != nil {
		r.Fatal(err)
	}
	if err := os.Rename(path+".next", path); err != nil {
		r.Fatal(err)
	}
}

func fromFile(path string) obj {
	return obj{"path_config_source": obj{"path": path}, "resource_api_version": "V3"}
}

func ofFile(name, path, kind string, more obj) obj {
	return obj{"name": name, "config_discovery": obj{"config_source": fromFile(path), "type_urls": []string{"type.googleapis.com/" + kind}}.with(more)}
}

func found(name string, config obj) obj {
	return obj{"@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig", "name": name, "typed_config": config}
}

const (
	ofDirectResponse = "envoy.extensions.filters.network.direct_response.v3.Config"
	ofTLSInspector   = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
	ofDiscovery      = `(extension_config_discovery\..*\.(update_(attempt|success|failure|rejected)|config_(reload|fail)|init_fetch_timeout)|listener\.l\.(network_)?extension_config_missing|tls_inspector\.tls_.*)`
)

func replying(text string) obj { return directResponse(text)["typed_config"].(obj) }

// discoveries: filters whose configuration comes from files.
var discoveries = []scenario{
	{"discovered_in_a_file", func(r *run) {
		path := filepath.Join(r.TempDir(), "filter.json")
		r.replace(path, found("x", replying("one")))
		r.start(static([]obj{listener("l", chain(ofFile("x", path, ofDirectResponse, nil)))}, nil))
		r.dial("l").end()
		r.replace(path, found("x", replying("two")))
		r.moved(ofDiscovery)
		r.dial("l").end()
		r.replace(path, found("y", replying("three")))
		r.moved(ofDiscovery)
		r.dial("l").end()
		r.replace(path)
		r.moved(ofDiscovery)
		r.dial("l").end()
	}},
	{"discovered_in_a_file_by_two", func(r *run) {
		path := filepath.Join(r.TempDir(), "filter.json")
		r.replace(path, found("x", replying("one")))
		r.start(static([]obj{listener("l", chain(ofFile("x", path, ofDirectResponse, nil))), listener("m", chain(ofFile("x", path, ofDirectResponse, nil)))}, nil))
		r.dial("l").end()
		r.dial("m").end()
		r.moved(ofDiscovery)
	}},
	{"discovered_nothing_in_a_file", func(r *run) {
		path := filepath.Join(r.TempDir(), "filter.json")
		r.replace(path)
		r.start(static([]obj{listener("l", chain(ofFile("x", path, ofDirectResponse, nil))),
			listener("m", chain(ofFile("x", path, ofDirectResponse, obj{"default_config": replying("default")})))}, nil))
		r.dial("l").end()
		r.dial("m").end()
		r.moved(ofDiscovery)
	}},
	{"discovered_listener_filter", func(r *run) {
		path := filepath.Join(r.TempDir(), "filter.json")
		r.replace(path, found("x", obj{"@type": "type.googleapis.com/" + ofTLSInspector}))
		byTransport := func(name, protocol string) obj {
			return chain(directResponse(name)).with(obj{"name": name, "filter_chain_match": obj{"transport_protocol": protocol}})
		}
		l := listener("l", byTransport("tls", "tls"), byTransport("raw", "raw_buffer")).with(obj{"listener_filters": []obj{ofFile("x", path, ofTLSInspector, nil)}})
		r.start(static([]obj{l}, nil))
		r.dial("l").send(clientHello("a.example")).end()
		r.dial("l").send("plain text").end()
		r.moved(ofListener, ofDiscovery)
	}},
	{"discovered_no_listener_filter", func(r *run) {
		path := filepath.Join(r.TempDir(), "filter.json")
		r.replace(path)
		with := func(name string, more obj) obj {
			return listener(name, chain(directResponse("hi"))).with(obj{"listener_filters": []obj{ofFile("x", path, ofTLSInspector, more)}})
		}
		r.start(static([]obj{with("l", nil), with("m", obj{"default_config": obj{"@type": "type.googleapis.com/" + ofTLSInspector}})}, nil))
		r.dial("l").end()
		r.dial("m").send("plain text").end()
		r.moved(ofListener, ofDiscovery)
	}},
}

// operations: what an operator does, and sees.
var operations = []scenario{
	{"stopped_by_a_signal", func(r *run) {
		addr, seen := r.recorder(peer.Echo)
		r.start(static([]obj{proxyTo("l", "c"), listener("m", chain(network("echo", "Echo", nil)))}, []obj{cluster("c", endpoint(addr))}))
		l, m := r.holding(r.bound("l")), r.holding(r.bound("m"))
		r.mark()
		if err := r.proxy.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			r.Fatal(err)
		}
		l.end()
		m.as("other").end()
		r.saw(seen)
	}},
	{"hung_up", func(r *run) {
		r.start(static([]obj{listener("m", chain(network("echo", "Echo", nil)))}, nil))
		m := r.holding(r.bound("m"))
		if err := r.proxy.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			r.Fatal(err)
		}
		time.Sleep(breath)
		m.send("still").expect("still").fin().end()
	}},
	{"listeners_are_listed_as_they_came", func(r *run) {
		var ls []obj
		for _, name := range []string{"z", "b", "m", "a"} {
			ls = append(ls, listener(name, chain(directResponse(name))))
		}
		r.start(static(ls, nil))
		r.dial("a").end()
		body, _, err := r.proxy.get("/listeners")
		if err != nil {
			r.Fatal(err)
		}
		for l := range strings.Lines(body) {
			name, _, _ := strings.Cut(l, ":")
			r.note("listed %s", name)
		}
	}},
	{"stats_prefix_with_colons", func(r *run) {
		l := listener("l", chain(tcpProxy("c").set("stat_prefix", "tcp:b://c."))).with(obj{"stat_prefix": "on:a"})
		r.start(static([]obj{l}, r.echoes()))
		r.dial("l").send("x").expect("x").fin().ended()
		r.moved(`listener\.on.*downstream_cx_(total|destroy)`, `tcp\.tcp.*downstream_cx_total`)
	}},
	{"direct_response_behind_an_inspector", func(r *run) {
		l := listener("l", chain(directResponse("hi"))).with(obj{"listener_filters": []obj{extension("tls", "type.googleapis.com/"+ofTLSInspector, nil)}})
		r.start(static([]obj{l}, nil))
		r.dial("l").send("plain bytes that nobody reads").end()
		r.dial("l").send(clientHello("a.example")).as("other").end()
	}},
	{"log_of_what_is_no_tls", func(r *run) {
		path := r.logFile("log")
		l := listener("l", chain(directResponse("hi"))).with(obj{"listener_filters": []obj{extension("tls", "type.googleapis.com/"+ofTLSInspector, nil)},
			"access_log": []obj{logTo(path, "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%\n")}})
		r.start(static([]obj{l}, nil))
		for i, text := range []string{"plain text", "GET / HTTP/1.1\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\n\r\n", clientHello("a.example")} {
			r.dial("l").send(text).end()
			r.waitLines(path, i+1)
		}
		r.logged(path, 4)
	}},
	{"log_of_no_filters", func(r *run) {
		path := r.logFile("log")
		r.start(static([]obj{listener("l", chain().with(obj{"name": "empty"})).with(obj{"access_log": []obj{logTo(path, everything)}})}, nil))
		r.dial("l").end()
		r.logged(path, 1)
	}},
	{"enums_and_bools_in_other_forms", func(r *run) {
		l := proxyTo("l", "c").with(obj{"drain_type": "modify_only", "freebind": "true"})
		r.start(static([]obj{l}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo))).with(obj{"lb_policy": "least_request", "type": "static"})}))
		r.dial("l").send("x").expect("x").fin().end()
	}},
	{"proxy_protocol_addresses_of_nobody", func(r *run) {
		r.start(static([]obj{listener("l", chain(directResponse("hi"))).with(obj{"listener_filters": []obj{extension("proxy", "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol", nil)}})}, nil))
		for _, header := range []string{"TCP4 255.255.255.255 1.1.1.1", "TCP4 1.1.1.1 224.0.0.1", "TCP4 0.0.0.0 1.1.1.1", "TCP6 ff02::1 ::1", "TCP6 :: ::1", "TCP4 1.1.1.1 1.1.1.2"} {
			r.dial("l").send("PROXY " + header + " 5 6\r\n").as(header).end()
		}
		r.moved(`(proxy_proto\.|downstream_cx_proxy).*`)
	}},
}

// waitLines waits until a file has so many lines.
func (r *run) waitLines(path string, n int) {
	r.Helper()
	for deadline := time.Now().Add(4 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(path); err == nil && strings.Count(string(b), "\n") >= n {
			return
		}
	}
}
