// Package admin is the admin server: Envoy's paths, forms and status codes for
// what exists here, and Sluice's own /connections and /splice.
//
// A handler renders its whole answer into memory before a byte is sent, one
// request at a time, as Envoy's main thread does. A slow client therefore holds
// a buffer and a connection, both bounded, and never a lock.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/net/netutil"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/xds"
)

// Limits on clients. A scrape of 10 000 clusters takes well under a second, so
// whoever needs longer than this is not a scraper.
const (
	maxConnections    = 64
	maxHeaderBytes    = 64 << 10
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = time.Minute
)

// defaultFlushInterval is bootstrap.proto's stats_flush_interval.
const defaultFlushInterval = 5 * time.Second

// Plane is what the admin server reads from the data plane.
type Plane interface {
	Listeners() []api.ListenerStatus
	Clusters() []api.ClusterStatus
	Connections() []api.Connection
	Splice() api.SpliceStatus
	Capture() api.CaptureStatus
	// Route says what becomes of a captured program's connection; false: capture
	// is off.
	Route(netip.AddrPort) (api.RouteDecision, bool)
	// InboundRoute does so for a connection that comes from outside.
	InboundRoute(netip.AddrPort) (api.RouteDecision, bool)
	// Flush brings the byte counters in the store up to date.
	Flush()
	// DrainListeners is /drain_listeners, with its parameters.
	DrainListeners(inboundOnly, graceful, skipExit bool)
	// ReopenLogs opens the access logs' files anew.
	ReopenLogs()
	// FailHealthChecks says whether /healthcheck/fail is in force.
	FailHealthChecks(bool)
}

// Configs is what the admin server reads from the xDS client.
type Configs interface {
	Dump() xds.Dump
	Unready() []xds.Unready
	TLSContexts() []xds.TLSContext
}

// Loggers are the log levels that /logging shows and changes.
type Loggers interface {
	// Levels returns name and level of every logger, sorted by name.
	Levels() [][2]string
	// SetLevel changes one logger, or all of them if name is empty. It returns
	// ErrUnknownLogger or ErrUnknownLevel.
	SetLevel(name, level string) error
}

// What Loggers answer.
var (
	ErrUnknownLogger = errors.New("unknown logger name")
	ErrUnknownLevel  = errors.New("unknown logger level")
)

// State is the server's, with the numbers of Envoy's ServerInfo.State.
type State int

// The states.
const (
	Live State = iota
	Draining
	PreInitializing // clusters are not there yet
	Initializing    // listeners are not there yet
)

func (s State) String() string {
	return [...]string{"LIVE", "DRAINING", "PRE_INITIALIZING", "INITIALIZING"}[s]
}

// Options of a Server. All are required, but Bootstrap, Node and Runtime may be nil.
type Options struct {
	Bootstrap *bootstrapv3.Bootstrap
	Node      *corev3.Node
	// Runtime may be nil.
	Runtime *runtime.Runtime
	// Version has five parts: revision/version/status/build/TLS library.
	Version string
	// Flags are the command line's values by flag name.
	Flags   map[string]string
	Started time.Time
	// Concurrency is the number of workers.
	Concurrency int
	Stats       *stats.Store
	// StatsTags are tags of every figure (--stats-tag).
	StatsTags []stats.Tag
	Plane     Plane
	Configs   Configs
	Loggers   Loggers
	// State is how far the start has got; /healthcheck/fail is added to it.
	State func() State
	// Sinks are told the figures; Flush calls them.
	Sinks []Sink
	// Quit begins an orderly exit; it must not block.
	Quit func()
	Log  *slog.Logger
}

// Server answers admin requests. It has no state of its own but the health
// check's flag.
type Server struct {
	o      Options
	allow  func(pathAndQuery string) bool
	routes map[string]*route
	server *serverStats
	own    *ownFigures // nil before Serve
	view   *statsView  // while rendering is held
	// records are what histograms recorded, asked wakes Flush.
	records chan record
	asked   chan struct{}
	failed  atomic.Bool // /healthcheck/fail

	rendering sync.Mutex // held while a handler builds its answer
	profile   *os.File   // of the CPU, while one is written; while rendering is held
	lookups   bool       // /stats/recentlookups/enable; while rendering is held
}

// New returns a server that does not listen yet. It returns an error if
// admin.allow_paths holds a pattern that does not compile.
func New(o Options) (*Server, error) {
	s := &Server{o: o, server: newServerStats(o), view: newStatsView(o.Bootstrap.GetStatsConfig(), o.StatsTags, o.Log),
		records: make(chan record, maxRecords), asked: make(chan struct{}, 1)}
	s.observe()
	var err error
	if s.allow, err = allowPaths(o.Bootstrap.GetAdmin().GetAllowPaths()); err != nil {
		return nil, err
	}
	s.routes = map[string]*route{}
	for _, r := range s.table() {
		s.routes[r.path] = r
	}
	return s, nil
}

// Listen binds the admin address; port 0 lets the kernel choose.
func Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	network := "tcp6" // not "tcp", which would bind 0.0.0.0 for IPv6 too
	if addr.Addr().Is4() {
		network = "tcp4"
	}
	l, err := new(net.ListenConfig).Listen(ctx, network, addr.String())
	if err != nil {
		return nil, fmt.Errorf("bind admin address %s: %w", addr, cause(err))
	}
	return l, nil
}

// ListenUnix binds a unix socket as Envoy does: what is at path is removed first,
// and the socket stays when the process ends. mode 0 leaves it to the umask.
func ListenUnix(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	abstract := strings.HasPrefix(path, "@")
	if !abstract {
		_ = os.Remove(path) // binding tells what is wrong
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("bind admin address %s: %w", path, cause(err))
	}
	// A successor may have bound the path by the time this process ends.
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if mode != 0 && !abstract {
		if err := os.Chmod(path, mode); err != nil {
			_ = l.Close() // the error that counts is err
			return nil, fmt.Errorf("bind admin address %s: %w", path, err)
		}
	}
	return l, nil
}

// cause drops net.OpError's own telling of the address.
func cause(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		return op.Err
	}
	return err
}

// Serve answers requests on l until ctx ends. It closes l, and gives running
// requests a second to end.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	s.own = newOwnFigures(s.o.Stats)
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, ownConnKey{}, c)
		},
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.endProfile()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { shutdownAtEnd(ctx, srv) })
	if err := srv.Serve(ownListener{netutil.LimitListener(l, maxConnections), s.own}); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve admin: %w", err)
	}
	return nil
}

func shutdownAtEnd(ctx context.Context, srv *http.Server) {
	<-ctx.Done()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		srv.Close()
	}
}

// state is the one that is shown: a failed health check drains a live server
// (Envoy's Utility::serverState).
func (s *Server) state() State {
	st := s.o.State()
	if st == Live && s.failed.Load() {
		return Draining
	}
	return st
}
