package overload

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

var (
	errNoMemoryCgroup = errors.New("No supported cgroup memory implementation found")
	errNoCPUCgroup    = errors.New("No supported cgroup CPU implementation found")
)

// unlimited is a limit of memory that is none.
const unlimited = math.MaxUint64

// cgroupMemory is the memory that the container uses, of what it may. As in Envoy the
// cgroup is the one that lies at the mount's root. most bounds the limit, 0 does not.
func cgroupMemory(root string, most uint64) (func() (float64, error), error) {
	v2, v1 := filepath.Join(root, "sys/fs/cgroup"), filepath.Join(root, "sys/fs/cgroup/memory")
	used, limit := filepath.Join(v2, "memory.current"), filepath.Join(v2, "memory.max")
	if !exists(used) || !exists(limit) {
		if !exists(v1) {
			return nil, errNoMemoryCgroup
		}
		used, limit = filepath.Join(v1, "memory.usage_in_bytes"), filepath.Join(v1, "memory.limit_in_bytes")
	}
	return func() (float64, error) {
		n, err := readBytes(used)
		if err != nil {
			return 0, err
		}
		top, err := readBytes(limit)
		if err != nil {
			return 0, err
		}
		if most > 0 {
			top = min(top, most)
		}
		switch top {
		case unlimited:
			return 0, nil
		case 0:
			return 0, fmt.Errorf("%s: the limit is 0", limit)
		}
		return float64(n) / float64(top), nil
	}, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// readBytes reads a file of a memory cgroup. Its errors are Envoy's.
func readBytes(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("Unable to read memory stats file at %s", path)
	}
	switch text := strings.TrimSpace(string(b)); text {
	case "":
		return 0, fmt.Errorf("Empty memory stats file at %s", path)
	case "max", "-1":
		return unlimited, nil
	default:
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("Unable to parse memory stats from file at %s", path)
		}
		return n, nil
	}
}
