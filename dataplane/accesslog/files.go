package accesslog

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/accesslog/als"
)

const (
	// queueBytes bounds what waits for one file: 4 MiB.
	queueBytes = 4 << 20
	// flushBytes is --file-flush-min-size-kb: a write is due when so much waits.
	flushBytes  = 64 << 10
	closeWithin = 2 * time.Second
	// DefaultFlushInterval is --file-flush-interval-msec.
	DefaultFlushInterval = 10 * time.Second
)

// Files are the open logs, one per path. Safe for concurrent use.
type Files struct {
	interval time.Duration
	flush    int
	log      *slog.Logger
	counters counters
	services *als.Services // nil: no log goes to one
	runtime  *runtime.Runtime

	mu   sync.Mutex
	open map[string]*File
}

// counters stand under filesystem., with Envoy's names; write_dropped is ours.
type counters struct {
	buffered, completed, failed, byTimer, reopenFailed, dropped *stats.Counter
	total                                                       *stats.Gauge
}

// NewFiles makes the set of logs. interval 0 means the default; services may be
// nil if no log goes to one, and so may r, by which filters are changed.
func NewFiles(store *stats.Store, interval time.Duration, minSize int, services *als.Services, r *runtime.Runtime, log *slog.Logger) *Files {
	if interval <= 0 {
		interval = DefaultFlushInterval
	}
	if minSize <= 0 {
		minSize = flushBytes
	}
	sc := store.Scope("filesystem")
	return &Files{interval: interval, flush: minSize, services: services, runtime: r, log: log, open: map[string]*File{}, counters: counters{
		buffered: sc.Counter("write_buffered"), completed: sc.Counter("write_completed"), failed: sc.Counter("write_failed"),
		byTimer: sc.Counter("flushed_by_timer"), reopenFailed: sc.Counter("reopen_failed"), dropped: sc.Counter("write_dropped"),
		total: sc.Gauge("write_total_buffered"),
	}}
}

// Open returns the log of a path, for as long as it is not closed as often as
// it was opened. The error is that of opening the file.
func (fs *Files) Open(path string) (*File, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.open[path]; f != nil {
		f.users++
		return f, nil
	}
	out, err := openPath(path)
	if err != nil {
		return nil, fmt.Errorf("unable to open file '%s': %w", path, err)
	}
	f := &File{files: fs, path: path, out: out, users: 1, wake: make(chan struct{}, 1), done: make(chan struct{})}
	fs.open[path] = f
	go f.run()
	return f, nil
}

// Reopen opens every file anew, as SIGUSR1 asks: what was moved away is left.
func (fs *Files) Reopen() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.open {
		f.reopen.Store(true)
		f.signal()
	}
}

// Close writes what waits and closes every log; it does not wait for ever.
func (fs *Files) Close() {
	if fs.services != nil {
		defer fs.services.Close()
	}
	fs.mu.Lock()
	all := make([]*File, 0, len(fs.open))
	for path, f := range fs.open {
		delete(fs.open, path)
		all = append(all, f)
	}
	fs.mu.Unlock()
	for _, f := range all {
		f.stop()
	}
	late := time.After(closeWithin)
	for _, f := range all {
		select {
		case <-f.done:
		case <-late:
			fs.log.Warn("close access log: gave up waiting for what is written", "path", f.path)
			return
		}
	}
}

// File is one log.
type File struct {
	files *Files
	path  string
	wake  chan struct{}
	done  chan struct{}

	users  int // of files.mu
	reopen atomic.Bool

	mu     sync.Mutex
	queue  []byte
	closed bool

	out sink // of the writer
}

// Write queues a line. It never waits for the disk.
func (f *File) Write(line []byte) {
	c := &f.files.counters
	f.mu.Lock()
	if f.closed || len(f.queue)+len(line) > queueBytes {
		f.mu.Unlock()
		c.dropped.Inc()
		return
	}
	f.queue = append(f.queue, line...)
	due := len(f.queue) >= f.files.flush
	f.mu.Unlock()
	c.buffered.Inc()
	c.total.Add(int64(len(line)))
	if due {
		f.signal()
	}
}

// Close gives the log back; with the last one it is closed, once what waits is
// written.
func (f *File) Close() {
	fs := f.files
	fs.mu.Lock()
	f.users--
	last := f.users == 0
	if last && fs.open[f.path] == f {
		delete(fs.open, f.path)
	}
	fs.mu.Unlock()
	if last {
		f.stop()
	}
}

func (f *File) stop() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.signal()
}

func (f *File) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *File) run() {
	defer close(f.done)
	c := &f.files.counters
	tick := time.NewTicker(f.files.interval)
	defer tick.Stop()
	var spare []byte
	for {
		timer := false
		select {
		case <-f.wake:
		case <-tick.C:
			timer = true
		}
		if f.reopen.Swap(false) {
			if out, err := openPath(f.path); err != nil {
				c.reopenFailed.Inc()
				f.files.log.Warn("reopen access log", "path", f.path, "error", err)
			} else {
				f.out.Close()
				f.out = out
			}
		}
		f.mu.Lock()
		b, closed := f.queue, f.closed
		f.queue = spare[:0]
		f.mu.Unlock()
		if len(b) > 0 {
			if timer {
				c.byTimer.Inc()
			}
			if err := f.out.write(b); err != nil {
				c.failed.Inc()
			} else {
				c.completed.Inc()
			}
			c.total.Add(-int64(len(b)))
		}
		spare = b
		if closed {
			f.out.Close()
			return
		}
	}
}

// sink is where bytes go in the end.
type sink interface {
	write([]byte) error
	Close() error
}

// openPath opens a path to append to. A unix socket is connected to.
func openPath(path string) (sink, error) {
	switch path {
	case "/dev/stdout":
		return own{os.Stdout}, nil
	case "/dev/stderr":
		return own{os.Stderr}, nil
	}
	flags := os.O_WRONLY
	if info, err := os.Stat(path); err == nil {
		switch {
		case info.Mode()&os.ModeSocket != 0:
			return dialUnix(path)
		case info.Mode()&os.ModeNamedPipe != 0:
			flags = os.O_RDWR // does not wait for a reader
		}
	}
	f, err := os.OpenFile(path, flags|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	return file{f}, nil
}

type file struct{ *os.File }

func (f file) write(b []byte) error { _, err := f.Write(b); return err }

// own is one of the process's streams, which stay open.
type own struct{ f *os.File }

func (o own) write(b []byte) error { _, err := o.f.Write(b); return err }
func (o own) Close() error         { return nil }

// unixSocket connects again when the other side went away.
type unixSocket struct {
	path string
	conn net.Conn
}

func dialUnix(path string) (sink, error) {
	s := &unixSocket{path: path}
	return s, s.dial()
}

func (s *unixSocket) dial() (err error) {
	if s.conn, err = net.Dial("unix", s.path); err != nil {
		s.conn, err = net.Dial("unixgram", s.path)
	}
	return err
}

func (s *unixSocket) write(b []byte) error {
	for range 2 {
		if s.conn == nil {
			if err := s.dial(); err != nil {
				s.conn = nil
				return err
			}
		}
		s.conn.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := s.conn.Write(b); err == nil {
			return nil
		}
		s.conn.Close()
		s.conn = nil
	}
	return net.ErrClosed
}

func (s *unixSocket) Close() error {
	if s.conn == nil {
		return nil
	}
	return s.conn.Close()
}
