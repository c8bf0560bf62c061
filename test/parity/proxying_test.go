package parity

import (
	"io"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

const ofTCPMore = `tcp\..+\.(max_downstream_connection_duration|early_data_received_count_total)`

// proxying: the fields of tcp_proxy.
var proxying = []scenario{
	{"weighted_clusters_share", func(r *run) {
		p := tcpProxy("x").set("weighted_clusters", obj{"clusters": []obj{{"name": "a", "weight": 1}, {"name": "b", "weight": 1}, {"name": "c", "weight": 1}}})
		delete(p["typed_config"].(obj), "cluster")
		var clusters []obj
		for _, name := range []string{"a", "b", "c"} {
			clusters = append(clusters, cluster(name, endpoint(r.serve(name, peer.ResponseThen(name+"\n", peer.Echo)))))
		}
		r.start(static([]obj{listener("l", chain(p))}, clusters))
		seen := map[byte]bool{}
		for range 60 {
			c := r.dial("l")
			b := make([]byte, 2)
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Read(b); err == nil {
				seen[b[0]] = true
			}
			c.reset()
		}
		r.note("of three clusters %d were seen", len(seen))
	}},
	{"weighted_cluster_that_is_not_there", func(r *run) {
		p := tcpProxy("x").set("weighted_clusters", obj{"clusters": []obj{{"name": "none", "weight": 1}}})
		delete(p["typed_config"].(obj), "cluster")
		r.start(static([]obj{listener("l", chain(p))}, nil))
		r.dial("l").end()
		r.movedByConnections()
	}},
	{"max_duration_ends_a_quiet_connection", func(r *run) {
		p := tcpProxy("c").set("max_downstream_connection_duration", "1s")
		at, seen := r.recorder(peer.Echo)
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(at))}))
		r.dial("l").send("hello").expect("hello").end()
		r.saw(seen)
		r.movedByConnections()
		r.moved(ofTCPMore)
	}},
	{"max_duration_with_jitter_ends_not_earlier", func(r *run) {
		p := tcpProxy("c").set("max_downstream_connection_duration", "1s").set("max_downstream_connection_duration_jitter_percentage", obj{"value": 1})
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").end()
		r.moved(ofTCPMore)
	}},
	{"max_duration_counts_while_connecting", func(r *run) {
		p := tcpProxy("c").set("max_downstream_connection_duration", "1s")
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.hole().Addr()))}))
		r.dial("l").end()
		r.moved(ofTCPMore, ofTCPNoBytes)
	}},
	{"back_off_between_attempts", func(r *run) {
		p := tcpProxy("c").set("max_connect_attempts", 3).set("backoff_options", obj{"base_interval": "0.001s", "max_interval": "0.002s"})
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.nobody("nobody")))}))
		r.dial("l").end()
		r.movedByConnections()
	}},
	{"connect_on_data_waits_for_it", func(r *run) {
		p := tcpProxy("c").set("upstream_connect_mode", "ON_DOWNSTREAM_DATA").set("max_early_data_bytes", 100)
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.serve("server", peer.ResponseThen("hi\n", peer.Echo))))}))
		c := r.dial("l")
		time.Sleep(300 * time.Millisecond)
		r.note("before a byte:")
		r.moved(`cluster\.c\.upstream_cx_total`)
		c.send("hello").expect("hi\nhello").fin().end()
		r.movedByConnections()
		r.moved(ofTCPMore)
	}},
	{"connect_on_data_with_more_than_the_bound", func(r *run) {
		p := tcpProxy("c").set("upstream_connect_mode", "ON_DOWNSTREAM_DATA").set("max_early_data_bytes", 10)
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		s := strings.Repeat("0123456789", 100)
		r.dial("l").send(s).expect(s).fin().end()
		r.movedByConnections()
		r.moved(ofTCPMore)
	}},
	{"connect_on_data_with_the_end_behind_it", func(r *run) {
		p := tcpProxy("c").set("upstream_connect_mode", "ON_DOWNSTREAM_DATA").set("max_early_data_bytes", 100)
		at, seen := r.recorder(peer.Echo)
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(at))}))
		r.dial("l").send("hello").fin().end()
		r.saw(seen)
		r.movedByConnections()
	}},
	{"connect_on_data_refused", func(r *run) {
		path := r.logFile("tcp")
		p := tcpProxy("c").set("upstream_connect_mode", "ON_DOWNSTREAM_DATA").set("max_early_data_bytes", 100).set("access_log", []obj{logTo(path, everything)})
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.nobody("nobody")))}))
		r.dial("l").send("hello").end()
		r.logged(path, 1)
		r.movedByConnections()
	}},
	{"connect_on_data_then_reset", func(r *run) {
		path := r.logFile("tcp")
		p := tcpProxy("c").set("upstream_connect_mode", "ON_DOWNSTREAM_DATA").set("max_early_data_bytes", 100).set("access_log", []obj{logTo(path, everything)})
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		c := r.dial("l")
		time.Sleep(200 * time.Millisecond)
		c.reset()
		r.logged(path, 1)
		r.movedByConnections()
	}},
	{"connect_on_tls_without_tls_is_at_once", func(r *run) {
		p := tcpProxy("c").set("upstream_connect_mode", "ON_DOWNSTREAM_TLS_HANDSHAKE").set("max_early_data_bytes", 100)
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.serve("server", peer.ResponseThen("hi\n", peer.Echo))))}))
		r.dial("l").expect("hi\n").fin().end()
		r.movedByConnections()
	}},
	{"metadata_match_without_subsets_has_no_effect", func(r *run) {
		p := tcpProxy("c").set("metadata_match", obj{"filter_metadata": obj{"envoy.lb": obj{"no": "such"}}})
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").fin().end()
	}},
	{"hash_policy_without_a_hashing_balancer_has_no_effect", func(r *run) {
		p := tcpProxy("c").set("hash_policy", []obj{{"source_ip": obj{}}})
		r.start(static([]obj{listener("l", chain(p))}, []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))}))
		r.dial("l").send("hello").expect("hello").fin().end()
	}},
	{"echo_filter_sends_back", func(r *run) {
		e := obj{"name": "e", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo"}}
		r.start(static([]obj{listener("l", chain(e))}, nil))
		r.dial("l").send("hello").expect("hello").send(" again").expect(" again").fin().end()
		r.movedByConnections()
	}},
	{"echo_filter_of_half_a_megabyte", func(r *run) {
		e := obj{"name": "e", "typed_config": obj{"@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo"}}
		r.start(static([]obj{listener("l", chain(e))}, nil))
		s := strings.Repeat("0123456789abcdef", 32<<10)
		c := r.dial("l")
		sent := make(chan struct{})
		go func() { defer close(sent); c.send(s) }()
		buf := make([]byte, len(s))
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err := io.ReadFull(c, buf)
		<-sent
		r.note("came back: %v, error: %v", string(buf) == s, err)
		c.fin().end()
	}},
}
