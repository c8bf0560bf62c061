// Package lrs speaks the load reporting service: a stream on which the server says
// which clusters' load it wants to know and how often, and on which it is told. What
// Envoy 1.40 was seen to send decides.
package lrs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	lrsv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/xds/transport"
)

const (
	method = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
	// retryDelay is Envoy's; it does not grow.
	retryDelay = 5 * time.Second
	// minInterval is the pause for a server that asks for none.
	minInterval = 10 * time.Millisecond
	// sendsAll tells the server that send_all_clusters is understood.
	sendsAll = "envoy.lrs.supports_send_all_clusters"
)

// Loads are the figures that reports are made of. Both are called on Run's goroutine.
type Loads interface {
	// ClusterNames are those of the clusters in force.
	ClusterNames() []string
	// TakeLoad is what the hosts of a cluster were given since it was called last;
	// false, if there is no such cluster.
	TakeLoad(cluster string) (api.ClusterLoad, bool)
}

// Options of a Reporter; all but Retry are required.
type Options struct {
	// Dial makes one connection for one stream, and one attempt at it.
	Dial  func(context.Context) (transport.Conn, error)
	Node  *corev3.Node
	Loads Loads
	Stats *stats.Store
	Log   *slog.Logger
	// Retry is how long to wait before another stream, 5 s if 0.
	Retry time.Duration
}

// Reporter reports to one server. All of it is Run's goroutine's.
type Reporter struct {
	o       Options
	node    *corev3.Node
	figures figures
	// wanted is what the server asked for last, also on an earlier stream; nil before.
	wanted *lrsv3.LoadStatsResponse
	// since is when the time began that the next report on a cluster is about.
	since map[string]time.Time
	// told is the last failure that was logged, but for what changes of it.
	told string
}

type figures struct{ requests, responses, errors, retries *stats.Counter }

// New makes a reporter; Run starts it.
func New(o Options) *Reporter {
	if o.Retry == 0 {
		o.Retry = retryDelay
	}
	sc := o.Stats.Scope("load_reporter")
	node := proto.CloneOf(o.Node)
	node.ClientFeatures = append(node.ClientFeatures, sendsAll)
	return &Reporter{o: o, node: node, since: map[string]time.Time{},
		figures: figures{sc.Counter("requests"), sc.Counter("responses"), sc.Counter("errors"), sc.Counter("retries")}}
}

// Run keeps a stream until ctx ends.
func (r *Reporter) Run(ctx context.Context) {
	for {
		err := r.stream(ctx)
		if ctx.Err() != nil {
			return
		}
		r.ended(err)
		retry := time.NewTimer(r.o.Retry)
		select {
		case <-ctx.Done():
			retry.Stop()
			return
		case <-retry.C:
		}
		r.figures.retries.Inc()
	}
}

// ended counts and logs the end of a stream; what repeats itself is for debugging.
func (r *Reporter) ended(err error) {
	level := slog.LevelDebug
	if errors.Is(err, io.EOF) {
		r.told = ""
	} else {
		r.figures.errors.Inc()
		if now := status.Code(err).String(); now != r.told {
			r.told, level = now, slog.LevelWarn
		}
	}
	r.o.Log.Log(context.Background(), level, "load report stream closed", "err", err, "retry_in", r.o.Retry)
}

// stream lives through one stream; io.EOF is its end by the server in good order.
func (r *Reporter) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, err := r.o.Dial(ctx)
	if err != nil {
		r.figures.responses.Inc() // Envoy has written its first report then
		return err
	}
	defer conn.Close()
	g, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return fmt.Errorf("open stream: %w", err)
	}
	timer := time.NewTimer(0)
	timer.Stop()
	defer timer.Stop()
	asked, ended := make(chan *lrsv3.LoadStatsResponse), make(chan error, 1)
	go func() { ended <- receive(ctx, g, asked) }()
	defer func() { cancel(); <-ended }()
	if err := r.report(g, timer); err != nil {
		return r.cause(err, ended)
	}
	for {
		select {
		case m := <-asked:
			r.wanted = m
			r.figures.requests.Inc()
			r.begin(timer)
		case err := <-ended:
			ended <- err
			return err
		case <-timer.C:
			if err := r.report(g, timer); err != nil {
				return r.cause(err, ended)
			}
		}
	}
}

// cause is why nothing can be sent any more: it is the receiver who learns that.
func (r *Reporter) cause(sent error, ended chan error) error {
	if !errors.Is(sent, io.EOF) {
		return sent
	}
	err := <-ended
	ended <- err
	return err
}

// receive hands over what the server says until the stream ends.
func receive(ctx context.Context, g grpc.ClientStream, asked chan<- *lrsv3.LoadStatsResponse) error {
	for {
		m := new(lrsv3.LoadStatsResponse)
		if err := g.RecvMsg(m); err != nil {
			return err
		}
		select {
		case asked <- m:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// begin has reports be about what is wanted from now on. The time of a cluster that
// was reported on before goes on.
func (r *Reporter) begin(timer *time.Timer) {
	names := r.wanted.GetClusters()
	if r.wanted.GetSendAllClusters() {
		names = r.o.Loads.ClusterNames()
	}
	now, before := time.Now(), r.since
	r.since = make(map[string]time.Time, len(names))
	for _, n := range names {
		if at, ok := before[n]; ok {
			r.since[n] = at
			continue
		}
		if _, twice := r.since[n]; !twice {
			r.since[n] = now
			r.o.Loads.TakeLoad(n) // what came before is of no interest
		}
	}
	timer.Reset(max(r.wanted.GetLoadReportingInterval().AsDuration(), minInterval))
}

// report tells of what is wanted; of nothing on the first stream, but for the node.
func (r *Reporter) report(g grpc.ClientStream, timer *time.Timer) error {
	q := &lrsv3.LoadStatsRequest{Node: r.node}
	for _, name := range slices.Sorted(maps.Keys(r.since)) {
		load, ok := r.o.Loads.TakeLoad(name)
		if !ok {
			continue
		}
		now := time.Now()
		q.ClusterStats = append(q.ClusterStats, clusterStats(name, &load, now.Sub(r.since[name]), r.wanted.GetReportEndpointGranularity()))
		r.since[name] = now
	}
	r.figures.responses.Inc()
	if err := g.SendMsg(q); err != nil {
		return err
	}
	if r.wanted != nil {
		r.begin(timer)
	}
	return nil
}
