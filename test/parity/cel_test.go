package parity

import (
	"bytes"
	"encoding/json"
	"fmt"
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

// expressions: CEL in RBAC and in access logs.
var expressions = []scenario{
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
