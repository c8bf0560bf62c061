package parity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/sluice-proxy/sluice/test/celtext"
	"github.com/sluice-proxy/sluice/test/peer"
)

// parsed is a tree of CEL; nobody looks whether it makes sense.
func (r *run) parsed(text string) obj {
	r.Helper()
	b, err := protojson.Marshal(celtext.Tree(r, text))
	if err != nil {
		r.Fatal(err)
	}
	// A null that is meant would be taken for a field that is not there.
	b = bytes.ReplaceAll(b, []byte(`"nullValue":null`), []byte(`"nullValue":"NULL_VALUE"`))
	var out obj
	if err := json.Unmarshal(b, &out); err != nil {
		r.Fatal(err)
	}
	return out
}

// conditional is RBAC by one policy that is for all, on a condition.
func conditional(action string, policy obj) obj {
	return rbac(obj{"rules": obj{"action": action, "policies": obj{"p": policyOf(anyone, anyone).with(policy)}}})
}

// condition is a policy's, with a cel_config.
type condition struct {
	text   string
	config obj
}

func (c condition) policy(r *run) obj {
	p := obj{"condition": r.parsed(c.text)}
	if c.config != nil {
		p["cel_config"] = c.config
	}
	return p
}

// judgedBy tells who is let in by conditions, one listener for each.
func (r *run) judgedBy(action string, conditions []condition) {
	r.Helper()
	state := setState("on_new_connection", stateValue("plain", "hello world", texted), stateValue("address", "1.2.3.4:5", obj{"factory_key": "envoy.network.ip"}))
	shadow := rbac(obj{"stat_prefix": "q.", "shadow_rules": rules("ALLOW", anyone, anyone)})
	of := func(where string) obj {
		return obj{"metadata": obj{"filter_metadata": obj{"x": obj{"y": where, "n": 5, "deep": obj{"down": true}}}}}
	}
	var listeners []obj
	for i, c := range conditions {
		filters := chain(state, shadow, conditional(action, c.policy(r)), tcpProxy("c")).with(obj{"name": "first"})
		listeners = append(listeners, listener(fmt.Sprint("l", i), filters).with(obj{"traffic_direction": "OUTBOUND"}).with(of("listener")))
	}
	r.start(static(listeners, []obj{cluster("c", endpoint(r.serve("server", peer.Echo))).with(of("cluster"))}))
	for i, c := range conditions {
		conn := r.dial(fmt.Sprint("l", i)).send("hello")
		buf := make([]byte, 5)
		_ = conn.SetReadDeadline(time.Now().Add(4 * time.Second))
		if n, err := conn.Read(buf); n > 0 {
			r.note("%s %v: answered %q", c.text, c.config, buf[:n])
		} else {
			r.note("%s %v: %s", c.text, c.config, endText(err))
		}
		conn.Close()
	}
}

func allOf(texts ...string) (out []condition) {
	for _, t := range texts {
		out = append(out, condition{text: t})
	}
	return out
}

// printed are expressions whose values are the same on every run, at the end of an echo of 5 bytes.
var printed = []string{
	"source", "source.nope", `destination.address.startsWith("127.0.0.1:")`, "connection.mtls", "connection.requested_server_name", "connection.tls_version", "connection.termination_details",
	"upstream", "upstream.address", "upstream.transport_failure_reason", "upstream.request_attempt_count", "upstream.tls_version",
	"request.size", "request.path", "request.headers", "request.protocol", "response.size", "response.flags", "response.code", "response.headers_bytes",
	"metadata", "metadata.filter_metadata", `metadata.filter_metadata["nope"]`, `filter_state["plain"]`, `filter_state["address"]`, `filter_state["address"].ip`, `filter_state["nope"]`,
	"xds.cluster_name", "xds.route_name", "xds.filter_chain_name", "xds.listener_metadata", `xds.listener_metadata.filter_metadata["x"]["y"]`, "xds.listener_metadata.filter_metadata.x", "xds.listener_direction",
	"nope", "1", "1u", "-1", "1.5", "1.23456789", "true", "null", `"abc"`, `b"abc"`, "[1, \"a\"]", `{"a": 1}`, "{1: [true]}", "type(1)", "int", "1.0", "1e100", "1/0", `"a" + "b"`,
	`duration("0s")`, `duration("1.5s")`, `duration("90m")`, `duration("3605s")`, `duration("-1.5s")`, `duration("5us")`, `duration("-3ms")`, `timestamp("2020-01-02T03:04:05.123Z")`, `timestamp("2020-01-02T03:04:05Z")`,
	"google.protobuf.Int64Value{value: 1}", `1 == 1 ? "yes" : "no"`, "size(source)", "has(request.path)",
}

// filtered tells which logs of several, each with a filter, have a line.
func (r *run) filtered(filters ...obj) {
	r.Helper()
	var logs []obj
	path := r.logFile("all")
	for i, f := range filters {
		logs = append(logs, logTo(path, fmt.Sprintf("log %d\n", i)).with(obj{"filter": f}))
	}
	logs = append(logs, logTo(path, "the last\n"))
	r.start(static([]obj{listener("l", chain(tcpProxy("c").set("access_log", logs)))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
	r.echoed("l")
	r.logged(path, 1)
}

func celFilter(text string, more obj) obj {
	return obj{"extension_filter": obj{"name": "cel", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter", "expression": text}.with(more)}}
}

func celFormatter(config obj) []obj {
	return []obj{{"name": "envoy.formatter.cel", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.formatter.cel.v3.Cel"}.with(config)}}
}

// fileLog has a log_format.
func fileLog(path string, format obj) obj {
	return obj{"name": "log", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": path, "log_format": format}}
}

// expressions: CEL in RBAC and in access logs.
var expressions = []scenario{
	{"cel_is_printed", func(r *run) {
		path, lines := r.logFile("text"), []string{}
		for _, e := range printed {
			lines = append(lines, strings.ReplaceAll(e, "%", "%%")+" = %CEL("+e+")% %TYPED_CEL("+e+")% %CEL("+e+"):3%")
		}
		r.formatted(logTo(path, strings.Join(lines, "\n")+"\n"))
		r.logged(path, len(lines))
	}},
	{"cel_is_printed_as_json", func(r *run) {
		path, members := r.logFile("json"), obj{}
		for _, e := range printed {
			if e != "1e100" && e != "1.0" {
				members[e] = []string{"%CEL(" + e + ")%", "%TYPED_CEL(" + e + ")%", "%TYPED_CEL(" + e + "):2%", "<%TYPED_CEL(" + e + ")%>"}
			}
		}
		r.formatted(fileLog(path, obj{"json_format": members}))
		r.logged(path, 1)
	}},
	{"cel_is_printed_with_options", func(r *run) {
		path := r.logFile("text")
		r.formatted(fileLog(path, obj{"text_format_source": obj{"inline_string": `%CEL("a" + "b")% %CEL("ab".replace("a", "c"))%` + "\n"}, "formatters": celFormatter(obj{"cel_config": obj{"enable_string_concat": true, "enable_string_functions": true}})}))
		r.logged(path, 1)
	}},
	{"cel_filters_logs", func(r *run) {
		r.filtered(celFilter("true", nil), celFilter("false", nil), celFilter("nope", nil), celFilter("1", nil), celFilter("connection.id >= 0u && destination.port > 0", nil), celFilter("response.size == 5", nil),
			celFilter("response.flags != 0", nil), celFilter(`upstream.address == "1.2.3.4:5"`, nil), celFilter(`"a" + "b" == "ab"`, nil), celFilter(`"a" + "b" == "ab"`, obj{"cel_config": obj{"enable_string_concat": true}}),
			obj{"and_filter": obj{"filters": []obj{celFilter("true", nil), celFilter("request.size == 5", nil)}}}, obj{"or_filter": obj{"filters": []obj{celFilter("false", nil), celFilter("has(request.path)", nil)}}})
	}},
	{"reject_cel_in_logs", func(r *run) {
		try := func(what, words string, log obj) {
			r.note("%s", what)
			r.rejects(static([]obj{listener("l", chain(tcpProxy("c").set("access_log", []obj{log})))}, []obj{cluster("c")}), words)
		}
		const syntaxError = "Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
		for _, bad := range []struct{ text, filter, format string }{
			{"", "Not able to parse filter expression: INVALID_ARGUMENT: ERROR: <input>:1:1: " + syntaxError, "Not able to parse expression: INVALID_ARGUMENT: ERROR: <input>:1:1: " + syntaxError},
			{"1 +", "Not able to parse filter expression: INVALID_ARGUMENT: ERROR: <input>:1:4: " + syntaxError, "Not able to parse expression: INVALID_ARGUMENT: ERROR: <input>:1:4: " + syntaxError},
			{"nosuch(1)", "failed to create an expression: No overload found in reference resolve step for nosuch", "failed to create an expression: No overload found in reference resolve step for nosuch"},
			{"[1].map(x, x)", "failed to create an expression: Comprehension support is disabled", "failed to create an expression: Comprehension support is disabled"},
		} {
			try("filter "+bad.text, bad.filter, logTo("/dev/null", "x").with(obj{"filter": celFilter(bad.text, nil)}))
			try("format "+bad.text, bad.format, logTo("/dev/null", "%CEL("+bad.text+")%"))
		}
		try("deep", "Not able to parse filter expression: CANCELLED: Expression recursion limit exceeded. limit: 32", logTo("/dev/null", "x").with(obj{"filter": celFilter(strings.Repeat("(", 40)+"1"+strings.Repeat(")", 40), nil)}))
		try("no such formatter", "Formatter not found: nope", fileLog("/dev/null", obj{"text_format_source": obj{"inline_string": "x"}, "formatters": []obj{{"name": "nope", "typed_config": obj{"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "x"}}}}))
	}},
	{"cel_conditions_by_attributes", func(r *run) {
		r.judgedBy("ALLOW", allOf(
			`source.address.startsWith("127.0.0.1:")`, `source.address == "127.0.0.1"`, `source.port > 1023`, `source.port > 1023u`, `source["port"] == 5`, `source.nope == 5`, `has(source.nope)`,
			`destination.address.matches("^127[.]0[.]0[.]1:[0-9]+$")`, `destination.port in [1, 2]`, `has(destination.port)`,
			`connection.mtls`, `!connection.mtls`, `connection.id >= 0u`, `connection.requested_server_name == ""`, `connection.tls_version == "TLSv1.3"`, `connection.tls_version != "TLSv1.3"`,
			`has(connection.subject_peer_certificate)`, `has(connection.termination_details)`, `has(connection.transport_failure_reason)`,
			`upstream.address.startsWith("127.0.0.1:")`, `upstream.transport_failure_reason == ""`, `upstream.request_attempt_count == 1u`, `has(upstream.tls_version)`,
			`has(request.size)`, `has(request.duration)`, `has(request.path)`, `request.path == "/"`, `request.headers["x"] == "y"`, `"x" in request.headers`, `has(request.headers)`,
			`request.time > timestamp("2020-01-01T00:00:00Z")`, `request.time.getFullYear() > 2020`, `has(request.protocol)`, `response.flags == 0`, `has(response.code)`, `response.size == 0`,
			`metadata.filter_metadata["envoy.filters.network.rbac"]["shadow_engine_result"] == "allowed"`, `metadata.filter_metadata["nope"]["x"] == "y"`, `has(metadata.filter_metadata)`,
			`filter_state["plain"] == b"hello world"`, `filter_state["plain"] == "hello world"`, `filter_state.address.ip == "1.2.3.4"`, `filter_state["address"]["port"] == 5`, `filter_state["nope"] == b""`,
			`xds.cluster_name == "c"`, `xds.cluster_metadata.filter_metadata.x.y == "cluster"`, `xds.filter_chain_name == "first"`, `xds.listener_metadata.filter_metadata["x"].n == 5`,
			`xds.listener_metadata.filter_metadata.x.deep.down`, `xds.listener_direction == 2`, `has(xds.route_name)`, `has(xds.listener_name)`, `has(xds.node)`))
	}},
	{"cel_conditions_by_value", func(r *run) {
		r.judgedBy("ALLOW", allOf(
			"true", "false", "1", `"true"`, "null", "[true]", "nope", "nope.x", "nope || true", "true || nope", "nope && false", "!nope", "true && 1", "1 || true",
			"1 == 1.0", "1 == 1u", `1 == "a"`, `1 != "a"`, "1 < 2.5", `"a" < 1`, "1/0 == 1", "1 + 1 == 2", "1 + 1.0 == 2.0", "9223372036854775807 + 1 > 0", "-5 % 3 == -2",
			`"a" + "b" == "ab"`, `b"a" + b"b" == b"ab"`, "[1] + [2] == [1, 2]", `duration("1h") + duration("1m") == duration("61m")`, `[1, 2][1] == 2`, "[1][5] == 1", `{"a": 1}.a == 1`, `{"a": 1}["b"] == 1`, "{1: 2}[1.0] == 2",
			`"abc".contains("b")`, `contains("abc", "b")`, `"abc".endsWith("c")`, `"abc".matches("b")`, `matches("abc", source.address)`, `"a".startsWith(1)`, `size("äö") == 2`, "size([1]) == 1", "size(1) == 1", "size(source) == 0",
			`int("5") == 5`, `int("x") == 5`, "int(5.9) == 5", "uint(-5) == 5u", `double("1.5") == 1.5`, `bytes("a") == b"a"`, `bool("true")`, "dyn(5) == 5", `type("a") == string`, "type(1) == int",
			`timestamp("2020-01-01T00:00:00Z").getDayOfWeek() == 3`, `timestamp("2020-01-01T00:00:00Z").getHours("America/New_York") == 19`, `duration("3661s").getMinutes() == 61`, `timestamp("x") > request.time`,
			`re.extract("abc", "b(c)", "<\\1>") == "<c>"`, `re.capture("abc", "a(b)c") == "b"`, `re.capture("abc", "b(c)") == "c"`, `re.captureN("abc", "a(?P<x>b)(c)")["x"] == "b"`, `re.captureN("abc", "a(?P<x>b)(c)")["2"] == "c"`,
			"true ? true : nope", "1 ? true : true", "source == source", `"address" in source`, "google.protobuf.Int64Value{value: 1} == 1", `google.protobuf.Duration{seconds: 5} == duration("5s")`))
	}},
	{"cel_conditions_with_strings", func(r *run) {
		all := obj{"enable_string_conversion": true, "enable_string_concat": true, "enable_string_functions": true}
		var cases []condition
		for _, text := range []string{
			`"a" + "b" == "ab"`, `b"a" + b"b" == b"ab"`, "[1] + [2] == [1, 2]", `string(1) == "1"`, `string(1.5) == "1.5"`, `string(true) == "true"`, `string(b"a") == "a"`, `string(timestamp("2020-01-01T00:00:00Z")) == "2020-01-01T00:00:00Z"`, `string(duration("90m")) == "5400s"`,
			`"abc".replace("b", "x") == "axc"`, `"aaa".replace("a", "b", 2) == "bba"`, `"aB".upperAscii() == "AB"`, `"aB".lowerAscii() == "ab"`, `"a,b".split(",") == ["a", "b"]`, `["a", "b"].join("-") == "a-b"`, `" a ".trim() == "a"`,
			`"abc".substring(1) == "bc"`, `"abc".substring(0, 2) == "ab"`, `"abc".charAt(1) == "b"`, `"abc".indexOf("c") == 2`, `"abca".lastIndexOf("a") == 3`, `"abc".reverse() == "cba"`, `strings.quote("a") == "\"a\""`, `"%s %d".format(["a", 1]) == "a 1"`,
		} {
			cases = append(cases, condition{text, all})
		}
		r.judgedBy("ALLOW", append(cases, condition{`"a" + "b" == "ab"`, obj{"enable_string_concat": true}}, condition{`"a" + "b" == "ab"`, obj{"enable_string_functions": true}}))
	}},
	{"cel_conditions_of_denials", func(r *run) {
		r.judgedBy("DENY", allOf("true", "false", "nope", "1", `source.port > 1023`, "has(request.path)"))
	}},
	{"cel_condition_is_logged", func(r *run) {
		log := r.judged(conditional("ALLOW", condition{text: "destination.port == 1"}.policy(r)))
		r.speak()
		r.logged(log, 1)
		r.moved(ofRBAC, ofListener)
	}},
	{"cel_condition_shadow", func(r *run) {
		log := r.judged(rbac(obj{"shadow_rules": obj{"action": "DENY", "policies": obj{"p": policyOf(anyone, anyone).with(condition{text: "source.port > 0"}.policy(r))}}}))
		r.speak()
		r.logged(log, 1)
		r.moved(ofRBAC, ofListener)
	}},
	{"cel_checked_condition_is_not_looked_at", func(r *run) {
		log := r.judged(conditional("ALLOW", obj{"checked_condition": obj{"expr": r.parsed("false")}}))
		r.speak()
		r.logged(log, 1)
		r.moved(ofRBAC, ofListener)
	}},
	{"reject_cel_conditions", func(r *run) {
		for _, bad := range []struct {
			condition any
			words     string
		}{
			{"nosuch(1)", "failed to create an expression: No overload found in reference resolve step for nosuch"},
			{"source.address.startsWith()", "failed to create an expression: No overload found in reference resolve step for startsWith"},
			{"string(1) == \"1\"", "failed to create an expression: No overload found in reference resolve step for string"},
			{"a.b.c.d(1)", "failed to create an expression: No overload found in reference resolve step for d"},
			{"[1].exists(x, x == 1)", "failed to create an expression: Comprehension support is disabled"},
			{`matches(source.address, "(a")`, "failed to create an expression: invalid regular expression: missing ): (a"},
			{"foo.Bar{}", "failed to create an expression: Invalid struct creation: missing type info for 'foo.Bar'"},
			{"google.protobuf.Int64Value{nope: 1}", "failed to create an expression: Invalid message creation: field 'nope' not found in 'google.protobuf.Int64Value'"},
			{obj{}, "failed to create an expression: Invalid empty expression"},
			{obj{"const_expr": obj{}}, "failed to create an expression: unspecified constant"},
			{obj{"ident_expr": obj{}}, "failed to create an expression: Invalid expression: identifier 'name' must not be empty"},
			{obj{"select_expr": obj{"field": "a"}}, "failed to create an expression: invalid expression: select must specify an operand"},
			{obj{"call_expr": obj{"function": "!_"}}, "failed to create an expression: unexpected number of args for builtin not operator"},
			{obj{"struct_expr": obj{"entries": []obj{{}}}}, "failed to create an expression: Map entry missing key"},
		} {
			r.note("%v", bad.condition)
			tree, ok := bad.condition.(obj)
			if !ok {
				tree = r.parsed(bad.condition.(string))
			}
			r.rejects(static([]obj{listener("l", chain(conditional("ALLOW", obj{"condition": tree}), tcpProxy("c")))}, []obj{cluster("c")}), bad.words)
		}
	}},
}
