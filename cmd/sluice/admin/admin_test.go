package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/sluice-proxy/sluice/api"
)

// Codes, types and texts were measured on Envoy 1.40.
func TestAnswers(t *testing.T) {
	const usage = "\n\nusage: /logging?<name>=<level> (change single level)\n"
	tests := []struct {
		name, method, target string
		state                State
		code                 int
		contentType, body    string // body is a prefix
	}{
		{"ready", "GET", "/ready", Live, 200, textPlain, "LIVE\n"},
		{"any method but a mutation's", "PUT", "/ready", Live, 200, textPlain, "LIVE\n"},
		{"not ready: clusters", "GET", "/ready", PreInitializing, 503, textPlain, "PRE_INITIALIZING\n"},
		{"not ready: listeners", "GET", "/ready", Initializing, 503, textPlain, "INITIALIZING\n"},
		{"unknown path", "GET", "/nope", Live, 404, textPlain, "invalid path. admin commands are:\n  /: Admin home page\n"},
		{"a slash too many", "GET", "/ready/", Live, 404, textPlain, "invalid path. admin commands are:\n"},
		{"help", "GET", "/help", Live, 200, textPlain, "admin commands are:\n  /: Admin home page\n"},
		{"home", "GET", "/", Live, 200, "text/html; charset=UTF-8", "<!DOCTYPE html>"},
		{"mutation by GET", "GET", "/quitquitquit", Live, 405, textPlain, "Method GET not allowed, POST required."},
		{"mutation by DELETE", "DELETE", "/reset_counters", Live, 405, textPlain, "Method DELETE not allowed, POST required."},
		{"logging by GET", "GET", "/logging", Live, 405, textPlain, "Method GET not allowed, POST required."},
		{"quit", "POST", "/quitquitquit", Live, 200, textPlain, "OK\n"},
		{"reset", "POST", "/reset_counters", Live, 200, textPlain, "OK\n"},
		{"levels", "POST", "/logging", Live, 200, textPlain, "active loggers:\n  main: info\n  xds: info\n\n"},
		{"all levels", "POST", "/logging?level=debug", Live, 200, textPlain, "active loggers:\n  main: debug\n  xds: debug\n\n"},
		{"one level", "POST", "/logging?xds=debug", Live, 200, textPlain, "active loggers:\n  main: info\n  xds: debug\n\n"},
		{"some levels", "POST", "/logging?paths=xds:debug,main:debug", Live, 200, textPlain, "active loggers:\n  main: debug\n  xds: debug\n\n"},
		{"unknown level", "POST", "/logging?level=loud", Live, 400, textPlain, "error: unknown logger level" + usage},
		{"unknown logger", "POST", "/logging?paths=nope:info", Live, 400, textPlain, "error: unknown logger name" + usage},
		{"logger without level", "POST", "/logging?paths=xds", Live, 400, textPlain, "error: empty logger name or empty logger level" + usage},
		{"hot restart", "GET", "/hot_restart_version", Live, 200, textPlain, "disabled"},
		{"no mutex tracing", "GET", "/contention", Live, 200, textPlain, "Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing."},
		{"a profiler without a word", "POST", "/cpuprofiler", Live, 400, textPlain, "?enable=<y|n>\n"},
		{"a profiler neither on nor off", "POST", "/cpuprofiler?enable=x", Live, 400, textPlain, "?enable=<y|n>\n"},
		{"the profiler off", "POST", "/cpuprofiler?enable=n", Live, 200, textPlain, "OK\n"},
		{"heap profiler", "POST", "/heapprofiler?enable=y", Live, 501, textPlain, "The current build does not support heap profiler"},
		{"heap dump", "GET", "/heap_dump", Live, 200, textPlain, "\x1f\x8b"},
		{"reopen logs", "POST", "/reopen_logs", Live, 200, textPlain, "OK\n"},
		{"reopen logs by GET", "GET", "/reopen_logs", Live, 405, textPlain, "Method GET not allowed, POST required."},
		{"lookups", "GET", "/stats/recentlookups", Live, 200, textPlain, "Lookup tracking is not enabled. Use /stats/recentlookups/enable to enable.\n\ntotal: 0\n"},
		{"track lookups", "POST", "/stats/recentlookups/enable", Live, 200, textPlain, "OK\n"},
		{"forget lookups", "POST", "/stats/recentlookups/clear", Live, 200, textPlain, "OK\n"},
		{"stats for a browser", "GET", "/stats?format=html", Live, 200, "text/html; charset=UTF-8", "<!DOCTYPE html>"},
		{"a resource that there is not", "GET", "/config_dump?resource=foo", Live, 404, plainText, "foo not found in config dump"},
		{"nothing unready", "GET", "/init_dump", Live, 200, applicationJSON, "{}"},
		{"certs", "GET", "/certs", Live, 200, applicationJSON, "{\n \"certificates\": []\n}\n"},
		{"memory", "GET", "/memory", Live, 200, applicationJSON, "{\n \"allocated\": \""},
		{"bad filter", "GET", "/stats?filter=(", Live, 400, textPlain, "Invalid re2 regex: missing ): ("},
		{"bad filter in prometheus", "GET", "/stats/prometheus?filter=(", Live, 400, textPlain, "Invalid re2 regex: missing ): ("},
		{"bad cluster filter", "GET", "/clusters?filter=(", Live, 400, textPlain, "Invalid re2 regex"},
		{"bad format", "GET", "/stats?format=bogus", Live, 400, textPlain, "usage: /stats?format="},
		{"bad type", "GET", "/stats?type=bogus", Live, 400, textPlain, "invalid &type= param"},
		{"bad buckets", "GET", "/stats?histogram_buckets=bogus", Live, 400, textPlain, "usage: /stats?histogram_buckets="},
		{"nothing matches", "GET", "/stats?filter=nope", Live, 200, textPlain, ""},
		{"nothing matches in JSON", "GET", "/stats?format=json&filter=nope", Live, 200, applicationJSON, `{"stats":[]}`},
		{"no connections", "GET", "/connections", Live, 200, applicationJSON, "[]\n"},
		{"unknown format of listeners is text", "GET", "/listeners?format=foo", Live, 200, textPlain, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.state = tt.state
			r := f.do(tt.method, tt.target)
			b, _ := io.ReadAll(r.Body)
			if r.StatusCode != tt.code || r.Header.Get("content-type") != tt.contentType {
				t.Errorf("%d %q, want %d %q", r.StatusCode, r.Header.Get("content-type"), tt.code, tt.contentType)
			}
			if !strings.HasPrefix(string(b), tt.body) || tt.body == "" && len(b) > 0 {
				t.Errorf("body %q, want %q", b, tt.body)
			}
			if tt.target == "/quitquitquit" && f.quit != btoi(tt.method == "POST") {
				t.Errorf("quit called %d times", f.quit)
			}
		})
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestHealthcheckFailDrainsALiveServer(t *testing.T) {
	f := newFixture(t)
	f.do("POST", "/healthcheck/fail")
	if r := f.do("GET", "/ready"); r.StatusCode != 503 {
		t.Errorf("/ready = %d", r.StatusCode)
	}
	if got := f.get(t, "/stats?filter=^server.(live|state)$"); got != "server.live: 0\nserver.state: 1\n" {
		t.Errorf("stats %q", got)
	}
	f.state = Initializing
	if got, _ := io.ReadAll(f.do("GET", "/ready").Body); string(got) != "INITIALIZING\n" {
		t.Errorf("not live yet: %q", got)
	}
	f.state = Live
	f.do("POST", "/healthcheck/ok")
	if got := f.get(t, "/ready"); got != "LIVE\n" {
		t.Errorf("after ok: %q", got)
	}
}

func TestAllowPathsMatchPathAndQuery(t *testing.T) {
	f := newFixture(t, func(o *Options) {
		o.Bootstrap = &bootstrapv3.Bootstrap{Admin: &bootstrapv3.Admin{AllowPaths: []*matcherv3.StringMatcher{
			{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: "/ready"}},
			{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "/STATS"}, IgnoreCase: true},
			{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "/mem.*y"}}},
		}}}
	})
	for target, code := range map[string]int{
		"/ready": 200, "/ready?x=1": 403, "/stats?filter=x": 200, "/clusters": 403, "/nope": 403,
		"/memory": 200, "/memory2": 403, "/quitquitquit": 403,
	} {
		r := f.do("GET", target)
		b, _ := io.ReadAll(r.Body)
		if r.StatusCode != code {
			t.Errorf("%s = %d, want %d", target, r.StatusCode, code)
		}
		if want := "request to path " + target + " not allowed"; code == 403 && string(b) != want {
			t.Errorf("%s: %q, want %q", target, b, want)
		}
	}
	_, err := New(Options{Stats: f.store, Bootstrap: &bootstrapv3.Bootstrap{Admin: &bootstrapv3.Admin{AllowPaths: []*matcherv3.StringMatcher{
		{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "["}}}}}}})
	if err == nil || !strings.Contains(err.Error(), "admin.allow_paths[0]: missing ]: [") {
		t.Errorf("bad pattern: %v", err)
	}
}

func TestServerInfo(t *testing.T) {
	f := newFixture(t, func(o *Options) {
		o.Flags = map[string]string{
			"base-id": "77", "config-path": "b.yaml", "drain-time-s": "45", "file-flush-interval-msec": "1000",
			"mode": "init_only", "drain-strategy": "immediate", "local-address-ip-version": "v6",
			"disable-hot-restart": "true", "stats-tag": "a:b,c:d", "splice": "auto",
		}
	})
	var got struct {
		Version, State string
		Options        map[string]any `json:"command_line_options"`
		Node           struct{ ID string }
	}
	if err := json.Unmarshal([]byte(f.get(t, "/server_info")), &got); err != nil {
		t.Fatal(err)
	}
	if got.Version != testVersion || got.State != "LIVE" || got.Node.ID != "n1" {
		t.Errorf("%+v", got)
	}
	for k, want := range map[string]string{
		"base_id": "77", "concurrency": "2", "config_path": "b.yaml", "drain_time": "45s", "file_flush_interval": "1s",
		"mode": "InitOnly", "drain_strategy": "Immediate", "local_address_ip_version": "v6", "disable_hot_restart": "true",
		"stats_tag": "[a:b c:d]", "config_yaml": "",
	} {
		if s := fmt.Sprint(got.Options[k]); s != want {
			t.Errorf("%s = %s, want %s", k, s, want)
		}
	}
}

// serve runs a real server and returns its address; it ends with the test.
func serve(t *testing.T, f *fixture) string {
	t.Helper()
	l, err := Listen(t.Context(), ap("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func rawGet(t *testing.T, addr, target string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", target)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The requests are pilot-agent's, byte for byte.
func TestPilotAgentsProbeArrivesRaw(t *testing.T) {
	f := newFixture(t)
	addr := serve(t, f)
	f.store.Scope("cluster_manager.cds").Counter("update_success").Inc()
	f.store.Scope("cluster_manager.cds").Counter("update_rejected")
	f.store.Scope("listener_manager.lds").Counter("update_success").Inc()
	got := rawGet(t, addr, `/stats?usedonly&filter=^(cluster_manager\.cds|listener_manager\.lds)\.(update_success|update_rejected)$`)
	if want := "cluster_manager.cds.update_success: 1\nlistener_manager.lds.update_success: 1\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	got = rawGet(t, addr, `/stats?usedonly&filter=^(server\.state|listener_manager\.workers_started)`)
	if want := "listener_manager.workers_started: 1\nserver.state: 0\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := rawGet(t, addr, `/stats?usedonly&filter=%5Eserver%5C.live`); got != "server.live: 1\n" {
		t.Errorf("escaped: %q", got)
	}
}

func TestAClientThatDoesNotReadHoldsNobodyUp(t *testing.T) {
	f := newFixture(t)
	sc := f.store.Scope("big")
	for i := range 100_000 {
		sc.Counter(fmt.Sprintf("a_rather_long_name_of_a_counter_%d", i))
	}
	addr := serve(t, f)
	for range 3 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET /stats HTTP/1.1\r\nHost: x\r\n\r\n")
		if _, err := c.Read(make([]byte, 1)); err != nil { // the answer is on its way
			t.Fatal(err)
		}
	}
	if got := rawGet(t, addr, "/ready"); got != "LIVE\n" {
		t.Errorf("%q", got)
	}
}

func TestListenNamesAddressAndCause(t *testing.T) {
	addr := serve(t, newFixture(t))
	_, err := Listen(t.Context(), ap(addr))
	if want := "bind admin address " + addr + ": bind: address already in use"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestConnections(t *testing.T) {
	f := newFixture(t)
	f.fake.connections = []api.Connection{{
		ID: 7, Listener: "l", Chain: "ch", Cluster: "web", Generation: 3, Age: 1500 * time.Millisecond, State: "open", Worker: 1,
		DownstreamRemote: ap("10.0.0.1:5"), DownstreamLocal: ap("10.0.0.2:80"), UpstreamLocal: ap("10.0.0.2:6"),
		Request:  api.DirectionStatus{Path: api.PathSplice, Reason: "promoted", Bytes: 9, Relayed: 4, Spliced: 5, Changes: 1},
		Response: api.DirectionStatus{Reason: "quiet", Ended: true},
	}}
	const want = `[{"id":7,"listener":"l","chain":"ch","cluster":"web","generation":3,"age_ms":1500,"worker":1,"state":"open",` +
		`"downstream":{"remote":"10.0.0.1:5","local":"10.0.0.2:80"},"upstream":{"remote":"","local":"10.0.0.2:6"},` +
		`"request":{"path":"splice","reason":"promoted","bytes":9,"relayed_bytes":4,"piped_bytes":0,"spliced_bytes":5,"changes":1,"ended":false},` +
		`"response":{"path":"relay","reason":"quiet","bytes":0,"relayed_bytes":0,"piped_bytes":0,"spliced_bytes":0,"changes":0,"ended":true}}]`
	if got := compact(t, f.get(t, "/connections")); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	f.fake.splice = api.SpliceStatus{Mode: "auto", Reason: "no CAP_BPF", SelfTest: []api.SelfTestStep{{Name: "fin", Result: "failed", Detail: "x"}}}
	const splice = `{"mode":"auto","available":false,"reason":"no CAP_BPF","self_test":[{"name":"fin","result":"failed","detail":"x"}]}`
	if got := compact(t, f.get(t, "/splice")); got != splice {
		t.Errorf("%s\nwant %s", got, splice)
	}
}

func compact(t *testing.T, s string) string {
	t.Helper()
	var b strings.Builder
	d := json.NewDecoder(strings.NewReader(s))
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		t.Fatal(err)
	}
	inString := false
	for i := range raw {
		switch {
		case raw[i] == '"':
			inString = !inString
		case !inString && (raw[i] == ' ' || raw[i] == '\n'):
			continue
		}
		b.WriteByte(raw[i])
	}
	return b.String()
}

// As Envoy does: what is in the way is removed, the mode is set at once, and the
// socket stays for a successor.
func TestAUnixSocketHasItsMode(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("a.sock", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := ListenUnix(t.Context(), "./a.sock", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat("a.sock")
	if err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Fatalf("%v, %v", st.Mode(), err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("a.sock"); err != nil {
		t.Error("closing has removed what may be a successor's:", err)
	}
	if _, err := ListenUnix(t.Context(), "none/a.sock", 0); err == nil || err.Error() != "bind admin address none/a.sock: bind: no such file or directory" {
		t.Error(err)
	}
}

func TestACPUProfileGoesToItsPathFromOneRequestToTheNext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "prof")
	f := newFixture(t, func(o *Options) { o.Bootstrap = &bootstrapv3.Bootstrap{Admin: &bootstrapv3.Admin{ProfilePath: path}} })
	for _, tt := range []struct {
		enable string
		code   int
		body   string
	}{{"y", 200, "OK\n"}, {"y", 500, "failure to start the profiler"}, {"n", 200, "OK\n"}, {"n", 200, "OK\n"}} {
		r := f.do("POST", "/cpuprofiler?enable="+tt.enable)
		if body, err := io.ReadAll(r.Body); r.StatusCode != tt.code || string(body) != tt.body || err != nil {
			t.Errorf("%s: %d %q %v", tt.enable, r.StatusCode, body, err)
		}
	}
	if b, err := os.ReadFile(path); err != nil || len(b) < 2 || b[0] != 0x1f || b[1] != 0x8b {
		t.Errorf("%d bytes, %v: no profile", len(b), err)
	}
}
