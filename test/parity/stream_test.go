package parity

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	// The types that resources are written in.
	_ "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/direct_response/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/echo/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluice-proxy/sluice/test/control"
	"github.com/sluice-proxy/sluice/test/peer"
)

var own = flag.Bool("own", false, "write Sluice's own records to testdata/sluice, for scenarios given by -run where it differs on purpose")

var oracle = flag.Bool("oracle", false, "run Envoy again in the scenarios of streams, also without -update")

// story is a scenario in which a scripted control plane speaks. It is told in
// both variants of the protocol, as NAME_sotw and NAME_delta, unless its name ends
// in _delta_only.
type story struct {
	name string
	tell func(s *stream)
}

// streams are the stories as scenarios.
func streams() []scenario {
	var out []scenario
	for _, st := range slices.Concat(startStories, rejectionStories, changeStories, warmingStories, reconnectStories, heartbeatStories, orderStories, sourceStories, restStories, goldens, drainStories, ecdsStories, sdsStories, rtdsStories, corpusStories, bindingStories, checkedStories, breakerStories, onDemandStories, tunnelStories, forwardStories) {
		for _, delta := range []bool{false, true} {
			if !delta && strings.HasSuffix(st.name, "_delta_only") {
				continue
			}
			out = append(out, scenario{strings.TrimSuffix(st.name, "_delta_only") + suffix(delta), func(r *run) {
				s := &stream{run: r, delta: delta, script: control.StartScript(r.TB), wait: "0s"}
				r.names = append(r.names, s.script.Addr().String(), "<server>")
				st.tell(s)
			}})
		}
	}
	return out
}

func suffix(delta bool) string {
	if delta {
		return "_delta"
	}
	return "_sotw"
}

// TestStreamParity compares what a control plane sees of Sluice with the record
// of Envoy 1.40. Envoy itself runs with -update and -oracle only.
func TestStreamParity(t *testing.T) {
	for _, s := range streams() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			if *update || *oracle {
				t.Run("envoy", func(t *testing.T) {
					needEnvoy(t)
					want, _ := recordOf(t, s.name, envoy)
					got, info := tell(t, s, envoy, false, want)
					if *update {
						writeRecord(t, filepath.Join("testdata", "envoy", s.name+".txt"), got, info)
					} else if got != want {
						t.Errorf("Envoy is not as recorded:\n%s", diff(want, got))
					}
				})
			}
			if *envoyOnly {
				return
			}
			t.Run("sluice", func(t *testing.T) { sluiceAsRecorded(t, s) })
		})
	}
}

func sluiceAsRecorded(t *testing.T, s scenario) {
	want, whose := recordOf(t, s.name, sluice)
	// What is compared is requests: without the splice's programs and self-test a start
	// takes a sixth of the CPU.
	k := sluice
	k.args = []string{"--splice=off"}
	got, _ := tell(t, s, k, false, want)
	if *own {
		writeRecord(t, filepath.Join("testdata", "sluice", s.name+".txt"), got, "")
		return
	}
	if got != want {
		t.Errorf("Sluice differs from %s (-record +Sluice):\n%s", whose, diff(want, got))
	}
}

// stream is a run in which the control plane is a script.
type stream struct {
	*run
	delta  bool
	script *control.Script
	nonce  int
	seen   int    // requests that are in the record
	wait   string // initial_fetch_timeout of CDS and LDS
	// listeners and clusters are the bootstrap's, beside the control plane's.
	listeners, clusters []obj
	// ldsFrom and cdsFrom are other config sources than ADS.
	ldsFrom, cdsFrom obj
	folder           string // of files, see dir
	apart            bool   // there is more than one stream
	live             bool   // the proxy goes live without the script
	noCDS            bool   // the bootstrap asks for no clusters
	more             obj    // the bootstrap's, beside all that
}

// open starts the proxy with a bootstrap that asks for listeners and clusters,
// and notes its first requests.
func (s *stream) open() {
	s.Helper()
	api := "GRPC"
	if s.delta {
		api = "DELTA_GRPC"
	}
	source := func() obj {
		return obj{"ads": obj{}, "resource_api_version": "V3", "initial_fetch_timeout": s.wait}
	}
	lds, cds := source(), source()
	if s.ldsFrom != nil {
		lds = s.ldsFrom
	}
	if s.cdsFrom != nil {
		cds = s.cdsFrom
	}
	boot := static(s.listeners, append([]obj{xdsCluster(s)}, s.clusters...)).with(obj{"dynamic_resources": obj{
		"ads_config": obj{"api_type": api, "transport_api_version": "V3", "set_node_on_first_message_only": true,
			"grpc_services": []obj{{"envoy_grpc": obj{"cluster_name": "xds"}}}},
		"lds_config": lds, "cds_config": cds,
	}})
	boot.with(s.more)
	if s.noCDS {
		delete(boot["dynamic_resources"].(obj), "cds_config")
	}
	if s.ldsFrom != nil && s.cdsFrom != nil {
		delete(boot["dynamic_resources"].(obj), "ads_config")
	}
	s.proxy = spawn(s.TB, s.kind, boot)
	s.before = map[string]int64{}
	if s.ldsFrom["path_config_source"] == nil && !s.live {
		s.script.AwaitStream(s.TB, 1)
	} else {
		s.proxy.awaitLive(s.TB, s.kind)
	}
	s.settle()
}

func xdsCluster(s *stream) obj { return cluster("xds", endpoint(s.script.Addr())).with(http2Options) }

// The types, by their short names.
var types = map[string]string{
	"LDS": resourcev3.ListenerType, "CDS": resourcev3.ClusterType, "EDS": resourcev3.EndpointType,
	"RDS": resourcev3.RouteType, "RTDS": resourcev3.RuntimeType, "SDS": resourcev3.SecretType, "ECDS": resourcev3.ExtensionConfigType,
}

// gone stands for removed_resources in delta and for nothing at all in state of
// the world, where what is not there is gone.
func gone(names ...string) obj { return obj{"@gone": names} }

// raw is a resource given as type and bytes.
func raw(name, url, value string) obj {
	return obj{"@raw": &anypb.Any{TypeUrl: url, Value: []byte(value)}, "@name": name}
}

// wrapped sends o with a TTL of its own; nil is a heartbeat.
func wrapped(name string, ttl time.Duration, o obj) obj {
	return obj{"@wrap": o, "@name": name, "@ttl": ttl}
}

func (s *stream) cds(version string, resources ...obj) {
	s.Helper()
	s.send("CDS", version, resources...)
}
func (s *stream) lds(version string, resources ...obj) {
	s.Helper()
	s.send("LDS", version, resources...)
}
func (s *stream) eds(version string, resources ...obj) {
	s.Helper()
	s.send("EDS", version, resources...)
}

// send sends one response and notes the requests that follow it.
func (s *stream) send(kind, version string, resources ...obj) {
	s.Helper()
	s.push(kind, version, resources...)
	s.settle()
}

// push sends one response. Nonces are n1, n2, ….
func (s *stream) push(kind, version string, resources ...obj) {
	s.Helper()
	s.nonce++
	nonce := fmt.Sprint("n", s.nonce)
	if s.plant {
		nonce = "impostor"
	}
	s.note("-> %s %s n%d", kind, version, s.nonce)
	url := types[kind]
	if url == "" {
		url = kind
	}
	d := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url, Nonce: nonce, SystemVersionInfo: version}
	w := &discoveryv3.DiscoveryResponse{TypeUrl: url, Nonce: nonce, VersionInfo: version}
	for _, o := range resources {
		if names, ok := o["@gone"].([]string); ok {
			d.RemovedResources = append(d.RemovedResources, names...)
			continue
		}
		r := s.resource(url, version, o)
		d.Resources = append(d.Resources, r)
		body := r.GetResource()
		if _, ok := o["@wrap"]; ok {
			body, _ = anypb.New(r)
		}
		w.Resources = append(w.Resources, body)
	}
	if s.delta {
		s.script.SendDelta(s.TB, d)
		return
	}
	s.script.Send(s.TB, w)
}

func (s *stream) resource(url, version string, o obj) *discoveryv3.Resource {
	s.Helper()
	if a, ok := o["@raw"].(*anypb.Any); ok {
		return &discoveryv3.Resource{Name: o["@name"].(string), Version: version, Resource: a}
	}
	if inner, ok := o["@wrap"].(obj); ok {
		r := &discoveryv3.Resource{Name: o["@name"].(string), Version: version}
		if inner != nil {
			r = s.resource(url, version, inner)
		}
		if ttl := o["@ttl"].(time.Duration); ttl > 0 {
			r.Ttl = durationpb.New(ttl)
		}
		return r
	}
	name, _ := o["name"].(string)
	if n, ok := o["cluster_name"].(string); ok {
		name = n
	}
	typed := obj{"@type": url}.with(o)
	text, err := json.Marshal(typed)
	if err != nil {
		s.Fatal(err)
	}
	a := new(anypb.Any)
	if err := protojson.Unmarshal(text, a); err != nil {
		s.Fatalf("read resource %s: %v", text, err)
	}
	return &discoveryv3.Resource{Name: name, Version: version, Resource: a}
}

// settle notes the requests that come now. How many are due the record
// tells; without it, and to see what is too much, it listens for silence.
func (s *stream) settle() {
	s.Helper()
	due, first := s.due(), len(s.record)
	if s.apart {
		// Streams of their own do not wait for each other: their order is chance.
		defer func() { slices.Sort(s.record[first:]) }()
	}
	deadline := time.Now().Add(6 * time.Second)
	silence, since := 80*time.Millisecond, time.Now()
	if due < 0 {
		silence = 800 * time.Millisecond
	}
	for now := time.Now(); now.Before(deadline); now = time.Now() {
		if all := s.script.Strings(); len(all) > s.seen {
			for _, r := range all[s.seen:] {
				s.note("<- %s", textClass(r))
			}
			due -= len(all) - s.seen
			s.seen, since = len(all), now
		}
		if due <= 0 && now.Sub(since) > silence {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// What of a NACK's text is not compared: Envoy prints the whole resource, Sluice
// names its field and value (see README.md).
var (
	constraintText = regexp.MustCompile(`(!13 (?:Error adding/updating \S+ \w+: )?).*Proto constraint validation failed \((?:.* \| caused by )?([^|]*?\.[^|]*?: [^|]*?)\)(?: \(.*\))?((?:\\n)?)$`)
	dumpText       = regexp.MustCompile(`:? goo\.gle/debug.*$|: \d+ bytes are no such message$`)
	fieldText      = regexp.MustCompile(`(!13 |: |; )(?:[a-z_]+(?:\[\d+\])?(?:\.[a-z_]+(?:\[\d+\])?)+(?: [a-z_]+)?|address|filter_chains(?:\[\d+\])?): `)
	wholeText      = regexp.MustCompile(`!13 "[^"]*": `)
	endpointsText  = regexp.MustCompile(`!13 \w+: malformed`)
)

// textClass is a request in one line, a NACK's text cut down to its class.
func textClass(r string) string {
	r = strings.ReplaceAll(r, "\n", `\n`)
	if !strings.Contains(r, " !13 ") {
		return r
	}
	r = constraintText.ReplaceAllString(r, "${1}Proto constraint validation failed ($2)$3")
	r = dumpText.ReplaceAllString(r, "")
	r = wholeText.ReplaceAllString(r, "!13 ")
	r = fieldText.ReplaceAllString(r, "$1")
	return endpointsText.ReplaceAllString(r, "!13 malformed")
}

// due is how many requests the record has next, -1 if it cannot tell.
func (s *stream) due() int {
	if !s.asExpected() {
		return -1
	}
	n := 0
	for _, l := range s.expect[len(s.record):] {
		if !strings.HasPrefix(l, "<- ") {
			break
		}
		n++
	}
	return n
}

// ready goes through the start: these clusters, which need no endpoints, and
// these listeners.
func (s *stream) ready(clusters []obj, listeners ...obj) {
	s.Helper()
	s.open()
	s.cds("1", clusters...)
	s.lds("1", listeners...)
}

// closed ends the stream with err and notes the requests of the next one.
func (s *stream) closed(err error) {
	s.Helper()
	n := s.script.Streams()
	s.note("stream ends")
	s.script.Close(err)
	s.script.AwaitStream(s.TB, n+1)
	s.settle()
}

// moved notes the figures of subscriptions, clusters and listeners.
func (s *stream) figures() {
	s.Helper()
	s.moved(ofSubscriptions, ofManagers)
}

const (
	ofSubscriptions = `(cluster_manager\.cds|listener_manager\.lds|cluster\.[^.]+)\.(update_(attempt|success|failure|rejected|empty|no_rebuild)|init_fetch_timeout|version)`
	ofManagers      = `cluster_manager\.(cluster_(added|modified|removed)|active_clusters|warming_clusters|cds\.config_reload)|listener_manager\.(listener_(added|modified|removed|create_success|create_failure|in_place_updated|stopped)|total_listeners_(active|warming)|workers_started)|control_plane\.connected_state`
)

// banner is a back end that says its name and echoes.
func (s *stream) banner(name string) obj {
	s.Helper()
	return endpoint(s.serve(name, peer.ResponseThen(name+"\n", peer.Echo)))
}

// serves notes who answers at listener, once it is want, or else at last.
func (s *stream) serves(listener, want string) *client {
	s.Helper()
	var got string
	for deadline := time.Now().Add(4 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c := s.once(listener)
		if got = s.hello(c); got == want || time.Now().After(deadline) {
			s.note("%s is answered by %s", listener, got)
			return c
		}
		if c != nil {
			c.Close()
		}
	}
}

func (s *stream) once(listener string) *client {
	bound, err := s.proxy.listening()
	if err != nil {
		s.Fatal(err)
	}
	if len(bound[listener]) == 0 {
		return nil
	}
	at := bound[listener][0]
	s.mark()
	nc, err := net.DialTimeout("tcp", at.String(), time.Second)
	if err != nil {
		return nil
	}
	s.Cleanup(func() { nc.Close() })
	return &client{TCPConn: nc.(*net.TCPConn), r: s.run, name: "client"}
}

func (s *stream) hello(c *client) string {
	if c == nil {
		return "nobody"
	}
	buf := make([]byte, 64)
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	n, err := c.Read(buf)
	_ = c.SetReadDeadline(time.Time{})
	if err != nil {
		return endText(err)
	}
	return strings.TrimSpace(string(buf[:n]))
}

// edsCluster asks ADS for its endpoints and waits for them for ever.
func edsCluster(name string) obj {
	return obj{"name": name, "type": "EDS", "connect_timeout": "5s", "eds_cluster_config": obj{
		"eds_config": obj{"ads": obj{}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}}}
}

func (o obj) service(name string) obj {
	o["eds_cluster_config"].(obj)["service_name"] = name
	return o
}

func (o obj) timeout(d string) obj {
	o["eds_cluster_config"].(obj)["eds_config"].(obj)["initial_fetch_timeout"] = d
	return o
}

// nowhere is an endpoint that nobody dials.
func nowhere(port int) obj {
	return obj{"endpoint": obj{"address": obj{"socket_address": obj{"address": "127.0.0.1", "port_value": port}}}}
}

func clusters(c ...obj) []obj { return c }

// free is a port that nobody listens on, called <name> in the record.
func (s *stream) free(name string) netip.AddrPort {
	s.Helper()
	p := freePort(s.TB, ownLoopback())
	s.call(p, name)
	return p
}

func addrPort(ln net.Listener) netip.AddrPort { return ln.Addr().(*net.TCPAddr).AddrPort() }

func (s *stream) addresses(listener string) []netip.AddrPort {
	s.Helper()
	bound, err := s.proxy.listening()
	if err != nil {
		s.Fatal(err)
	}
	return bound[listener]
}

// await waits for ok; what it was is in the record only if it never came.
func (s *stream) await(what string, ok func() bool) {
	s.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.note("never: %s", what)
			return
		}
	}
}

func name(prefix string, i int) string { return fmt.Sprintf("%s%04d", prefix, i) }

// asked waits for the first request of a type.
func (s *stream) asked(kind string) {
	s.Helper()
	s.script.Await(s.TB, "request for "+kind, func(r control.Request) bool { return r.TypeURL == types[kind] })
	s.settle()
}
