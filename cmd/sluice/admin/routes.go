package admin

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// route is one path of the admin server.
type route struct {
	path   string
	help   string
	params [][2]string
	// mutates says that only POST is allowed.
	mutates bool
	// form says that parameters may come as the body.
	form   bool
	handle func(a *answer, q query)
}

// table holds every path, sorted, with Envoy's help texts.
func (s *Server) table() []*route {
	statsParams := [][2]string{
		{"usedonly", "Only include stats that have been written by system since restart"},
		{"filter", "Regular expression (Google re2) for filtering stats"},
		{"invert_filter", "Invert the filter regex"},
	}
	prometheusParams := append(slices.Clip(statsParams),
		[2]string{"text_readouts", "Render text_readouts as new gauges with value 0 (increases Prometheus data size)"},
		[2]string{"histogram_buckets", "Histogram bucket display mode; One of (cumulative, summary)"})
	return []*route{
		{path: "/", help: "Admin home page", handle: s.home},
		{path: "/allocprofiler", help: "enable/disable the allocation profiler (if supported)", mutates: true, handle: s.allocProfiler, params: [][2]string{
			{"enable", "enable/disable the allocation profiler; One of (y, n)"}}},
		{path: "/certs", help: "print certs on machine", handle: s.certs},
		{path: "/clusters", help: "upstream cluster status", handle: s.clusters, params: [][2]string{
			{"filter", "Regular expression (Google re2) for filtering clusters by name"},
			{"format", "File format to use; One of (text, json)"}}},
		{path: "/config_dump", help: "dump current configs", handle: s.configDump, params: [][2]string{
			{"resource", "The resource to dump"},
			{"mask", "The mask to apply. When both resource and mask are specified, the mask is applied to every element in the desired repeated field so that only a subset of fields are returned. The mask is parsed as a Protobuf::FieldMask"},
			{"name_regex", "Dump only the currently loaded configurations whose names match the specified regex. Can be used with both resource and mask query parameters."},
			{"include_eds", "Dump currently loaded configuration including EDS. See the response definition for more information"}}},
		{path: "/connections", help: "print every connection: its ends, and for each direction the path, the reason for it, and bytes (JSON)", handle: s.connections},
		{path: "/contention", help: "dump current Envoy mutex contention stats (if enabled)", handle: s.contention},
		{path: "/cpuprofiler", help: "enable/disable the CPU profiler", mutates: true, handle: s.cpuProfiler, params: [][2]string{
			{"enable", "enables the CPU profiler; One of (y, n)"}}},
		{path: "/drain_listeners", help: "drain listeners", mutates: true, handle: s.drainListeners, params: [][2]string{
			{"graceful", "When draining listeners, enter a graceful drain period prior to closing listeners. This behaviour and duration is configurable via server options or CLI"},
			{"skip_exit", "When draining listeners, drain the connections but never stop the listeners. The graceful parameter has no effect when this is set, since the drain period only delays stopping the listeners"},
			{"inboundonly", "Drains all inbound listeners. traffic_direction field in envoy_v3_api_msg_config.listener.v3.Listener is used to determine whether a listener is inbound or outbound."}}},
		{path: "/healthcheck/fail", help: "cause the server to fail health checks", mutates: true, handle: s.healthcheckFail},
		{path: "/healthcheck/ok", help: "cause the server to pass health checks", mutates: true, handle: s.healthcheckOK},
		{path: "/heap_dump", help: "dump current Envoy heap (if supported)", handle: s.heapDump},
		{path: "/heapprofiler", help: "enable/disable the heap profiler", mutates: true, handle: s.heapProfiler, params: [][2]string{
			{"enable", "enable/disable the heap profiler; One of (y, n)"}}},
		{path: "/help", help: "print out list of admin commands", handle: s.help},
		{path: "/hot_restart_version", help: "print the hot restart compatibility version", handle: s.hotRestartVersion},
		{path: "/init_dump", help: "dump current Envoy init manager information (experimental)", handle: s.initDump, params: [][2]string{
			{"mask", "The desired component to dump unready targets. The mask is parsed as a ProtobufWkt::FieldMask"}}},
		{path: "/listeners", help: "print listener info", handle: s.listeners, params: [][2]string{
			{"format", "File format to use; One of (text, json)"}}},
		{path: "/logging", help: "query/change logging levels", mutates: true, handle: s.logging, params: [][2]string{
			{"paths", "Change multiple logging levels by setting to <logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>."},
			{"group", "Change given logger group to desired level, set to <logger_group_name>:<desired_level>. logger_group_name must be a logger name."},
			{"level", "desired logging level, this will change all loggers's level; One of (, trace, debug, info, warning, error, critical, off)"}}},
		{path: "/memory", help: "print current allocation/heap usage", handle: s.memory},
		{path: "/quitquitquit", help: "exit the server", mutates: true, handle: s.quit},
		{path: "/ready", help: "print server state, return 200 if LIVE, otherwise return 503", handle: s.ready},
		{path: "/reopen_logs", help: "reopen access logs", mutates: true, handle: s.reopenLogs},
		{path: "/reset_counters", help: "reset all counters to zero", mutates: true, handle: s.resetCounters},
		{path: "/routes", help: "print the kernel's routes of captured programs and of what comes from outside, or what becomes of one destination (JSON)", handle: s.captureRoutes, params: [][2]string{
			{"destination", "An address with port; print what becomes of a captured program's connection to it"},
			{"inbound", "The same for a connection that comes from outside"}}},
		{path: "/runtime", help: "print runtime values", handle: s.runtime},
		{path: "/runtime_modify", help: "Adds or modifies runtime values as passed in query parameters. To delete a previously added key, use an empty string as the value. Note that deletion only applies to overrides added via this endpoint; values loaded from disk can be modified via override but not deleted. E.g. ?key1=value1&key2=value2...", mutates: true, form: true, handle: s.runtimeModify},
		{path: "/server_info", help: "print server version/status information", handle: s.serverInfo},
		{path: "/splice", help: "print whether the kernel paths are in use, and what their self-tests found (JSON)", handle: s.splice},
		{path: "/stats", help: "print server stats", handle: s.stats, params: append(slices.Clip(statsParams),
			[2]string{"format", "Format to use; One of (html, active-html, text, json)"},
			[2]string{"type", "Stat types to include.; One of (All, Counters, Histograms, Gauges, TextReadouts)"},
			[2]string{"histogram_buckets", "Histogram bucket display mode; One of (cumulative, disjoint, detailed, summary)"})},
		{path: "/stats/prometheus", help: "print server stats in prometheus format", handle: s.statsPrometheus, params: prometheusParams},
		{path: "/stats/recentlookups", help: "Show recent stat-name lookups", handle: s.recentLookups},
		{path: "/stats/recentlookups/clear", help: "clear list of stat-name lookups and counter", mutates: true, handle: s.clearLookups},
		{path: "/stats/recentlookups/disable", help: "disable recording of reset stat-name lookup names", mutates: true, handle: s.trackLookups(false)},
		{path: "/stats/recentlookups/enable", help: "enable recording of reset stat-name lookup names", mutates: true, handle: s.trackLookups(true)},
	}
}

func (s *Server) help(a *answer, _ query) {
	fmt.Fprint(a, "admin commands are:\n")
	for _, r := range s.table() {
		post := ""
		if r.mutates {
			post = " (POST)"
		}
		fmt.Fprintf(a, "  %s%s: %s\n", r.path, post, r.help)
		for _, p := range r.params {
			fmt.Fprintf(a, "      %s: %s\n", p[0], p[1])
		}
	}
}

func (s *Server) home(a *answer, _ query) {
	a.contentType = "text/html; charset=UTF-8"
	fmt.Fprint(a, "<!DOCTYPE html>\n<html lang='en'>\n<head>\n  <title>Sluice Admin</title>\n</head>\n<body>\n  <table class='home-table'>\n    <thead><tr><th>Command</th><th>Description</th></tr></thead>\n    <tbody>\n")
	for _, r := range s.table() {
		name := strings.TrimPrefix(r.path, "/")
		cell := fmt.Sprintf("<a href='%s'>%s</a>", name, name)
		switch {
		case name == "":
			continue
		case r.mutates:
			cell = fmt.Sprintf("<form action='%s' method='post'><button>%s</button></form>", name, name)
		}
		fmt.Fprintf(a, "<tr><td>%s</td><td>%s</td></tr>\n", cell, html.EscapeString(r.help))
	}
	fmt.Fprint(a, "    </tbody>\n  </table>\n</body>\n</html>\n")
}
