package overload

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// injected reads a pressure from a file, once, and again when another file was moved
// into its place, as Envoy does: who writes into it is not heard.
func injected(path string) (pressure func() (float64, error), closed func(), err error) {
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, nil, fmt.Errorf("watch %s: %w", path, err)
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO); err != nil {
		unix.Close(fd)
		return nil, nil, fmt.Errorf("unable to add filesystem watch for file %s: %s", path, capital(err))
	}
	changed := true
	var have float64
	var why error
	return func() (float64, error) {
		if movedTo(fd, name) || changed {
			changed = false
			have, why = readPressure(path)
		}
		return have, why
	}, func() { unix.Close(fd) }, nil
}

// capital is an error number as strerror has it.
func capital(err error) string {
	s := err.Error()
	return strings.ToUpper(s[:1]) + s[1:]
}

// movedTo says whether a file got the name since the last call. An overflow of the
// queue may have lost it.
func movedTo(fd int, name string) (moved bool) {
	buffer := make([]byte, 4096)
	for {
		n, err := unix.Read(fd, buffer)
		if err != nil || n <= 0 {
			return moved
		}
		for b := buffer[:n]; len(b) >= unix.SizeofInotifyEvent; {
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			if size > len(b) {
				break
			}
			got := string(bytes.TrimRight(b[unix.SizeofInotifyEvent:size], "\x00"))
			moved = moved || got == name || binary.NativeEndian.Uint32(b[4:])&unix.IN_Q_OVERFLOW != 0
			b = b[size:]
		}
	}
}

func readPressure(path string) (float64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("unable to read file: %s", path)
	}
	p, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, errors.New("failed to parse injected resource pressure")
	}
	if !(p >= 0 && p <= 1) {
		return 0, errors.New("pressure out of range")
	}
	return p, nil
}
