package control_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	// The types that resources are written in.
	_ "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	"golang.org/x/tools/txtar"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/test/control"
	"github.com/sluice-proxy/sluice/xds"
	"github.com/sluice-proxy/sluice/xds/bootstrap"
	"github.com/sluice-proxy/sluice/xds/transport"
)

// The stories of testdata are what four control planes were seen to say, in order
// and content. Their commands:
//
//	api GRPC|DELTA_GRPC          start the client
//	send TYPE VERSION RES...     one response; RES is a file, FILE=VERSION, or -NAME (removed)
//	want REQUEST                 the next request, in control.Request's form
//	quiet                        no request comes
//	close CODE TEXT              the server ends the stream
//	hosts CLUSTER ADDR...        the endpoints in force
//	listeners NAME...            the listeners in force
//	unchanged                    nothing was published since the last such line
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("find stories: %v, %d files", err, len(files))
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(f)
			if err != nil {
				t.Fatal(err)
			}
			s := &story{T: t, files: map[string][]byte{}, sink: &sink{changed: make(chan struct{}, 1)}}
			for _, r := range ar.Files {
				s.files[r.Name] = r.Data
			}
			for n, line := range strings.Split(string(ar.Comment), "\n") {
				if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
					s.at = fmt.Sprintf("%s:%d: %s", f, n+1, line)
					s.do(line)
				}
			}
		})
	}
}

type story struct {
	*testing.T
	files map[string][]byte
	at    string
	delta bool
	cp    *control.Script
	sink  *sink
	nonce int
	seen  int // snapshots at the last `unchanged`
}

type sink struct {
	mu      sync.Mutex
	all     []*api.Snapshot
	changed chan struct{}
}

func (s *sink) Apply(_ context.Context, snap *api.Snapshot) *api.Applied {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, snap)
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return &api.Applied{Generation: snap.Generation}
}

func (s *sink) last() (*api.Snapshot, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[len(s.all)-1], len(s.all)
}

func (s *story) do(line string) {
	s.Helper()
	verb, rest, _ := strings.Cut(line, " ")
	args := strings.Fields(rest)
	switch verb {
	case "api":
		s.start(args[0] == "DELTA_GRPC")
	case "send":
		s.send(args[0], strings.Trim(args[1], `"`), args[2:])
	case "want":
		if got := strings.ReplaceAll(s.cp.Next(s.T).String(), "\n", `\n`); got != rest {
			s.Fatalf("%s\nrequest %s", s.at, got)
		}
	case "quiet":
		s.cp.Quiet(s.T, 50*time.Millisecond)
	case "close":
		n := s.cp.Streams()
		var code codes.Code
		if err := code.UnmarshalJSON([]byte(`"` + args[0] + `"`)); err != nil {
			s.Fatalf("%s: %v", s.at, err)
		}
		s.cp.Close(status.Error(code, strings.Join(args[1:], " ")))
		s.cp.AwaitStream(s.T, n+1)
	case "hosts":
		s.await(func(snap *api.Snapshot) string { return hosts(snap.Clusters.Get(args[0])) }, strings.Join(args[1:], " "))
	case "listeners":
		s.await(func(snap *api.Snapshot) string {
			var out []string
			for _, l := range snap.Listeners {
				out = append(out, l.Name)
			}
			return strings.Join(out, " ")
		}, strings.Join(args, " "))
	case "unchanged":
		_, n := s.sink.last()
		if s.seen != 0 && n != s.seen {
			s.Fatalf("%s\n%d snapshots since", s.at, n-s.seen)
		}
		s.seen = n
	default:
		s.Fatalf("%s: no such command", s.at)
	}
}

func hosts(c *api.Cluster) string {
	if c == nil {
		return "no cluster"
	}
	var out []string
	for _, l := range c.Assignment.Localities {
		for _, e := range l.Endpoints {
			out = append(out, e.Addr.String())
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (s *story) await(have func(*api.Snapshot) string, want string) {
	s.Helper()
	deadline := time.NewTimer(control.Patience)
	defer deadline.Stop()
	for {
		snap, _ := s.sink.last()
		got := have(snap)
		if got == want {
			return
		}
		select {
		case <-s.sink.changed:
		case <-deadline.C:
			s.Fatalf("%s\nin force: %s", s.at, got)
		}
	}
}

func (s *story) start(delta bool) {
	s.delta, s.cp = delta, control.StartScript(s.T)
	c, err := xds.New(xds.Options{Sink: s.sink, Stats: stats.New(), Log: slog.New(slog.DiscardHandler),
		Backoff: func(int) time.Duration { return time.Millisecond },
		Bootstrap: &bootstrap.Config{Node: &corev3.Node{Id: "n", Cluster: "c"}, LDS: &bootstrap.Source{}, CDS: &bootstrap.Source{},
			ControlPlanes: map[string]*transport.Cluster{"xds": {Name: "xds", Endpoints: []transport.Endpoint{{Addr: netip.AddrPort(s.cp.Addr())}}}},
			ADS:           &bootstrap.ADS{Delta: delta, Service: transport.Service{Cluster: "xds", Authority: "xds"}, SetNodeOnFirstMessageOnly: true}}})
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	s.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.Errorf("run: %v", err)
		}
	})
	s.cp.AwaitStream(s.T, 1)
}

var types = map[string]string{"LDS": resourcev3.ListenerType, "CDS": resourcev3.ClusterType, "EDS": resourcev3.EndpointType}

func (s *story) send(kind, version string, resources []string) {
	s.Helper()
	s.nonce++
	url, nonce := types[kind], fmt.Sprint("n", s.nonce)
	w := &discoveryv3.DiscoveryResponse{TypeUrl: url, VersionInfo: version, Nonce: nonce}
	d := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url, SystemVersionInfo: version, Nonce: nonce}
	for _, r := range resources {
		if name, gone := strings.CutPrefix(r, "-"); gone {
			d.RemovedResources = append(d.RemovedResources, name)
			continue
		}
		file, v, _ := strings.Cut(r, "=")
		text, err := yaml.YAMLToJSON(s.files[file])
		if err != nil {
			s.Fatalf("%s: %s: %v", s.at, file, err)
		}
		a := new(anypb.Any)
		if err := protojson.Unmarshal([]byte(fmt.Sprintf(`{"@type": %q, %s`, url, strings.TrimPrefix(strings.TrimSpace(string(text)), "{"))), a); err != nil {
			s.Fatalf("%s: %s: %v", s.at, file, err)
		}
		w.Resources = append(w.Resources, a)
		name, _, _ := strings.Cut(file, "@") // c@2 is another version of c
		d.Resources = append(d.Resources, &discoveryv3.Resource{Name: name, Version: v, Resource: a})
	}
	if s.delta {
		s.cp.SendDelta(s.T, d)
		return
	}
	s.cp.Send(s.T, w)
}
