package parity

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	lrsv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluice-proxy/sluice/test/peer"
)

const ofReporter = `load_reporter\.(requests|errors|retries)`

// loadServer is a load reporting service that is told what to ask for.
type loadServer struct {
	lrsv3.UnimplementedLoadReportingServiceServer
	r       *run
	streams chan *loadStream
}

type loadStream struct {
	lrsv3.LoadReportingService_StreamLoadStatsServer
	r    *run
	came chan *lrsv3.LoadStatsRequest
	end  chan error
}

func (s *loadServer) StreamLoadStats(g lrsv3.LoadReportingService_StreamLoadStatsServer) error {
	one := &loadStream{LoadReportingService_StreamLoadStatsServer: g, r: s.r, came: make(chan *lrsv3.LoadStatsRequest), end: make(chan error, 1)}
	go func() {
		defer close(one.came)
		for {
			q, err := g.Recv()
			if err != nil {
				return
			}
			select {
			case one.came <- q:
			case <-g.Context().Done():
				return
			}
		}
	}()
	select {
	case s.streams <- one:
	case <-g.Context().Done():
		return nil
	}
	select {
	case err := <-one.end:
		return err
	case <-g.Context().Done():
		return nil
	}
}

// reports starts a proxy that reports to a server, and waits for its stream.
func (r *run) reports(listeners, clusters []obj) (*loadServer, *loadStream) {
	r.Helper()
	s := &loadServer{r: r, streams: make(chan *loadStream)}
	at := r.grpc(func(g *grpc.Server) { lrsv3.RegisterLoadReportingServiceServer(g, s) })
	r.start(reportingTo(static(listeners, append(clusters, cluster("lrs", endpoint(at)).with(http2Options)))))
	return s, s.await()
}

func reportingTo(b obj) obj {
	return b.with(obj{"cluster_manager": obj{"load_stats_config": obj{"api_type": "GRPC", "transport_api_version": "V3",
		"grpc_services": []obj{{"envoy_grpc": obj{"cluster_name": "lrs"}}}}}})
}

func (s *loadServer) await() *loadStream {
	s.r.Helper()
	select {
	case one := <-s.streams:
		return one
	case <-time.After(15 * time.Second):
		s.r.Fatal("no load report stream comes")
		return nil
	}
}

// next is the next report.
func (g *loadStream) next() *lrsv3.LoadStatsRequest {
	g.r.Helper()
	select {
	case q := <-g.came:
		return q
	case <-time.After(15 * time.Second):
		g.r.Fatal("no load report comes")
		return nil
	}
}

// ask wants reports every 300 ms.
func (g *loadStream) ask(m *lrsv3.LoadStatsResponse) {
	g.r.Helper()
	m.LoadReportingInterval = durationpb.New(300 * time.Millisecond)
	if g.r.plant {
		m = &lrsv3.LoadStatsResponse{Clusters: []string{"impostor"}, LoadReportingInterval: m.LoadReportingInterval}
	}
	if err := g.Send(m); err != nil {
		g.r.Fatal(err)
	}
}

func of(names ...string) *lrsv3.LoadStatsResponse { return &lrsv3.LoadStatsResponse{Clusters: names} }

// sum adds reports up until issued connections were told of, and notes the sum: how
// many there are, and which of them tells of what, is chance.
func (g *loadStream) sum(issued uint64) {
	g.r.Helper()
	all, total := map[string]*endpointv3.ClusterStats{}, uint64(0)
	sane := true
	for deadline := time.Now().Add(8 * time.Second); ; {
		for _, c := range g.next().GetClusterStats() {
			if i := c.GetLoadReportInterval().AsDuration(); i <= 0 || i > 8*time.Second {
				sane = false
			}
			if c.GetClusterName() == "lrs" {
				c.UpstreamLocalityStats = nil // Envoy tells of the stream itself
			}
			total += merge(all, c)
		}
		if total >= issued && len(all) > 0 || time.Now().After(deadline) {
			break
		}
	}
	g.r.note("intervals are sane: %t", sane)
	for _, name := range sortedNames(all) {
		g.r.note("%s", g.r.loadText(all[name]))
	}
}

func sortedNames(m map[string]*endpointv3.ClusterStats) []string {
	var out []string
	for n := range m {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// merge adds c to what was told of its cluster before, and returns the connections
// that it tells of. What is open is what the last report says.
func merge(all map[string]*endpointv3.ClusterStats, c *endpointv3.ClusterStats) (issued uint64) {
	c = proto.CloneOf(c)
	c.LoadReportInterval = nil
	old := all[c.GetClusterName()]
	all[c.GetClusterName()] = c
	for _, l := range c.GetUpstreamLocalityStats() {
		issued += l.GetTotalIssuedRequests()
	}
	for _, was := range old.GetUpstreamLocalityStats() {
		at := slices.IndexFunc(c.UpstreamLocalityStats, func(l *endpointv3.UpstreamLocalityStats) bool {
			return proto.Equal(l.Locality, was.Locality) && l.Priority == was.Priority
		})
		if at < 0 {
			was.TotalRequestsInProgress = 0
			for _, h := range was.UpstreamEndpointStats {
				h.TotalRequestsInProgress = 0
			}
			c.UpstreamLocalityStats = append(c.UpstreamLocalityStats, was)
			continue
		}
		now := c.UpstreamLocalityStats[at]
		now.TotalIssuedRequests += was.TotalIssuedRequests
		for _, h := range was.UpstreamEndpointStats {
			at := slices.IndexFunc(now.UpstreamEndpointStats, func(o *endpointv3.UpstreamEndpointStats) bool { return proto.Equal(o.Address, h.Address) })
			if at < 0 {
				h.TotalRequestsInProgress = 0
				now.UpstreamEndpointStats = append(now.UpstreamEndpointStats, h)
				continue
			}
			now.UpstreamEndpointStats[at].TotalIssuedRequests += h.TotalIssuedRequests
		}
	}
	return issued
}

// loadText is a cluster's load in one line, with every field that is set.
func (r *run) loadText(c *endpointv3.ClusterStats) string {
	c = proto.CloneOf(c)
	var b strings.Builder
	fmt.Fprintf(&b, "%s, service %q", c.GetClusterName(), c.GetClusterServiceName())
	c.ClusterName, c.ClusterServiceName = "", ""
	if n := c.GetTotalDroppedRequests(); n > 0 {
		fmt.Fprintf(&b, ", dropped %d", n)
		c.TotalDroppedRequests = 0
	}
	slices.SortStableFunc(c.UpstreamLocalityStats, func(a, b *endpointv3.UpstreamLocalityStats) int {
		return strings.Compare(fmt.Sprint(a.Priority, placeText(a.Locality)), fmt.Sprint(b.Priority, placeText(b.Locality)))
	})
	for _, l := range c.UpstreamLocalityStats {
		fmt.Fprintf(&b, "; at %s priority %d: issued %d, open %d, good %d, bad %d", placeText(l.Locality), l.Priority, l.TotalIssuedRequests, l.TotalRequestsInProgress, l.TotalSuccessfulRequests, l.TotalErrorRequests)
		hosts := make([]string, 0, len(l.UpstreamEndpointStats))
		for _, h := range l.UpstreamEndpointStats {
			hosts = append(hosts, fmt.Sprintf("%s issued %d, open %d, good %d, bad %d", r.rename(addressText(h.Address)), h.TotalIssuedRequests, h.TotalRequestsInProgress, h.TotalSuccessfulRequests, h.TotalErrorRequests))
			h.Address, h.TotalIssuedRequests, h.TotalRequestsInProgress, h.TotalSuccessfulRequests, h.TotalErrorRequests = nil, 0, 0, 0, 0
			if proto.Size(h) > 0 {
				hosts = append(hosts, fmt.Sprint("and ", h))
			}
		}
		slices.Sort(hosts)
		if len(hosts) > 0 {
			fmt.Fprintf(&b, " [%s]", strings.Join(hosts, "; "))
		}
		l.Locality, l.Priority, l.TotalIssuedRequests, l.TotalRequestsInProgress, l.TotalSuccessfulRequests, l.TotalErrorRequests, l.UpstreamEndpointStats = nil, 0, 0, 0, 0, 0, nil
		if proto.Size(l) > 0 {
			fmt.Fprint(&b, " and ", l)
		}
	}
	c.UpstreamLocalityStats = nil
	if proto.Size(c) > 0 {
		fmt.Fprint(&b, " and ", c)
	}
	return b.String()
}

func placeText(l *corev3.Locality) string {
	if l == nil {
		return "none"
	}
	return l.GetRegion() + "/" + l.GetZone() + "/" + l.GetSubZone()
}

func addressText(a *corev3.Address) string {
	if p := a.GetPipe(); p != nil {
		return "pipe " + filepath.Base(p.GetPath())
	}
	s := a.GetSocketAddress()
	return fmt.Sprintf("%s:%d", s.GetAddress(), s.GetPortValue())
}

// echoesOf is a cluster of one host that sends back.
func (r *run) echoesOf(name string) obj {
	r.Helper()
	return cluster(name, endpoint(r.serve(name+"1", peer.Echo)))
}

func (r *run) talk(listener string) *client {
	r.Helper()
	return r.dial(listener).send("hello").expect("hello")
}

// inPlace is one locality of an assignment.
func inPlace(zone string, priority int, endpoints ...obj) obj {
	return obj{"locality": obj{"region": "r", "zone": zone}, "priority": priority, "lb_endpoints": endpoints}
}

// loadReports: what the load reporting service is told.
var loadReports = []scenario{
	{"lrs_first_request", func(r *run) {
		_, g := r.reports(nil, []obj{r.echoesOf("c")})
		q := g.next()
		r.note("node %q of %q, %d clusters", q.GetNode().GetId(), q.GetNode().GetCluster(), len(q.GetClusterStats()))
		for _, f := range q.GetNode().GetClientFeatures() {
			if strings.HasPrefix(f, "envoy.lrs.") {
				r.note("can %s", f)
			}
		}
		if r.plant {
			r.note("an impostor")
		}
		r.awaitTrue(func() bool { return r.stats()["load_reporter.responses"] == 1 })
	}},
	{"lrs_named_clusters", func(r *run) {
		_, g := r.reports([]obj{proxyTo("l", "c"), proxyTo("m", "d")}, []obj{r.echoesOf("c"), r.echoesOf("d"), r.echoesOf("e")})
		g.next()
		g.ask(of("c", "nosuch", "d"))
		g.sum(0)
		r.talk("l").leave()
		r.talk("l")
		r.talk("m").leave()
		g.sum(3)
		r.moved(ofReporter)
	}},
	{"lrs_all_clusters", func(r *run) {
		_, g := r.reports([]obj{proxyTo("l", "c")}, []obj{r.echoesOf("c"), r.echoesOf("d")})
		g.next()
		g.ask(&lrsv3.LoadStatsResponse{SendAllClusters: true, Clusters: []string{"d"}})
		g.sum(0)
		r.talk("l").leave()
		g.sum(1)
	}},
	{"lrs_by_endpoint", func(r *run) {
		path := filepath.Join(r.TempDir(), "s")
		r.onUnix(path)
		_, g := r.reports([]obj{proxyTo("l", "c"), proxyTo("m", "d")}, []obj{cluster("c", endpoint(r.serve("one", peer.Echo)), endpoint(r.serve("two", peer.Echo))), cluster("d", pipe(path))})
		g.next()
		g.ask(&lrsv3.LoadStatsResponse{Clusters: []string{"c", "d"}, ReportEndpointGranularity: true})
		g.sum(0)
		for range 2 {
			r.talk("l").leave()
		}
		r.dial("m").send("hello").expect("echo hello").fin().end()
		r.talk("l")
		r.talk("l")
		g.sum(5)
	}},
	{"lrs_by_locality_and_priority", func(r *run) {
		c := cluster("c")
		c["load_assignment"] = obj{"cluster_name": "c", "endpoints": []obj{
			inPlace("b", 0, endpoint(r.serve("b", peer.Echo))), inPlace("a", 0, endpoint(r.serve("a", peer.Echo))),
			inPlace("a", 1, endpoint(r.serve("backup", peer.Echo))), {"lb_endpoints": []obj{endpoint(r.serve("nowhere", peer.Echo))}}}}
		_, g := r.reports([]obj{proxyTo("l", "c")}, []obj{c})
		g.next()
		g.ask(of("c"))
		g.sum(0)
		for range 6 {
			r.talk("l").leave()
		}
		g.sum(6)
	}},
	{"lrs_what_is_open_is_told_again", func(r *run) {
		_, g := r.reports([]obj{proxyTo("l", "c")}, []obj{r.echoesOf("c")})
		g.next()
		c := r.talk("l")
		g.ask(&lrsv3.LoadStatsResponse{Clusters: []string{"c"}, ReportEndpointGranularity: true})
		g.sum(0)
		g.sum(0)
		c.leave()
		r.awaitTrue(func() bool { return r.stats()["cluster.c.upstream_cx_active"] == 0 })
		g.next()
		g.sum(0)
	}},
	{"lrs_service_name", func(r *run) {
		c := cluster("c")
		delete(c, "load_assignment")
		path := filepath.Join(r.TempDir(), "eds.json")
		one := r.serve("one", peer.Echo)
		text := fmt.Sprintf(`{"resources":[{"@type":"type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment","cluster_name":"service","endpoints":[{"lb_endpoints":[{"endpoint":{"address":{"socket_address":{"address":%q,"port_value":%d}}}}]}]}]}`, one.Addr(), one.Port())
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			r.Fatal(err)
		}
		c["type"], c["eds_cluster_config"] = "EDS", obj{"service_name": "service", "eds_config": obj{"path_config_source": obj{"path": path}}}
		_, g := r.reports([]obj{proxyTo("l", "c")}, []obj{c})
		g.next()
		g.ask(of("c"))
		g.sum(0)
		r.talk("l").leave()
		g.sum(1)
	}},
	{"lrs_connects_that_fail", func(r *run) {
		_, g := r.reports([]obj{proxyTo("l", "c"), proxyTo("m", "d"), proxyTo("n", "e")}, []obj{cluster("c", endpoint(r.nobody("nobody"))),
			r.echoesOf("d").with(obj{"circuit_breakers": obj{"thresholds": []obj{{"max_connections": 0}}}}), cluster("e")})
		g.next()
		g.ask(&lrsv3.LoadStatsResponse{Clusters: []string{"c", "d", "e"}, ReportEndpointGranularity: true})
		g.sum(0)
		for _, l := range []string{"l", "m", "n"} {
			r.dial(l).end()
		}
		g.next()
		g.sum(0)
	}},
	{"lrs_original_dst", func(r *run) {
		c := obj{"name": "c", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "5s"}
		to := r.serve("server", peer.Echo)
		l := listener("l", chain(network("set_filter_state", "Config", obj{"on_new_connection": []obj{{"object_key": "envoy.network.transport_socket.original_dst_address", "format_string": obj{"text_format_source": obj{"inline_string": to.String()}}}}}), tcpProxy("c")))
		_, g := r.reports([]obj{l}, []obj{c})
		g.next()
		g.ask(&lrsv3.LoadStatsResponse{Clusters: []string{"c"}, ReportEndpointGranularity: true})
		g.sum(0)
		r.talk("l")
		g.next()
		g.sum(0)
	}},
	{"lrs_asked_for_other_clusters", func(r *run) {
		_, g := r.reports([]obj{proxyTo("l", "c"), proxyTo("m", "d")}, []obj{r.echoesOf("c"), r.echoesOf("d")})
		g.next()
		g.ask(of("c"))
		g.sum(0)
		r.talk("m").leave()
		r.talk("l").leave()
		g.sum(1)
		g.ask(of("d"))
		r.awaitTrue(func() bool { return r.stats()["load_reporter.requests"] == 2 })
		g.next() // may still be about c
		g.sum(0)
		r.talk("m").leave()
		g.sum(1)
		r.moved(ofReporter)
	}},
	{"lrs_stream_ends_and_comes_again", func(r *run) {
		s, g := r.reports([]obj{proxyTo("l", "c")}, []obj{r.echoesOf("c")})
		g.next()
		g.ask(of("c"))
		g.sum(0)
		g.end <- status.Error(codes.Internal, "no")
		r.awaitTrue(func() bool { return r.stats()["load_reporter.errors"] == 1 })
		r.mark()
		r.talk("l").leave()
		g = s.await()
		g.sum(1)
		g.end <- nil
		s.await()
		r.moved(ofReporter)
	}},
	{"lrs_nobody_there", func(r *run) {
		r.start(reportingTo(static(nil, []obj{cluster("lrs", endpoint(r.refused())).with(http2Options)})))
		var s map[string]int64
		r.awaitTrue(func() bool { s = r.stats(); return s["load_reporter.errors"] == 2 })
		if r.plant {
			r.note("an impostor")
		}
		r.note("%d requests, %d responses, %d retries", s["load_reporter.requests"], s["load_reporter.responses"], s["load_reporter.retries"])
	}},
	{"lrs_fields_of_clusters_have_no_effect", func(r *run) {
		_, g := r.reports([]obj{proxyTo("l", "c")}, []obj{r.echoesOf("c").with(obj{"lrs_server": obj{"self": obj{}}, "lrs_report_endpoint_metrics": []string{"named_metrics.foo", "cpu_utilization"}})})
		g.next()
		g.ask(&lrsv3.LoadStatsResponse{Clusters: []string{"c"}, ReportEndpointGranularity: true})
		g.sum(0)
		r.talk("l").leave()
		g.sum(1)
	}},
}

// awaitTrue waits for what comes for certain.
func (r *run) awaitTrue(ok func() bool) {
	r.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatal("it does not come about")
		}
	}
}
