package bpf

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoCgroup2 says that no cgroup v2 hierarchy is mounted.
var ErrNoCgroup2 = errors.New("no cgroup v2 hierarchy is mounted")

// Cgroup finds the directory of a cgroup. name is that directory, or the cgroup's
// path below the root of the v2 hierarchy, wherever that is mounted
// (/sys/fs/cgroup on most machines, /sys/fs/cgroup/unified on hybrid ones).
func Cgroup(name string) (string, error) {
	if isCgroup2(name) {
		return filepath.Clean(name), nil
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find cgroup %q: %w", name, err)
	}
	defer f.Close()
	root, err := cgroup2Mount(f)
	if err != nil {
		return "", fmt.Errorf("find cgroup %q: %w", name, err)
	}
	dir := filepath.Join(root, name)
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("find cgroup %q: %w", name, err)
	}
	return dir, nil
}

func isCgroup2(dir string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
}

// cgroup2Mount reads proc_pid_mountinfo(5): after the field "-" comes the type;
// the fifth is where it is mounted.
func cgroup2Mount(mountinfo io.Reader) (string, error) {
	lines := bufio.NewScanner(mountinfo)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		for i, f := range fields {
			if f == "-" && i > 4 && i+1 < len(fields) && fields[i+1] == "cgroup2" {
				return unescape(fields[4]), nil
			}
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("read mounts: %w", err)
	}
	return "", ErrNoCgroup2
}

// unescape undoes mountinfo's octal escapes of blanks and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
