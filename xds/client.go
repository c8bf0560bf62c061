// Package xds is the client that joins the stream (ads), the decoders
// (resource) and the state machine (assemble): it turns what a control plane
// sends into snapshots and hands them to a Sink.
package xds

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/xds/ads"
	"github.com/sluice-proxy/sluice/xds/assemble"
	"github.com/sluice-proxy/sluice/xds/bootstrap"
	"github.com/sluice-proxy/sluice/xds/lrs"
	"github.com/sluice-proxy/sluice/xds/resolve"
	"github.com/sluice-proxy/sluice/xds/transport"
)

// Sink puts snapshots in force. Apply is synchronous: when it returns, s is in
// force except for the listeners named in Applied.Refused, for which the version
// before still is. Apply is never called concurrently.
type Sink interface {
	Apply(ctx context.Context, s *api.Snapshot) *api.Applied
}

// Options of a Client. Bootstrap, Sink, Stats and Log are required.
type Options struct {
	Bootstrap *bootstrap.Config
	Sink      Sink
	Stats     *stats.Store
	Log       *slog.Logger
	// Version of Sluice, sent as the node's user_agent_version if the bootstrap
	// gave neither that nor a build version.
	Version string
	// Workers scales listener_manager.listener_create_success, which Envoy
	// counts once per worker. 0 counts as 1.
	Workers int
	// Burst, if it is not nil, is called before a response of many resources is
	// decoded.
	Burst func()
	// Loads, if it is not nil, is what the load reports of the bootstrap's
	// load_stats_config are made of; without it there are none.
	Loads lrs.Loads
	// Backoff replaces the wait before reconnect n (from 1); ads.Jitter if nil.
	Backoff func(n int) time.Duration
}

// Client is the xDS client of one process.
//
// Run's goroutine alone decodes, assembles and publishes.
type Client struct {
	o           Options
	figures     *figures
	sources     // Run only
	initialized chan struct{}
	made        time.Time

	mu       sync.RWMutex // held by Run to write, by Dump to read
	model    *assemble.Model
	versions map[string]string // by type URL, last accepted

	// Run only from here.
	ctx     context.Context // Run's; nil before
	failed  error           // ends Run
	names   names
	secrets secrets
	layers  layers
	// secretsAsked says that ADS was asked for secrets before, extensionsAsked for
	// configurations of filters.
	secretsAsked, extensionsAsked bool
	fetches                       *fetches
	ttls                          *fetches // when resources end unless they are sent again
	// withheld are the CDS responses whose answer waits for warm clusters.
	withheld  []answer
	cdsDone   bool // answered or timed out, or not asked for
	cdsAsked  bool
	ldsAsked  bool
	ldsDone   bool
	ecdsEpoch uint64 // of the model, when ECDS was last told what is wanted
	again     bool   // a changed cluster waits for endpoints that EDS was asked for before
	edsEpoch  uint64 // of the model, when EDS was last told what is wanted
	begun     bool   // the layers of the runtime are there
	live      bool   // Initialized is closed
	held      bool   // the static listeners wait for the static clusters
	warm      warmNews
	demands   demands
	caches    api.DNSCaches
}

type answer struct {
	to  *ads.Response
	err error
}

// New checks o and returns a client that has not started yet.
func New(o Options) (*Client, error) {
	switch {
	case o.Bootstrap == nil, o.Sink == nil, o.Stats == nil, o.Log == nil:
		return nil, errors.New("make xds client: bootstrap, sink, stats and log are required")
	}
	o.Workers = max(o.Workers, 1)
	c := &Client{
		o: o, figures: newFigures(o.Stats, o.Log), model: assemble.New(),
		initialized: make(chan struct{}), made: time.Now(), versions: map[string]string{}, fetches: newFetches(), ttls: newFetches(),
		names: newNames(resolve.NewFigures(o.Stats).New), secrets: newSecrets(), layers: layers{moves: make(chan string)}, caches: maps.Clone(o.Bootstrap.DNSCaches),
	}
	if c.caches == nil {
		c.caches = api.DNSCaches{}
	}
	node, _ := proto.Clone(o.Bootstrap.Node).(*corev3.Node)
	if node != nil && node.GetUserAgentVersionType() == nil && o.Version != "" {
		node.UserAgentVersionType = &corev3.Node_UserAgentVersion{UserAgentVersion: o.Version}
	}
	c.warm.wake = make(chan struct{}, 1)
	if w, ok := o.Sink.(Warmer); ok {
		c.model.Checks = true
		w.OnWarm(c.warm.tell)
	}
	c.followDemands()
	return c, c.open(node)
}

// Initialized is closed when the static resources are in force and the first
// LDS response was handled or timed out.
func (c *Client) Initialized() <-chan struct{} { return c.initialized }

// Run applies the static resources, then follows the control plane until ctx
// ends, which is no error. It returns an error only if a static resource was
// refused. It may be called once.
func (c *Client) Run(ctx context.Context) error {
	if err := c.applyStatic(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer func() { cancel(); c.wg.Wait(); c.names.wg.Wait(); c.closeSecrets(); c.layers.close() }()
	c.ctx = ctx
	c.followNames()
	c.begin()
	c.start(ctx)
	c.loop(ctx)
	return c.failed
}

func (c *Client) loop(ctx context.Context) {
	defer c.fetches.stop()
	defer c.ttls.stop()
	for c.failed == nil {
		select {
		case <-ctx.Done():
			return
		case <-c.demands.wake:
			c.demanded()
		case <-c.warm.wake:
			c.checked(ctx)
		case e := <-c.events:
			c.event(ctx, e)
		case a := <-c.names.answers:
			c.answered(ctx, a)
		case dir := <-c.secrets.moves:
			c.moved(ctx, dir)
		case dir := <-c.layers.moves:
			c.readDisks(dir)
		case <-c.fetches.timer.C:
			c.overdue(ctx)
		case <-c.ttls.timer.C:
			c.expired(ctx)
		}
	}
}

func (c *Client) event(ctx context.Context, e ads.Event) {
	switch {
	case !c.knows(e.From): // it was told to stop while it had something to say
	case e.Opened:
		c.o.Log.Debug("xds stream open")
		c.figures.planes[e.From].opened()
		c.layersOpened(e.From)
	case e.Closed != nil:
		c.disconnected(e.From)
	case e.Unread != nil:
		c.unread(ctx, e)
	default:
		c.response(ctx, e.Response)
	}
}

// begin asks for the layers of the runtime, and for the rest when they are there.
func (c *Client) begin() {
	c.watchDisks()
	if !c.wantLayers() {
		c.beginResources()
	}
}

// beginResources subscribes to what is wanted from the start: the endpoints of
// static clusters. Clusters come when those are known, and listeners when the
// endpoints of all clusters are (Envoy starts LDS when the cluster manager is
// initialised).
func (c *Client) beginResources() {
	c.begun = true
	for _, s := range c.o.Bootstrap.Clusters {
		if s.Value.Discovery == api.EDS {
			c.subscribed(s.Value)
		}
	}
	c.wantEndpoints()
	c.wantExtensions()
	c.maybeClusters()
	c.maybeListeners()
}

// maybeClusters lets the static listeners in and asks for clusters once the static
// clusters are warm.
func (c *Client) maybeClusters() {
	if c.cdsAsked || !c.begun || c.model.Warming() > 0 {
		return
	}
	if c.held {
		c.held = false
		if c.failed = c.staticListeners(c.ctx); c.failed != nil {
			return
		}
		c.wantExtensions()
	}
	c.cdsAsked = true
	c.reportLoads()
	if c.cds == nil {
		c.cdsDone = true
		return
	}
	c.figures.cds.file = isFile(c.cds)
	c.figures.cds.started()
	c.cds.Subscribe(clusterURL, nil)
	c.fetches.start(fetch{clusterURL, ""}, c.o.Bootstrap.CDS.InitialFetchTimeout)
}

// reportLoads begins to report, as Envoy does once the static clusters are warm.
func (c *Client) reportLoads() {
	b := c.o.Bootstrap
	if b.LoadReports == nil || c.o.Loads == nil {
		return
	}
	r := lrs.New(lrs.Options{Node: c.node, Loads: c.o.Loads, Stats: c.o.Stats, Log: c.o.Log,
		Dial: func(ctx context.Context) (transport.Conn, error) { return c.dial.GRPC(ctx, *b.LoadReports) }})
	c.wg.Go(func() { r.Run(c.ctx) })
}

// maybeListeners asks for listeners once clusters and endpoints are there.
func (c *Client) maybeListeners() {
	if c.ldsAsked || !c.cdsDone || c.model.Warming() > 0 {
		return
	}
	c.ldsAsked = true
	if c.lds == nil {
		c.ldsDone = true
		c.maybeLive()
		return
	}
	c.figures.lds.file = isFile(c.lds)
	c.figures.lds.started()
	c.lds.Subscribe(listenerURL, nil)
	c.fetches.start(fetch{listenerURL, ""}, c.o.Bootstrap.LDS.InitialFetchTimeout)
}

// maybeLive tells that all is up once the first listeners are, and warm.
func (c *Client) maybeLive() {
	if !c.live && c.ldsDone && c.model.WarmingListeners() == 0 {
		c.live = true
		c.figures.workersStarted.Set(1)
		close(c.initialized)
	}
}

// disconnected: the answers that were withheld have nobody to go to; their
// versions count.
func (c *Client) disconnected(from ads.Source) {
	c.figures.planes[from].closed()
	if c.cdsAsked && c.cds == from {
		c.figures.cds.disconnected()
	}
	c.demandsDisconnected(from)
	if c.ldsAsked && c.lds == from {
		c.figures.lds.disconnected()
	}
	for _, e := range c.figures.eds {
		if e.from == from {
			e.disconnected()
		}
	}
	for _, key := range c.theirExtensions(from) {
		c.figures.extensions[key].disconnected()
	}
	c.theirs(from, func(_ string, f *secretFigures) { f.disconnected() })
	c.layersOf(from, func(*layer) { c.layers.figures.disconnected() })
	c.withheld = slices.DeleteFunc(c.withheld, func(a answer) bool {
		if a.to.From == from {
			c.answer(a.to, a.err)
		}
		return a.to.From == from
	})
}

// unread is a file that is no DiscoveryResponse, or a poll without an answer. As
// with a rejected response nobody waits any longer.
func (c *Client) unread(ctx context.Context, e ads.Event) {
	c.o.Log.Warn("resources could not be read", "err", e.Unread)
	switch {
	case e.From == c.cds:
		c.fetches.cancel(fetch{clusterURL, ""})
		c.figures.cds.disconnected()
		c.cdsDone = true
	case e.From == c.lds:
		c.fetches.cancel(fetch{listenerURL, ""})
		c.figures.lds.disconnected()
		c.ldsDone = true
		c.maybeLive()
	default:
		if key, f := alone(c.secrets.all, e.From); f != nil {
			f.disconnected()
			c.giveUpSecret(key)
			c.secretsRipe(ctx)
			return
		}
		if key, f := alone(c.figures.extensions, e.From); f != nil {
			f.disconnected()
			c.giveUpExtension(key)
			c.listenersWarmed(ctx)
			return
		}
		if c.layersUnread(e.From) {
			return
		}
		key, v := c.ownKey(e.From)
		if v == nil {
			return
		}
		c.figures.of(v).disconnected()
		c.fetches.cancel(fetch{endpointURL, key})
		c.mu.Lock()
		c.model.GiveUp(key)
		c.mu.Unlock()
	}
	c.wantEndpoints()
	c.publish(ctx)
	c.warmed()
}

// publish hands the next snapshot to the sink, if there is one, and returns those
// of its changed listeners that fell; only listener updates have any. Where one
// fell because of another, a second snapshot follows.
func (c *Client) publish(ctx context.Context) []assemble.Problem {
	var fell []assemble.Problem
	c.followNames()
	for {
		c.mu.Lock()
		s, changed := c.model.Snapshot(), c.model.Tentative()
		c.mu.Unlock()
		if s == nil {
			break
		}
		var refused map[string]error
		if applied := c.o.Sink.Apply(ctx, s); applied != nil {
			refused = applied.Refused
		}
		c.mu.Lock()
		problems := c.model.Commit(refused, time.Now())
		c.mu.Unlock()
		c.figures.createSuccess.Add(uint64((changed - len(problems)) * c.o.Workers))
		c.figures.createFailure.Add(uint64(len(problems)))
		fell = append(fell, problems...)
		if len(refused) > len(problems) {
			c.o.Log.Warn("listeners refused that did not change", "generation", s.Generation, "refused", len(refused))
		}
	}
	c.settleDemands()
	c.figures.listenersWarming.Set(uint64(c.model.WarmingListeners()))
	c.figures.listenersActive.Set(uint64(c.model.ActiveListeners()))
	c.figures.activeClusters.Set(uint64(c.model.ActiveClusters()))
	return fell
}
