package parity

import (
	"regexp"
	"strings"

	"github.com/sluice-proxy/sluice/test/peer"
)

// valued are commands whose values are the same on every run.
var valued = []string{
	"LISTENER_NAME", "FILTER_CHAIN_NAME", "METADATA(LISTENER:x:y)", "METADATA(LISTENER:x)", "METADATA(LISTENER:none)", "METADATA(LISTENER_FILTER_CHAIN:x:y)",
	"FILTER_STATE(plain)", "FILTER_STATE(plain:PLAIN):3", "FILTER_STATE(plain:FIELD:x)", "FILTER_STATE(address)", "FILTER_STATE(address:PLAIN)", "FILTER_STATE(address:FIELD:ip)",
	"ENVIRONMENT(SLUICE_HAS_NO_SUCH_VARIABLE)", "QUERY_PARAMS", "QUERY_PARAMS(DECODED):2", "UPSTREAM_LOCAL_IP_SAN", "UPSTREAM_PEER_CERT_V_START", "UPSTREAM_PEER_CERT_V_END(%Y)",
	"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(33)", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(8)",
	"COMMON_DURATION(DS_CX_BEG:DS_RX_BEG:us)", "COMMON_DURATION(DS_CX_END:DS_CX_END)", "COMMON_DURATION(DS_CX_BEG:US_HS_END:ms)", "COMMON_DURATION(x:y:ns)", "COMMON_DURATION(DS_CX_BEG:ms)",
	`COALESCE({"operators":["PROTOCOL","UPSTREAM_CLUSTER"]})`, `COALESCE({"operators":["BYTES_SENT","UPSTREAM_CLUSTER"]})`, `COALESCE({"operators":["PROTOCOL"]})`,
	`COALESCE({"operators":[{"command":"REQ","param":":authority"},{"command":"FILTER_STATE","param":"plain:PLAIN","max_length":3},"DURATION"]})`,
}

// formatted logs one echo, by way of a listener and a chain that have metadata and
// filters that set filter state.
func (r *run) formatted(log obj) {
	state := setState("on_new_connection", stateValue("plain", "hello world", texted), stateValue("address", "1.2.3.4", obj{"factory_key": "envoy.network.ip"}))
	of := func(where string) obj { return obj{"filter_metadata": obj{"x": obj{"y": where}}} }
	c := chain(state, tcpProxy("c").set("access_log", []obj{log})).with(obj{"name": "first", "metadata": of("chain")})
	r.start(static([]obj{listener("l", c).with(obj{"metadata": of("listener")})}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
	r.echoed("l")
}

// formats: what the commands of access logs print, and which are refused.
var formats = []scenario{
	{"log_format_commands", func(r *run) {
		path, lines := r.logFile("text"), []string{}
		for _, command := range valued {
			lines = append(lines, strings.ReplaceAll(command, "%", "%%")+" = %"+command+"%")
		}
		r.formatted(logTo(path, strings.Join(lines, "\n")+"\n"))
		r.logged(path, len(valued))
	}},
	{"log_format_commands_as_json", func(r *run) {
		path, members := r.logFile("json"), obj{}
		for _, command := range valued {
			members[command] = "%" + command + "%"
		}
		r.formatted(obj{"name": "log", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": path, "log_format": obj{"json_format": members}}})
		r.logged(path, 1)
	}},
	// How long is chance: only whether there is a number is compared.
	{"log_format_durations", func(r *run) {
		path, lines := r.logFile("text"), []string{}
		for _, from := range []string{"DS_CX_BEG", "DS_RX_BEG", "US_CX_BEG", "US_CX_END", "US_RX_BEG", "DS_CX_END"} {
			for _, to := range []string{"DS_CX_BEG", "US_CX_BEG", "US_CX_END", "US_TX_END", "DS_CX_END"} {
				lines = append(lines, from+" "+to+" %COMMON_DURATION("+from+":"+to+":ns)%")
			}
		}
		r.formatted(logTo(path, strings.Join(lines, "\n")+"\n"))
		r.loggedAs(path, len(lines), regexp.MustCompile(` [0-9]+$`), " some")
	}},
	// The digits are chance, their number is not.
	{"log_format_times", func(r *run) {
		path := r.logFile("text")
		r.formatted(logTo(path, "%START_TIME% %START_TIME(%Ez %E4Y %E0S %E3S %E12S %E3f %ET)% %START_TIME(%0f %1f %9f %f)% %START_TIME(%% %s %H:%M %j)% %EMIT_TIME(%Y)%\n"))
		r.loggedAs(path, 1, regexp.MustCompile(`[0-9]`), "9")
	}},
	{"log_formats_refused", func(r *run) {
		for _, bad := range []struct{ command, words string }{
			{"FILTER_STATE(a:FIELD)", "Invalid filter state serialize type, FIELD should be used with the field name."},
			{"FILTER_STATE(a:PLAIN:b)", "Invalid filter state serialize type, FIELD should be used with the field name."},
			{"START_TIME(%Y%n)", "Invalid header configuration. Format string contains newline."},
			{"COMMON_DURATION(a:b:c:ms)", "Invalid common duration configuration: a:b:c:ms."},
			{"PATH(NQ:X)", "Invalid PATH option: 'X', only 'ORIG'/'PATH'/'ORIG_OR_PATH' are allowed"},
			{"LISTENER_NAME(x)", "LISTENER_NAME does not take any parameters or length"},
			{"COALESCE(x)", "COALESCE: failed to parse JSON configuration: "},
			{`COALESCE({"operators":[]})`, "COALESCE: 'operators' array must not be empty"},
			{`COALESCE({"operators":["NOPE"]})`, "COALESCE: failed to parse operator at index 0: unknown command: 'NOPE'"},
			{`COALESCE({"operators":["DURATION","REQ"]})`, "COALESCE: failed to parse operator at index 1: REQ requires parameters"},
		} {
			r.note("%s", bad.command)
			p := tcpProxy("c").set("access_log", []obj{logTo("/dev/null", "%"+bad.command+"%")})
			r.rejects(static([]obj{listener("l", chain(p))}, []obj{cluster("c")}), bad.words)
		}
	}},
}

// loggedAs is logged with what is chance replaced.
func (r *run) loggedAs(path string, n int, chance *regexp.Regexp, by string) {
	at := len(r.record)
	r.logged(path, n)
	for i := range r.record[at:] {
		r.record[at+i] = chance.ReplaceAllString(r.record[at+i], by)
	}
}
