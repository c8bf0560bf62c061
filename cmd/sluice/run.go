package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/cmd/sluice/admin"
	"github.com/sluice-proxy/sluice/dataplane"
	"github.com/sluice-proxy/sluice/dataplane/dnscache"
	"github.com/sluice-proxy/sluice/dataplane/drain"
	"github.com/sluice-proxy/sluice/dataplane/overload"
	"github.com/sluice-proxy/sluice/xds"
	"github.com/sluice-proxy/sluice/xds/bootstrap"
	"github.com/sluice-proxy/sluice/xds/resolve"
)

// spareProcs are Go's processors beside the workers: after epoll_wait a worker
// needs one at once, whatever decodes or scrapes at the moment.
const spareProcs = 2

func (o *options) run(ctx context.Context, e env) error {
	switch {
	case o.version:
		// kuma-dp takes the version apart: five parts between slashes.
		fmt.Fprintf(e.stdout, "\nsluice  version: %s\n\n", o.versionText())
		return nil
	case o.hotRestartVersion:
		fmt.Fprintln(e.stdout, "disabled")
		return nil
	}
	if o.mode != "serve" && o.mode != "validate" && o.mode != "init_only" {
		return fmt.Errorf("error: unknown mode '%s'", o.mode) // Envoy's words, as all of these
	}
	if !slices.Contains([]string{"", "v4", "v6"}, o.localAddressVersion) {
		return fmt.Errorf("error: unknown IP address version '%s'", o.localAddressVersion)
	}
	draining, err := o.drain()
	if err != nil {
		return err
	}
	tags, err := readStatsTags(o.statsTags)
	if err != nil {
		return err
	}
	log, err := newLogger(o.logLevel, o.logPath, e)
	if err != nil {
		return err
	}
	defer log.close()
	if err := log.setComponents(o.componentLogLevel); err != nil {
		return err
	}
	if len(o.idle) > 0 {
		log.Debug("flags accepted without effect", "flags", o.idle)
	}
	config, err := bootstrap.Load(bootstrap.Options{
		Path: o.configPath, YAML: o.configYAML, AllowUnknownStatic: o.allowUnknownStatic || o.allowUnknown,
		ServiceNode: o.serviceNode, ServiceCluster: o.serviceCluster, ServiceZone: o.serviceZone,
		BuildVersion: o.envoyVersion,
	})
	if err != nil {
		return err
	}
	if o.mode == "validate" {
		// What it measures has to be there.
		m, err := overload.New(overload.Options{Config: config.Overload, Stats: stats.New()})
		if err != nil {
			return err
		}
		m.Close()
		fmt.Fprintf(e.stdout, "configuration '%s' OK\n", o.configPath)
		return nil
	}
	warnIdle(log, "static clusters ask for what traffic cannot have yet: Sluice alone connects to them, what is sent there ends", config.Reserved)
	return o.serve(ctx, config, draining, tags, log)
}

// warnIdle is one line for all of them.
func warnIdle(log *logger, what string, idle []bootstrap.Idle) {
	if len(idle) == 0 {
		return
	}
	var names []string
	for _, i := range idle {
		names = append(names, i.Name)
	}
	log.Warn(what, "names", names, "first_reason", idle[0].Why)
}

func (o *options) serve(ctx context.Context, config *bootstrap.Config, draining dataplane.DrainOptions, tags []stats.Tag, log *logger) (err error) {
	started := time.Now()
	workers := int(o.concurrency)
	if workers == 0 {
		workers = runtime.NumCPU()
	}
	runtime.GOMAXPROCS(workers + spareProcs)
	ctx, quit := context.WithCancel(ctx)
	defer quit()

	store := stats.New()
	store.SetBuckets(admin.HistogramBuckets(config.Proto.GetStatsConfig(), log.Logger))
	// The admin port comes first: a launcher waits for it.
	var adminListener net.Listener
	if config.Admin != nil {
		if adminListener, err = listenAdmin(ctx, config.Admin); err != nil {
			return err
		}
		defer adminListener.Close()
		if o.adminAddressPath != "" {
			if err := os.WriteFile(o.adminAddressPath, []byte(adminListener.Addr().String()), 0o644); err != nil {
				return fmt.Errorf("write --admin-address-path: %w", err)
			}
		}
	}
	capture, err := o.capture()
	if err != nil {
		return err
	}
	inbound, err := o.inbound()
	if err != nil {
		return err
	}
	node, err := proto.Marshal(config.Node)
	if err != nil {
		return fmt.Errorf("write node: %w", err)
	}
	questions := resolve.NewFigures(store)
	resolver := func(r *api.Resolver) dnscache.Resolver {
		if r == nil {
			r = config.Resolver
		}
		if r == nil {
			r = &api.Resolver{}
		}
		return questions.New(*r)
	}
	plane, err := dataplane.New(dataplane.Options{Resolver: resolver, Home: config.Home(), LocalCluster: config.Proto.GetClusterManager().GetLocalClusterName(), Capture: capture, Inbound: inbound, Drain: draining, Concurrency: workers, Splice: o.splice, Graft: o.grafts(), SpliceMemory: o.spliceMemory, Limits: dataplane.Limits(config.Limits()), Stats: store, Log: log.Logger,
		Runtime: config.Runtime, Overload: config.Overload, OutlierLog: config.Proto.GetClusterManager().GetOutlierDetection().GetEventLogPath(), FlushInterval: time.Duration(o.fileFlushInterval) * time.Millisecond, FlushSize: int(o.fileFlushSize) << 10, Node: node})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plane.Close()) }()
	config.Runtime.OnChange(func() { plane.SetLimits(dataplane.Limits(config.Limits())) })
	reopen := plane.ReopenLogs
	log.also.Store(&reopen)
	client, err := xds.New(xds.Options{Bootstrap: config, Sink: plane, Loads: plane, Stats: store, Log: log.Logger, Version: o.envoyVersion, Workers: workers, Burst: newGarbage().burst})
	if err != nil {
		return err
	}
	state := watchState(ctx, client, store)
	if o.mode == "init_only" { // all is initialised, and that is all
		go func() {
			select {
			case <-client.Initialized():
				quit()
			case <-ctx.Done():
			}
		}()
	}

	// Without an address it tells the sinks, and answers nobody.
	server, err := admin.New(admin.Options{
		Sinks: sinks(config.StatsSinks, plane, log), StatsTags: tags,
		Bootstrap: config.Proto, Node: config.Node, Runtime: config.Runtime, Version: o.versionText(), Flags: o.all, Started: started,
		Concurrency: workers, Stats: store, Plane: plane, Configs: client, Loggers: log, State: state, Quit: quit, Log: log.Logger,
	})
	if err != nil {
		return err
	}
	flushed := make(chan struct{})
	go func() { defer close(flushed); server.Flush(ctx) }()
	defer func() { quit(); <-flushed }()
	var adminDone chan error
	if adminListener != nil {
		adminDone = make(chan error, 1)
		go serveAdmin(ctx, server, adminListener, adminDone)
		log.Info("admin address", "address", adminListener.Addr())
	}
	err = client.Run(ctx)
	quit()
	if adminDone != nil {
		err = errors.Join(err, <-adminDone)
	}
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}

func listenAdmin(ctx context.Context, a *bootstrap.Admin) (net.Listener, error) {
	if a.Path != "" {
		return admin.ListenUnix(ctx, a.Path, a.Mode)
	}
	return admin.Listen(ctx, a.Addr)
}

func serveAdmin(ctx context.Context, s *admin.Server, l net.Listener, done chan<- error) {
	done <- s.Serve(ctx, l)
}

// watchState follows the start: initializing until the first listeners are
// there, live from then on whatever becomes of the control plane.
func watchState(ctx context.Context, client *xds.Client, store *stats.Store) func() admin.State {
	var live atomic.Bool
	started := store.Scope("listener_manager").Gauge("workers_started")
	started.Set(0)
	go func() {
		select {
		case <-client.Initialized():
			live.Store(true)
			started.Set(1)
		case <-ctx.Done():
		}
	}()
	return func() admin.State {
		if live.Load() {
			return admin.Live
		}
		return admin.PreInitializing
	}
}

// drain reads what the flags say of drains.
func (o *options) drain() (d dataplane.DrainOptions, err error) {
	if d.Strategy, err = drain.ParseStrategy(o.drainStrategy); err != nil {
		return d, err
	}
	if o.onUpdate != "keep" && o.onUpdate != "drain" {
		return d, fmt.Errorf("read --on-update: %q is none of keep, drain", o.onUpdate)
	}
	d.OnUpdate = o.onUpdate == "drain"
	// 0 is no time at all here, and the default to the plane.
	d.Time = max(time.Duration(o.drainTime)*time.Second, 1)
	return d, nil
}

// versionText has Envoy's five parts: revision, compatible version, state of
// the tree, build, TLS library.
func (o *options) versionText() string {
	revision, tree := "0000000000000000000000000000000000000000", "Clean"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				tree = "Modified"
			}
		}
	}
	return fmt.Sprintf("%s/%s/%s/RELEASE/GoTLS", revision, o.envoyVersion, tree)
}
