package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sluice-proxy/sluice/cmd/sluice/admin"
)

// levels are Envoy's, as slog has them.
var levels = []struct {
	name  string
	level slog.Level
}{
	{"trace", -8}, {"debug", slog.LevelDebug}, {"info", slog.LevelInfo}, {"warning", slog.LevelWarn},
	{"error", slog.LevelError}, {"critical", 12}, {"off", 100},
}

func parseLevel(name string) (slog.Level, bool) {
	if name == "warn" {
		name = "warning"
	}
	for _, l := range levels {
		if l.name == name {
			return l.level, true
		}
	}
	return 0, false
}

// loggerNames are Envoy's, in its order.
var loggerNames = []string{
	"a2a", "admin", "ai_protocol_manager", "alternate_protocols_cache", "aws", "assert", "backtrace", "basic_auth",
	"cache_filter", "client", "config", "connection", "conn_handler", "compression", "credential_injector",
	"decompression", "dns", "dubbo", "envoy_bug", "ext_authz", "ext_proc", "rocketmq", "file", "filter",
	"forward_proxy", "geolocation", "grpc", "happy_eyeballs", "hc", "health_checker", "http", "http2", "hystrix",
	"init", "io", "jwt", "json_rpc", "kafka", "key_value_store", "lua", "local_rate_limit", "main", "matcher", "mcp",
	"misc", "mongo", "multi_connection", "notification", "oauth2", "quic", "quic_stream", "pool", "rate_limit_quota",
	"rbac", "rds", "redis", "router", "runtime", "stats", "secret", "sse", "tap", "testing", "thrift", "tracing",
	"upstream", "udp", "wasm", "websocket", "golang", "stats_sinks", "dynamic_modules", "ip_tagging",
}

// logger is the process's log. To /logging it answers as Envoy's loggers, each
// with a level of its own; what is written is what the most talkative lets through.
type logger struct {
	*slog.Logger
	level slog.LevelVar
	mu    sync.Mutex
	of    []slog.Level // those of loggerNames; guarded by mu
	file  *logFile     // nil when the log goes to stderr
	stop  context.CancelFunc
	done  chan struct{}
	// also is what else is opened anew by SIGUSR1: the access logs.
	also atomic.Pointer[func()]
}

func newLogger(level, path string, e env) (*logger, error) {
	l := new(logger)
	v, ok := parseLevel(level)
	if !ok {
		return nil, fmt.Errorf("error: invalid log level specified '%s'", level)
	}
	l.level.Set(v)
	l.of = slices.Repeat([]slog.Level{v}, len(loggerNames))
	out := e.stderr
	if path != "" {
		l.file = &logFile{path: path}
		if err := l.file.open(); err != nil {
			return nil, fmt.Errorf("open --log-path: %w", err)
		}
		out = l.file
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.stop, l.done = cancel, make(chan struct{})
	go l.reopenOnSignal(ctx, e.reopen)
	l.Logger = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: &l.level}))
	return l, nil
}

func (l *logger) reopenOnSignal(ctx context.Context, signals <-chan os.Signal) {
	defer close(l.done)
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			if l.file != nil {
				if err := l.file.open(); err != nil {
					l.Error("open log file anew", "error", err)
				}
			}
			if also := l.also.Load(); also != nil {
				(*also)()
			}
		}
	}
}

func (l *logger) close() {
	l.stop()
	<-l.done
	if l.file != nil {
		l.file.close()
	}
}

// Levels and SetLevel are for /logging.
func (l *logger) Levels() [][2]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([][2]string, len(loggerNames))
	for i, name := range loggerNames {
		out[i] = [2]string{name, levelName(l.of[i])}
	}
	return out
}

func levelName(v slog.Level) string {
	for _, l := range levels {
		if l.level == v {
			return l.name
		}
	}
	return v.String()
}

// setComponents is --component-log-level: names with levels. Its errors are Envoy's.
func (l *logger) setComponents(list string) error {
	if list == "" {
		return nil
	}
	for _, one := range strings.Split(list, ",") {
		name, level, ok := strings.Cut(one, ":")
		if !ok || strings.Contains(level, ":") {
			return fmt.Errorf("error: component log level not correctly specified '%s'", one)
		}
		if _, known := parseLevel(level); !known {
			return fmt.Errorf("error: invalid log level specified '%s'", level)
		}
		if name == "" || l.SetLevel(name, level) != nil {
			return fmt.Errorf("error: invalid component specified '%s'", name)
		}
	}
	return nil
}

func (l *logger) SetLevel(name, level string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := slices.Index(loggerNames, name)
	if name != "" && at < 0 {
		return admin.ErrUnknownLogger
	}
	v, ok := parseLevel(level)
	if !ok || level == "warn" { // which Envoy takes on its command line only
		return admin.ErrUnknownLevel
	}
	if name == "" {
		for i := range l.of {
			l.of[i] = v
		}
	} else {
		l.of[at] = v
	}
	l.level.Set(slices.Min(l.of))
	return nil
}

// logFile is a file that can be opened anew while it is written to.
type logFile struct {
	path string
	mu   sync.Mutex
	f    *os.File
}

var _ io.Writer = (*logFile)(nil)

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
	}
	l.f = f
	return nil
}

func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Write(b)
}

func (l *logFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.f.Close()
}
