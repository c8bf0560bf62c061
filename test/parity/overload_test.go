package parity

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

// The names that the overload manager's stories use.
const (
	injectedResource = "envoy.resource_monitors.injected_resource"
	heapResource     = "envoy.resource_monitors.fixed_heap"
	connectionsLimit = "envoy.resource_monitors.global_downstream_max_connections"
	actionStop       = "envoy.overload_actions.stop_accepting_connections"
	actionReject     = "envoy.overload_actions.reject_incoming_connections"
	actionShrink     = "envoy.overload_actions.shrink_heap"
	actionTimeouts   = "envoy.overload_actions.reduce_timeouts"
	pointAccept      = "envoy.load_shed_points.tcp_listener_accept"
	pointData        = "envoy.load_shed_points.tcp_proxy_on_data"
	pointPool        = "envoy.load_shed_points.connection_pool_new_connection"

	ofOverload = `overload\..*|listener\.[^.]+\.downstream_(cx_(total|overload_reject|overflow)|global_cx_overflow)`
)

func monitorOf(name, kind string, config obj) obj {
	return extension(name, "type.googleapis.com/envoy.extensions.resource_monitors."+kind, config)
}

func atLeast(resource string, value float64) obj {
	return obj{"name": resource, "threshold": obj{"value": value}}
}

func between(resource string, from, to float64) obj {
	return obj{"name": resource, "scaled": obj{"scaling_threshold": from, "saturation_threshold": to}}
}

func actionOn(name string, triggers ...obj) obj { return obj{"name": name, "triggers": triggers} }

// pressed is a run whose proxy takes the pressure of one resource from a file.
type pressed struct {
	*run
	file string
}

// startPressed starts the proxy with the manager at the pressure.
func startPressed(r *run, pressure string, manager obj, listeners ...obj) *pressed {
	r.Helper()
	p := &pressed{run: r, file: filepath.Join(r.TempDir(), "pressure")}
	p.write(pressure)
	monitors, _ := manager["resource_monitors"].([]obj)
	manager["resource_monitors"] = append(monitors, monitorOf(injectedResource, "injected_resource.v3.InjectedResourceConfig", obj{"filename": p.file}))
	manager["refresh_interval"] = "0.02s"
	r.start(static(listeners, []obj{r.echoCluster()}).with(obj{"overload_manager": manager}))
	share, err := strconv.ParseFloat(pressure, 64)
	if err != nil {
		r.Fatal(err)
	}
	r.await("overload."+injectedResource+".pressure", int64(share*100), int64(share*100))
	r.before = r.stats()
	return p
}

func (p *pressed) write(text string) {
	p.Helper()
	if err := os.WriteFile(p.file+"-", []byte(text), 0o600); err != nil {
		p.Fatal(err)
	}
	if err := os.Rename(p.file+"-", p.file); err != nil {
		p.Fatal(err)
	}
}

// press sets the pressure, and waits until the proxy has seen it.
func (p *pressed) press(text string, percent int64) {
	p.Helper()
	p.write(text)
	p.await("overload."+injectedResource+".pressure", percent, percent)
	p.note("pressure %s", text)
	time.Sleep(100 * time.Millisecond) // the workers are told
}

// await waits for a figure between least and most.
func (r *run) await(figure string, least, most int64) {
	r.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if n, ok := r.stats()[figure]; ok && n >= least && n <= most {
			return
		} else if time.Now().After(deadline) {
			r.Fatalf("%s: %s is %d, there %v", r.kind.name, figure, n, ok)
		}
	}
}

// unanswered is a connection that nobody answers for a while.
func (r *run) unanswered(listener, name string) *client {
	r.Helper()
	c := r.dial(listener).as(name).send("hello")
	_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	var b [5]byte
	n, err := io.ReadFull(c, b[:])
	_ = c.SetReadDeadline(time.Time{})
	if !os.IsTimeout(err) {
		r.note("%s: got %q, then %v", name, b[:n], err)
		return c
	}
	r.note("%s: waits", name)
	return c
}

// overloads: what the overload manager does to who connects.
var overloads = []scenario{
	{"overload_stops_accepting", func(r *run) {
		p := startPressed(r, "0.1", obj{"actions": []obj{actionOn(actionStop, atLeast(injectedResource, 0.9))}},
			proxyTo("l", "c"), proxyTo("m", "c").with(obj{"bypass_overload_manager": true}))
		open := r.dial("l").as("open").send("hello").expect("hello")
		p.press("0.95", 95)
		waits := r.unanswered("l", "waits")
		r.dial("m").as("bypass").send("hello").expect("hello").fin().ended()
		open.send("again").expect("again")
		r.moved(ofOverload)
		p.press("0.5", 50)
		waits.expect("hello").fin().ended()
		r.dial("l").as("later").send("hello").expect("hello").fin().ended()
		open.fin().endQuietly()
		r.moved(ofOverload)
	}},
	{"overload_stop_needs_saturation", func(r *run) {
		p := startPressed(r, "0.1", obj{"actions": []obj{actionOn(actionStop, between(injectedResource, 0.5, 0.9))}}, proxyTo("l", "c"))
		p.press("0.8", 80)
		r.dial("l").send("hello").expect("hello").fin().ended()
		r.moved(ofOverload)
		p.press("0.9", 90)
		waits := r.unanswered("l", "waits")
		p.press("0.2", 20)
		waits.expect("hello").fin().ended()
		r.moved(ofOverload)
	}},
	{"overload_rejects", func(r *run) {
		p := startPressed(r, "0.1", obj{"actions": []obj{actionOn(actionReject, atLeast(injectedResource, 0.9))}},
			proxyTo("l", "c"), proxyTo("m", "c").with(obj{"bypass_overload_manager": true}))
		open := r.dial("l").as("open").send("hello").expect("hello")
		p.press("0.95", 95)
		r.refusal("rejected", r.bound("l"))
		r.refusal("rejected too", r.bound("l"))
		r.dial("m").as("bypass").send("hello").expect("hello").fin().ended()
		open.send("again").expect("again")
		r.moved(ofOverload, ofCluster)
		p.press("0.1", 10)
		r.dial("l").as("later").send("hello").expect("hello").fin().ended()
		r.moved(ofOverload)
	}},
	{"overload_rejects_by_scale", func(r *run) {
		p := startPressed(r, "0.1", obj{"actions": []obj{actionOn(actionReject, between(injectedResource, 0.5, 0.9))}}, proxyTo("l", "c"))
		p.press("0.5", 50)
		r.dial("l").send("hello").expect("hello").fin().ended()
		for _, step := range []struct {
			text    string
			percent int64
		}{{"0.54", 54}, {"0.7", 70}, {"0.86", 86}} {
			p.press(step.text, step.percent)
			r.moved(`overload\..*`)
		}
		p.press("0.9", 90)
		r.refusal("rejected", r.bound("l"))
		r.moved(ofOverload)
	}},
	{"overload_load_shed_at_accept", func(r *run) {
		p := startPressed(r, "0.1", obj{"loadshed_points": []obj{actionOn(pointAccept, atLeast(injectedResource, 0.9))}},
			proxyTo("l", "c"), proxyTo("m", "c").with(obj{"bypass_overload_manager": true}))
		open := r.dial("l").as("open").send("hello").expect("hello")
		p.press("0.95", 95)
		r.refusal("shed", r.bound("l"))
		r.refusal("shed too", r.bound("l"))
		r.dial("m").as("bypass").send("hello").expect("hello").fin().ended()
		open.send("again").expect("again")
		r.moved(ofOverload)
		p.press("0.1", 10)
		r.dial("l").as("later").send("hello").expect("hello").fin().ended()
		r.moved(ofOverload)
	}},
	{"overload_load_shed_of_data", func(r *run) {
		at := r.logFile("log")
		proxy := tcpProxy("c").set("access_log", []obj{logTo(at, "%RESPONSE_FLAGS% %DOWNSTREAM_LOCAL_CLOSE_REASON% %UPSTREAM_LOCAL_CLOSE_REASON% %BYTES_RECEIVED% %BYTES_SENT%\n")})
		p := startPressed(r, "0.1", obj{"loadshed_points": []obj{actionOn(pointData, atLeast(injectedResource, 0.9))}},
			listener("l", chain(proxy)), proxyTo("m", "c").with(obj{"bypass_overload_manager": true}))
		open, ends, bypass := r.dial("l").as("open").send("hello").expect("hello"), r.dial("l").as("ends").send("hello").expect("hello"), r.dial("m").as("bypass").send("hello").expect("hello")
		p.press("0.95", 95)
		open.send("again").ended()
		ends.fin().ended()
		bypass.send("again").expect("again").fin().ended()
		r.dial("l").as("later").send("hello").ended()
		r.logged(at, 3)
		r.sortLast(3)
		r.moved(ofOverload, `tcp\..*\.downstream_cx_(total|overload_close|rx_bytes_total|tx_bytes_total)`, ofClusterNoBytes)
		p.press("0.1", 10)
		r.dial("l").as("restored").send("hello").expect("hello").fin().ended()
	}},
	{"overload_load_shed_of_hosts", func(r *run) {
		proxy := tcpProxy("c").set("max_connect_attempts", 3)
		p := startPressed(r, "0.1", obj{"loadshed_points": []obj{actionOn(pointPool, atLeast(injectedResource, 0.9))}},
			proxyTo("l", "c"), listener("n", chain(proxy)), proxyTo("m", "c").with(obj{"bypass_overload_manager": true}))
		open := r.dial("l").as("open").send("hello").expect("hello")
		p.press("0.95", 95)
		open.send("again").expect("again")
		for _, name := range []string{"l", "m", "n"} {
			r.dial(name).as(name).ended()
		}
		r.moved(ofOverload, ofClusterNoBytes)
		p.press("0.1", 10)
		r.dial("l").as("restored").send("hello").expect("hello").fin().ended()
	}},
	{"overload_two_triggers", func(r *run) {
		p := startPressed(r, "0.1", obj{
			"resource_monitors": []obj{monitorOf("mine", "fixed_heap.v3.FixedHeapConfig", obj{"max_heap_size_bytes": 1})},
			"actions":           []obj{actionOn(actionReject, atLeast(injectedResource, 0.9), atLeast("mine", 0.5))}}, proxyTo("l", "c"))
		r.await("overload."+actionReject+".active", 1, 1)
		r.refusal("rejected", r.bound("l"))
		p.press("0.95", 95)
		p.press("0.1", 10)
		r.refusal("still", r.bound("l"))
		r.moved(`overload\.[^m].*|listener.*`)
	}},
	{"overload_files_that_are_no_pressure", func(r *run) {
		p := startPressed(r, "0.5", obj{"actions": []obj{actionOn(actionReject, atLeast(injectedResource, 0.9))}}, proxyTo("l", "c"))
		p.press(" 0.29\n", 28)
		failed := "overload." + injectedResource + ".failed_updates"
		for _, text := range []string{"high", "1.5", "-1", ""} {
			p.write(text)
			now := r.stats()[failed]
			r.await(failed, now+2, 1<<60)
			r.note("%q: pressure %d", text, r.stats()["overload."+injectedResource+".pressure"])
		}
		p.press("0.9", 90)
		now := r.stats()[failed]
		time.Sleep(200 * time.Millisecond)
		r.note("failed since: %d", r.stats()[failed]-now)
		r.refusal("rejected", r.bound("l"))
	}},
	{"overload_handshakes_get_less_time", func(r *run) {
		secured, _ := r.behindTLS(nil, tcpProxy("c"))
		secured["transport_socket_connect_timeout"] = "60s"
		p := startPressed(r, "0.1", obj{"actions": []obj{actionOn(actionTimeouts, between(injectedResource, 0.5, 0.9)).with(obj{
			"typed_config": obj{"@type": "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
				"timer_scale_factors": []obj{{"timer": "TRANSPORT_SOCKET_CONNECT", "min_timeout": "0.1s"}}}})}}, listener("l", secured))
		silent := r.dial("l").as("silent")
		p.press("0.95", 95)
		silent.ended()
		r.dial("l").as("later").ended()
		r.moved(`overload\..*|listener\.l\.downstream_cx_(total|transport_socket_connect_timeout)`)
	}},
	{"overload_shrinks_the_heap", func(r *run) {
		p := startPressed(r, "0.1", obj{"actions": []obj{actionOn(actionShrink, atLeast(injectedResource, 0.9)).with(obj{
			"typed_config": obj{"@type": "type.googleapis.com/envoy.config.overload.v3.ShrinkHeapConfig", "timer_interval": "1s", "max_unfreed_memory_bytes": 1}})}}, proxyTo("l", "c"))
		r.note("shrunk %d times", r.stats()["overload."+actionShrink+".shrink_count"])
		p.press("0.95", 95)
		r.await("overload."+actionShrink+".shrink_count", 1, 3)
		r.dial("l").send("hello").expect("hello").fin().ended()
	}},
	{"overload_of_connections", func(r *run) {
		startPressed(r, "0.1", obj{
			"resource_monitors": []obj{monitorOf(connectionsLimit, "downstream_connections.v3.DownstreamConnectionsConfig", obj{"max_active_downstream_connections": 4})},
			"actions":           []obj{actionOn(actionReject, atLeast(connectionsLimit, 0.5))}}, proxyTo("l", "c"))
		l := r.bound("l")
		pressure := "overload." + connectionsLimit + ".pressure"
		first := r.holding(l)
		r.await(pressure, 25, 25)
		r.holding(l)
		r.await(pressure, 50, 50)
		r.await("overload."+actionReject+".active", 1, 1)
		time.Sleep(100 * time.Millisecond)
		r.refusal("third", l)
		first.fin().endQuietly()
		r.await(pressure, 25, 25)
		time.Sleep(100 * time.Millisecond)
		r.holding(l)
		r.moved(ofOverload)
	}},
	{"overload_connections_beyond_their_limit", func(r *run) {
		startPressed(r, "0.1", obj{
			"resource_monitors": []obj{monitorOf(connectionsLimit, "downstream_connections.v3.DownstreamConnectionsConfig", obj{"max_active_downstream_connections": 1})}}, proxyTo("l", "c"))
		l := r.bound("l")
		r.holding(l)
		r.refusal("second", l)
		r.refusal("third", l)
		r.await("overload."+connectionsLimit+".pressure", 100, 100)
		r.moved(ofOverload)
	}},
	{"overload_figures_by_name", func(r *run) {
		startPressed(r, "0.1", obj{
			"resource_monitors": []obj{
				monitorOf(connectionsLimit, "downstream_connections.v3.DownstreamConnectionsConfig", obj{"max_active_downstream_connections": 4}),
				monitorOf(heapResource, "fixed_heap.v3.FixedHeapConfig", obj{"max_heap_size_bytes": 1 << 40}),
				monitorOf("envoy.resource_monitors.cpu_utilization", "cpu_utilization.v3.CpuUtilizationConfig", obj{})},
			"actions": []obj{actionOn(actionReject, atLeast(injectedResource, 0.9)), actionOn(actionStop, atLeast(heapResource, 0.9)), actionOn(actionShrink, atLeast(heapResource, 0.9)),
				actionOn("envoy.overload_actions.stop_accepting_requests", atLeast(heapResource, 0.9)), actionOn("envoy.overload_actions.disable_http_keepalive", atLeast(heapResource, 0.9))},
			"loadshed_points": []obj{actionOn(pointAccept, atLeast(injectedResource, 0.9)), actionOn("mine", atLeast(injectedResource, 0.9))}}, proxyTo("l", "c"))
		r.await("overload."+injectedResource+".pressure", 10, 10)
		r.figureNames(`overload\.`)
	}},
	{"overload_manager_without_anything", func(r *run) {
		r.start(static([]obj{proxyTo("l", "c")}, []obj{r.echoCluster()}))
		r.figureNames(`(envoy\.)?overload`)
	}},
}

// figureNames notes the names of the figures that begin so.
func (r *run) figureNames(begin string) {
	r.Helper()
	body, _, err := r.proxy.get("/stats")
	if err != nil {
		r.Fatal(err)
	}
	names := regexp.MustCompile("^(" + begin + ")")
	for line := range strings.Lines(body) {
		if name, _, _ := strings.Cut(line, ": "); names.MatchString(line) {
			r.note("%s", name)
		}
	}
}

// endQuietly waits for the end of a client that has said all, and notes nothing: when
// it comes is not the story's.
func (c *client) endQuietly() {
	_, _, _ = peer.ReadToEnd(c.TCPConn, 5*time.Second)
}
