package xds

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/time/rate"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/xds/ads"
	"github.com/sluice-proxy/sluice/xds/transport"
)

// sources are where resources come from: the aggregated stream, and one source
// for everything that has a config source of its own, as Envoy has it.
type sources struct {
	ads      *ads.Client // nil without ads_config
	cds, lds ads.Source  // nil if not asked for; may be ads
	// own are the subscriptions to endpoints that do not go over ads, by EDSKey.
	own    map[string]ownSource
	events chan ads.Event

	dial *transport.Dialer
	node *corev3.Node
	// run starts a source until its cancel is called; it is nil before Run.
	run func(ads.Source) context.CancelFunc
	wg  sync.WaitGroup
}

type ownSource struct {
	ads.Source
	cluster *api.Cluster
	stop    context.CancelFunc
}

// open makes the sources that the bootstrap names.
func (c *Client) open(node *corev3.Node) error {
	b := c.o.Bootstrap
	c.sources = sources{own: map[string]ownSource{}, events: make(chan ads.Event), node: node,
		dial: transport.New(transport.Options{Clusters: b.ControlPlanes, Resolver: b.Resolver, Resolve: c.names.resolver})}
	if b.ADS != nil {
		o := api.ConfigSource{Kind: api.FromGRPC, Delta: b.ADS.Delta, NodeOnce: b.ADS.SetNodeOnFirstMessageOnly, MaxTokens: b.ADS.MaxTokens, FillRate: b.ADS.FillRate}
		c.ads = c.stream(o, b.ADS.Service, "", "control_plane")
	}
	var err error
	if b.CDS != nil {
		if c.cds, err = c.source(b.CDS.ConfigSource, b.CDS.Service, clusterURL, "cluster_manager", "cds", "control_plane"); err != nil {
			return fmt.Errorf("dynamic_resources.cds_config: %w", err)
		}
	}
	if b.LDS != nil {
		if c.lds, err = c.source(b.LDS.ConfigSource, b.LDS.Service, listenerURL, "listener_manager", "lds", "control_plane"); err != nil {
			return fmt.Errorf("dynamic_resources.lds_config: %w", err)
		}
	}
	if err := c.openLayers(); err != nil {
		return err
	}
	for _, s := range b.Clusters {
		if k := s.Value.Source.Kind; s.Value.Discovery == api.EDS && c.ads == nil && (k == api.FromADS || k == api.FromSelf) {
			return fmt.Errorf("cluster %s: eds_cluster_config: needs dynamic_resources.ads_config", s.Value.Name)
		}
	}
	return nil
}

// source makes a source for one type, whose figures stand under stat.
func (c *Client) source(s api.ConfigSource, service transport.Service, typeURL string, stat ...any) (ads.Source, error) {
	switch s.Kind {
	case api.FromPath:
		return ads.NewPath(ads.PathOptions{Path: s.Path, Directory: s.Directory, WatchModify: s.WatchModify, TypeURL: typeURL, Events: c.events, Log: c.o.Log}), nil
	case api.FromREST:
		return ads.NewREST(ads.RESTOptions{
			Dial: func(ctx context.Context) (net.Conn, error) { return c.dial.HTTP(ctx, s.Cluster) },
			Host: s.Cluster, Node: c.node, TypeURL: typeURL, RefreshDelay: s.RefreshDelay, RequestTimeout: s.RequestTimeout,
			Events: c.events, Log: c.o.Log,
		}), nil
	case api.FromGRPC:
		if service.Cluster == "" {
			service = transport.Service{Cluster: s.Cluster, Authority: s.Authority, Metadata: s.Metadata}
		}
		if service.Authority == "" {
			service.Authority = service.Cluster
		}
		return c.stream(s, service, typeURL, stat...), nil
	}
	if c.ads == nil {
		return nil, fmt.Errorf("needs dynamic_resources.ads_config")
	}
	return c.ads, nil
}

func (c *Client) stream(s api.ConfigSource, service transport.Service, typeURL string, stat ...any) *ads.Client {
	plane := newPlaneFigures(c.o.Stats.Scope(stat...))
	o := ads.Options{
		Delta: s.Delta, Node: c.node, NodeOnce: s.NodeOnce, Backoff: c.o.Backoff, Log: c.o.Log, Events: c.events, TypeURL: typeURL,
		Dial: func(ctx context.Context) (transport.Conn, error) { return c.dial.GRPC(ctx, service) },
	}
	if s.MaxTokens > 0 {
		o.Limit, o.Limited = rate.NewLimiter(rate.Limit(s.FillRate), int(s.MaxTokens)), plane.limited.Inc
	}
	a := ads.New(o)
	c.figures.planes[a] = plane
	return a
}

// start runs the sources that are there, and lets those that come later run.
func (c *Client) start(ctx context.Context) {
	c.run = func(s ads.Source) context.CancelFunc {
		ctx, cancel := context.WithCancel(ctx)
		c.wg.Go(func() { _ = s.Run(ctx) }) // ends with ctx only
		return cancel
	}
	started := map[ads.Source]bool{}
	for _, s := range append(c.layers.sources(), c.cds, c.lds) {
		if s != nil && !started[s] {
			started[s] = true
			c.run(s)
		}
	}
	if c.ads != nil && !started[c.ads] {
		c.run(c.ads)
	}
	for key, o := range c.own {
		o.stop = c.run(o.Source)
		c.own[key] = o
	}
	for _, f := range c.secrets.all {
		f.start(c)
	}
	for _, e := range c.figures.extensions {
		e.start(c)
	}
}

// wantOwnEndpoints starts and ends the subscriptions that do not go over ads.
func (c *Client) wantOwnEndpoints() {
	want := c.model.OwnEDS()
	for key, o := range c.own {
		if want[key] == nil {
			if o.stop != nil {
				o.stop()
			}
			delete(c.figures.planes, o.Source)
			delete(c.own, key)
		}
	}
	for key, v := range want {
		if _, ok := c.own[key]; ok {
			continue
		}
		s, err := c.source(v.Source, transport.Service{}, endpointURL, "cluster", clusterTag(v), "control_plane")
		if err != nil {
			c.o.Log.Error("subscribe to endpoints", "cluster", v.Name, "err", err)
			continue
		}
		o := ownSource{Source: s, cluster: v}
		s.Subscribe(endpointURL, []string{v.EDSName()})
		if c.run != nil {
			o.stop = c.run(s)
		}
		c.own[key] = o
		c.figures.of(v).from = s
	}
}

// place settles where a cluster of r has its endpoints from, or says why it can
// have them from nowhere.
func (c *Client) place(v *api.Cluster) (*api.Cluster, error) {
	const path = "eds_cluster_config.eds_config"
	v = c.completed(v)
	if err := c.placeSecrets(v.SecretRefs()); err != nil {
		return v, fmt.Errorf("transport_socket: %w", err)
	}
	if err := c.admit(v.DNSCaches()); err != nil {
		return v, err
	}
	if v.Discovery != api.EDS {
		return v, nil
	}
	if v.Source.Kind == api.FromSelf {
		cp := *v
		wait := v.Source.InitialFetchTimeout
		cp.Source = c.o.Bootstrap.CDS.ConfigSource
		cp.Source.InitialFetchTimeout = wait
		v = &cp
	}
	switch s := v.Source; s.Kind {
	case api.FromADS:
		if c.ads == nil {
			return v, fmt.Errorf("%s.ads: ADS must be configured to support an ADS config source", path)
		}
	case api.FromPath:
		if _, err := os.Stat(s.Path); err != nil { // Envoy's words
			return v, fmt.Errorf("%s.path_config_source.path: paths must refer to an existing path in the system: '%s' does not exist", path, s.Path)
		}
	case api.FromGRPC, api.FromREST:
		if c.o.Bootstrap.ControlPlanes[s.Cluster] == nil {
			return v, fmt.Errorf("%s.api_config_source: envoy.config.core.v3.ApiConfigSource must have a statically defined non-EDS cluster: '%s' does not exist, was added via api, or is an EDS cluster", path, s.Cluster)
		}
	}
	return v, nil
}

func isFile(s ads.Source) bool { _, ok := s.(*ads.Path); return ok }

// edsSource is where c's endpoints come from; nil if there is none.
func (c *Client) edsSource(v *api.Cluster) ads.Source {
	if o, ok := c.own[v.EDSKey()]; ok {
		return o.Source
	}
	if c.ads == nil {
		return nil
	}
	return c.ads
}

func (c *Client) knows(from ads.Source) bool {
	if from == c.cds || from == c.lds || c.ads != nil && from == ads.Source(c.ads) {
		return true
	}
	if _, f := alone(c.secrets.all, from); f != nil {
		return true
	}
	if _, e := alone(c.figures.extensions, from); e != nil {
		return true
	}
	if c.demandedFrom(from) || slices.Contains(c.layers.sources(), from) {
		return true
	}
	_, v := c.ownKey(from)
	return v != nil
}

// ownKey finds the subscription that from is for; "" for the aggregated stream.
func (c *Client) ownKey(from ads.Source) (key string, cluster *api.Cluster) {
	if c.ads != nil && from == ads.Source(c.ads) {
		return "", nil
	}
	for key, o := range c.own {
		if o.Source == from {
			return key, o.cluster
		}
	}
	return "", nil
}

// shown is an EDS name without what tells subscriptions apart.
func shown(key string) string {
	name, _, _ := strings.Cut(key, "\x00")
	return name
}
