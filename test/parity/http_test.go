package parity

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
)

// httpManager is a connection manager whose virtual hosts are given, or one of all
// domains with these routes.
func httpManager(more obj, routes ...obj) obj {
	return network("http_connection_manager", "HttpConnectionManager", obj{
		"stat_prefix":  "p",
		"route_config": obj{"name": "r", "virtual_hosts": []obj{{"name": "v", "domains": []string{"*"}, "routes": append([]obj{}, routes...)}}},
		"http_filters": []obj{httpFilter("router", "Router", nil)},
	}.with(more))
}

func httpFilter(folder, message string, config obj) obj {
	return obj{"name": "envoy.filters.http." + folder, "typed_config": obj{
		"@type": "type.googleapis.com/envoy.extensions.filters.http." + folder + ".v3." + message}.with(config)}
}

// route has a match, and an action.
func httpRoute(match, action obj) obj { return obj{"match": match}.with(action) }

func answering(body string) obj {
	return obj{"direct_response": obj{"status": 200, "body": obj{"inline_string": body}}}
}

func sentTo(cluster string, more obj) obj { return obj{"route": obj{"cluster": cluster}.with(more)} }

// tells answers requests with what they ask for; /slow and /cut get no answer.
func tells(ctx context.Context, c *net.TCPConn) {
	for r := bufio.NewReader(c); ; {
		q, err := http.ReadRequest(r)
		switch {
		case err != nil || q.URL.Path == "/cut":
			return
		case q.URL.Path == "/slow":
			<-ctx.Done()
			return
		}
		body := fmt.Sprintf("%s %s of %s, before %q, within %q", q.Method, q.RequestURI, strings.Split(q.Host, ":")[0], q.Header.Get("X-Envoy-Original-Path"), q.Header.Get("X-Envoy-Expected-Rq-Timeout-Ms"))
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nserver: mine\r\ncontent-length: %d\r\n\r\n%s", len(body), body)
	}
}

// asks sends a request and notes the answer.
func (c *client) asks(request ...string) *client {
	c.r.Helper()
	c.r.answered(c, c.name, request...)
	return c
}

// answered notes the answer to a request: code, headers that say something, and body.
// request is a method and target, then headers.
func (r *run) answered(c net.Conn, name string, request ...string) {
	r.Helper()
	host := "h"
	more := ""
	for _, h := range request[1:] {
		if v, ok := strings.CutPrefix(h, "host: "); ok {
			host = v
			continue
		}
		more += h + "\r\n"
	}
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, request[0]+" HTTP/1.1\r\nhost: "+host+"\r\n"+more+"\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	what := strings.Join(request, ", ")
	if err != nil {
		r.note("%s: %s: %s", name, what, endText(err))
		return
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.note("%s: %s: %d, then %s", name, what, resp.StatusCode, endText(err))
		return
	}
	var headers []string
	for _, name := range []string{"Server", "Content-Type", "Location", "X-A", "X-Told", "X-Envoy-Immediate-Health-Check-Fail"} {
		if v := resp.Header.Values(name); len(v) > 0 {
			headers = append(headers, strings.ToLower(name)+": "+strings.Join(v, ","))
		}
	}
	if resp.Close {
		headers = append(headers, "close")
	}
	slices.Sort(headers)
	r.note("%s: %s: %d (%s) %q", name, what, resp.StatusCode, strings.Join(headers, ", "), body)
}

const ofHTTP = `(listener\.l\.)?http\.p\.(downstream_cx_(total|active|destroy|http1_total|http1_active|drain_close)|downstream_rq_(total|active|completed|[1-5]xx|http1_total)|no_route|no_cluster|rq_total|rq_direct_response|health_check\.(ok|failed|request_total))`

// https are chains with a connection manager.
var https = []scenario{
	{"http_routes", func(r *run) {
		header := func(name string, m obj) obj {
			return obj{"prefix": "/h", "headers": []obj{obj{"name": name}.with(m)}}
		}
		r.start(static([]obj{listener("l", chain(httpManager(nil,
			httpRoute(obj{"path": "/exact"}, answering("exact")),
			httpRoute(obj{"path": "/Fold", "case_sensitive": false}, answering("fold")),
			httpRoute(obj{"safe_regex": obj{"regex": "/a[0-9]+"}}, answering("regex")),
			httpRoute(obj{"path_separated_prefix": "/sep"}, answering("sep")),
			httpRoute(obj{"prefix": "/q", "query_parameters": []obj{{"name": "a", "string_match": obj{"exact": "1"}}, {"name": "b", "present_match": true}}}, answering("query")),
			httpRoute(header("x-exact", obj{"string_match": obj{"exact": "v"}}), answering("header")),
			httpRoute(header("x-not", obj{"string_match": obj{"exact": "v"}, "invert_match": true}), answering("not that value")),
			httpRoute(header("x-range", obj{"range_match": obj{"start": 1, "end": 5}}), answering("range")),
			httpRoute(header("x-there", obj{"present_match": true}), answering("there")),
			httpRoute(header("x-empty", obj{"string_match": obj{"exact": ""}, "treat_missing_header_as_empty": true}), answering("as empty")),
			httpRoute(obj{"prefix": "/m", "headers": []obj{{"name": ":method", "string_match": obj{"exact": "POST"}}}}, answering("post")),
			httpRoute(obj{"prefix": "/none"}, obj{"direct_response": obj{"status": 204}}),
			httpRoute(obj{"prefix": "/added"}, answering("added").with(obj{"response_headers_to_add": []obj{{"header": obj{"key": "x-a", "value": "1"}}}})),
			httpRoute(obj{"prefix": "/to"}, obj{"redirect": obj{"path_redirect": "/new"}}),
			httpRoute(obj{"prefix": "/query"}, obj{"redirect": obj{"path_redirect": "/new?b=2", "response_code": "FOUND"}}),
			httpRoute(obj{"prefix": "/tls"}, obj{"redirect": obj{"https_redirect": true}}),
			httpRoute(obj{"prefix": "/host"}, obj{"redirect": obj{"host_redirect": "x.y", "port_redirect": 8443, "strip_query": true, "response_code": "TEMPORARY_REDIRECT"}}),
			httpRoute(obj{"prefix": "/old/"}, obj{"redirect": obj{"prefix_rewrite": "/young/", "response_code": "SEE_OTHER"}}),
		)))}, nil))
		c := r.dial("l")
		for _, q := range [][]string{
			{"GET /exact"}, {"GET /exact?x"}, {"GET /exact/"}, {"GET /FOLD"}, {"GET /a12"}, {"GET /a12b"}, {"GET /sep"}, {"GET /sep/a"}, {"GET /separate"},
			{"GET /q?a=1&b"}, {"GET /q?a=2&b"}, {"GET /h", "x-exact: v"}, {"GET /h", "x-not: w"}, {"GET /h", "x-range: 4"}, {"GET /h", "x-range: 5"},
			{"GET /h", "x-there: no"}, {"GET /h"}, {"POST /m", "content-length: 0"}, {"GET /m"}, {"GET /none"}, {"GET /added"},
			{"GET /to?x=1"}, {"GET /query?x=1"}, {"GET /tls"}, {"GET /tls", "host: h:80"}, {"GET /host/a?b=1"}, {"GET /old/a?b=1"}, {"GET /"},
		} {
			c.asks(q...)
		}
		c.fin().end()
		r.moved(ofHTTP, ofListener)
	}},
	{"http_virtual_hosts", func(r *run) {
		host := func(name string, domains ...string) obj {
			return obj{"name": name, "domains": domains, "routes": []obj{httpRoute(obj{"prefix": "/"}, answering(name))}}
		}
		for _, ignore := range []bool{false, true} {
			r.start(static([]obj{listener("l", chain(httpManager(obj{"route_config": obj{"name": "r", "ignore_port_in_host_matching": ignore, "virtual_hosts": []obj{
				host("name", "a.example"), host("suffix", "*.example"), host("longer suffix", "*.b.example"), host("prefix", "www.*"), host("port", "p.other:81"),
			}}})))}, nil))
			c := r.dial("l")
			for _, h := range []string{"a.example", "A.Example", "x.example", "x.b.example", "b.example", "www.other", "www.example", "other", "p.other", "p.other:81", "a.example:80"} {
				c.asks("GET /", "host: "+h)
			}
			c.fin().end()
		}
	}},
	{"http_to_clusters", func(r *run) {
		clusters := []obj{cluster("web", endpoint(r.serve("server", tells))), cluster("empty")}
		m := httpManager(nil,
			httpRoute(obj{"prefix": "/slow"}, sentTo("web", obj{"timeout": "0.5s"})),
			httpRoute(obj{"prefix": "/pre/"}, sentTo("web", obj{"prefix_rewrite": "/"})),
			httpRoute(obj{"path": "/all"}, sentTo("web", obj{"prefix_rewrite": "/x"})),
			httpRoute(obj{"prefix": "/v"}, sentTo("web", obj{"regex_rewrite": obj{"pattern": obj{"regex": "^/v([0-9])/(.*)$"}, "substitution": `/\2/\1`}, "timeout": "0s"})),
			httpRoute(obj{"prefix": "/host"}, sentTo("web", obj{"host_rewrite_literal": "other"})),
			httpRoute(obj{"prefix": "/empty"}, sentTo("empty", nil)),
			httpRoute(obj{"prefix": "/gone"}, sentTo("unknown", obj{"cluster_not_found_response_code": "NOT_FOUND"})),
			httpRoute(obj{"prefix": "/"}, sentTo("web", nil).with(obj{"response_headers_to_add": []obj{{"header": obj{"key": "x-a", "value": "1"}}}})))
		m["typed_config"].(obj)["route_config"].(obj)["validate_clusters"] = false
		r.start(static([]obj{listener("l", chain(m))}, clusters))
		for _, q := range [][]string{
			{"GET /pre/a?b=1"}, {"GET /all?b=1"}, {"GET /v7/b"}, {"GET /host"}, {"GET /empty"}, {"GET /gone"}, {"GET /any%20thing"}, {"DELETE /any"}, {"GET /cut"}, {"GET /slow"}, {"GET /any", "upgrade: websocket", "connection: upgrade"},
		} {
			r.dial("l").asks(q...).fin().end()
		}
		r.moved(ofHTTP, ofListener, `cluster\.web\.upstream_rq_([0-9]..|completed|timeout)`, `cluster\.(empty|web\.external)\..*(_rq_(...|completed)|none_healthy)`)
	}},
	{"http_health_check", func(r *run) {
		r.start(static([]obj{listener("l", chain(httpManager(obj{"http_filters": []obj{
			httpFilter("health_check", "HealthCheck", obj{"pass_through_mode": false, "headers": []obj{{"name": ":path", "string_match": obj{"exact": "/ready"}}}}),
			httpFilter("router", "Router", nil)}}, httpRoute(obj{"prefix": "/"}, answering("routed")))))}, nil))
		c := r.dial("l").asks("GET /ready").asks("GET /ready?x").asks("GET /")
		r.post("/healthcheck/fail")
		c.asks("GET /ready").fin().end()
		r.dial("l").asks("GET /").fin().end()
		r.post("/healthcheck/ok")
		r.dial("l").asks("GET /ready").fin().end()
		r.moved(ofHTTP, ofListener)
	}},
	{"http_beside_tcp", func(r *run) {
		web := chain(httpManager(nil, httpRoute(obj{"prefix": "/a"}, answering("a")))).with(obj{"filter_chain_match": obj{"application_protocols": []string{"http/1.1"}}})
		l := listener("l", web, chain(tcpProxy("c"))).with(obj{"listener_filters": []obj{{"name": "h", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"}}}})
		r.start(static([]obj{l}, r.echoes()))
		r.dial("l").as("of HTTP").asks("GET /a").fin().end()
		r.dial("l").as("of TCP").send("this is none\n").expect("this is none\n").fin().end()
		r.moved(ofHTTP, ofListener, ofTCP)
	}},
	{"http_of_one_way", func(r *run) {
		r.start(static([]obj{listener("l", chain(httpManager(nil, httpRoute(obj{"prefix": "/"}, sentTo("web", nil)))))}, []obj{cluster("web", endpoint(r.serve("server", greets)))}))
		r.dial("l").asks("GET /").asks("GET /").fin().end()
		r.moved(`http\.p\.downstream_cx_(total|active|destroy)`, ofListener, `cluster\.web\.upstream_cx_(total|active)`)
	}},
	{"http_old_version", func(r *run) {
		r.start(static([]obj{listener("l", chain(httpManager(nil, httpRoute(obj{"prefix": "/a"}, answering("a"))))),
			listener("m", chain(httpManager(obj{"stat_prefix": "q", "http_protocol_options": obj{"accept_http_10": true}}, httpRoute(obj{"prefix": "/a"}, answering("a")))))}, nil))
		for _, l := range []string{"l", "m"} {
			c := r.dial(l).as(l).send("GET /a HTTP/1.0\r\nhost: h\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				r.note("%s: %s", l, endText(err))
				continue
			}
			body, _ := io.ReadAll(resp.Body)
			r.note("%s: %d %q", l, resp.StatusCode, body)
		}
	}},
}

// greets answers every request alike, so that it does not show whose headers it had.
func greets(_ context.Context, c *net.TCPConn) {
	for r := bufio.NewReader(c); ; {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
	}
}
