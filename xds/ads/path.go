package ads

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/sluice-proxy/sluice/xds/file"
)

// PathOptions of a Path. All but Directory are required.
type PathOptions struct {
	// Path holds one DiscoveryResponse, in the form that its name tells.
	Path string
	// Directory is watched for any move into it, in place of moves onto Path.
	Directory string
	// WatchModify takes writes for changes too.
	WatchModify bool
	TypeURL     string
	Events      chan Event
	Log         *slog.Logger
}

// Path is a file that is read anew whenever another is moved onto it
// (path_config_source). There is nobody to tell an ACK or a NACK.
type Path struct {
	o      PathOptions
	wanted chan struct{} // closed by the first Subscribe
	once   sync.Once
}

// NewPath returns a Path; it is read once it runs and something is wanted of it.
func NewPath(o PathOptions) *Path { return &Path{o: o, wanted: make(chan struct{})} }

// Subscribe wants the file's content; the names do not matter.
func (p *Path) Subscribe(string, []string) { p.once.Do(func() { close(p.wanted) }) }

// The rest of Source has no meaning for a file.
func (p *Path) Ack(*Response)            {}
func (p *Path) Nack(*Response, error)    {}
func (p *Path) Accept(*Response)         {}
func (p *Path) Pause(string)             {}
func (p *Path) Resume(string)            {}
func (p *Path) Repeat(string)            {}
func (p *Path) Expire(string, ...string) {}

// Run reads the file, and again after every move, until ctx ends.
func (p *Path) Run(ctx context.Context) error {
	select {
	case <-p.wanted:
	case <-ctx.Done():
		return ctx.Err()
	}
	w, err := p.watch() // before the first read: no move goes unseen
	if err != nil {
		p.o.Log.Error("watch for moves", "path", p.o.Path, "err", err)
	} else {
		defer w.Close()
		stop := context.AfterFunc(ctx, func() { w.Close() })
		defer stop()
	}
	for {
		e := Event{From: p}
		if e.Response, e.Unread = p.read(); e.Unread != nil {
			e.Response = nil
		}
		select {
		case p.o.Events <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
		if w == nil {
			<-ctx.Done()
			return ctx.Err()
		}
		for moved := false; !moved; {
			if moved, err = p.moved(w); err != nil {
				<-ctx.Done()
				return ctx.Err()
			}
		}
	}
}

func (p *Path) read() (*Response, error) {
	m := new(discoveryv3.DiscoveryResponse)
	if _, err := file.Load(p.o.Path, file.Options{DropUnknown: true}, m); err != nil {
		return nil, err
	}
	if m.TypeUrl == "" {
		m.TypeUrl = p.o.TypeURL
	}
	r := fromSotW(m)
	r.TypeURL, r.From = p.o.TypeURL, p
	return r, nil
}

// watch opens an inotify instance on the directory.
func (p *Path) watch() (*os.File, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open inotify: %w", err)
	}
	mask := uint32(syscall.IN_MOVED_TO)
	if p.o.WatchModify {
		mask |= syscall.IN_MODIFY
	}
	dir := p.o.Directory
	if dir == "" {
		dir = filepath.Dir(p.o.Path)
	}
	if _, err := syscall.InotifyAddWatch(fd, dir, mask); err != nil {
		_ = syscall.Close(fd) // the error that counts is err
		return nil, fmt.Errorf("watch %s: %w", dir, err)
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}

// moved reads events and tells whether one of them is of this file.
func (p *Path) moved(w *os.File) (bool, error) {
	buf := make([]byte, 4096)
	n, err := w.Read(buf)
	if err != nil {
		return false, err
	}
	found := false
	for b := buf[:n]; len(b) >= syscall.SizeofInotifyEvent; {
		length := int(binary.NativeEndian.Uint32(b[12:16])) // struct inotify_event: len
		if len(b) < syscall.SizeofInotifyEvent+length {
			return found, errors.New("short inotify event")
		}
		name := string(trimZeros(b[syscall.SizeofInotifyEvent : syscall.SizeofInotifyEvent+length]))
		found = found || p.o.Directory != "" || name == filepath.Base(p.o.Path)
		b = b[syscall.SizeofInotifyEvent+length:]
	}
	return found, nil
}

func trimZeros(b []byte) []byte {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b
}
