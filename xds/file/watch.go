package file

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
)

// Watcher tells of moves into directories: that is how files are replaced (and
// how the links are that Kubernetes mounts secrets by).
type Watcher struct {
	moved func(dir string)
	file  *os.File

	mu   sync.Mutex
	dirs map[string]int32 // watched, with inotify's number
	done chan struct{}
}

// Watch makes a watcher. moved is called from a goroutine of its own, one call at
// a time, and not after Close.
func Watch(moved func(dir string)) (*Watcher, error) {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC | syscall.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open inotify: %w", err)
	}
	w := &Watcher{moved: moved, file: os.NewFile(uintptr(fd), "inotify"), dirs: map[string]int32{}, done: make(chan struct{})}
	go w.follow()
	return w, nil
}

// Set watches these directories and no others. One that cannot be watched is in
// the error, and the others are watched all the same.
func (w *Watcher) Set(dirs []string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	want := map[string]bool{}
	var bad []string
	for _, d := range dirs {
		want[d] = true
		if _, ok := w.dirs[d]; ok {
			continue
		}
		n, err := w.add(d)
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s (%s)", d, err))
			continue
		}
		w.dirs[d] = n
	}
	for d, n := range w.dirs {
		if !want[d] {
			delete(w.dirs, d)
			w.control(func(fd int) { _, _ = syscall.InotifyRmWatch(fd, uint32(n)) }) // it may be gone by itself
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("watch %s", strings.Join(bad, ", "))
	}
	return nil
}

func (w *Watcher) add(dir string) (n int32, err error) {
	w.control(func(fd int) {
		var wd int
		wd, err = syscall.InotifyAddWatch(fd, dir, syscall.IN_MOVED_TO)
		n = int32(wd)
	})
	return n, err
}

func (w *Watcher) control(f func(fd int)) {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { f(int(fd)) }) // fails only when it is closed
}

// Close ends it.
func (w *Watcher) Close() {
	_ = w.file.Close()
	<-w.done
}

func (w *Watcher) follow() {
	defer close(w.done)
	buf := make([]byte, 16<<10)
	for {
		n, err := w.file.Read(buf)
		if err != nil {
			return
		}
		for _, d := range w.named(buf[:n]) {
			w.moved(d)
		}
	}
}

// named are the directories that events are of, each once.
func (w *Watcher) named(b []byte) (dirs []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	hit := map[int32]bool{}
	for len(b) >= syscall.SizeofInotifyEvent {
		hit[int32(binary.NativeEndian.Uint32(b))] = true
		length := int(binary.NativeEndian.Uint32(b[12:16])) // struct inotify_event: len
		if len(b) < syscall.SizeofInotifyEvent+length {
			break
		}
		b = b[syscall.SizeofInotifyEvent+length:]
	}
	for d, n := range w.dirs {
		if hit[n] {
			dirs = append(dirs, d)
		}
	}
	return dirs
}
