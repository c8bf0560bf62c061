package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands of bpf(2).
const (
	bpfMapGetNextID = 12
	bpfMapGetFDByID = 14
)

type bpfID struct{ id, next, flags uint32 }

func bpfCall(command uintptr, attr *bpfID) (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
	if errno != 0 {
		return -1, errno
	}
	return int(fd), nil
}

// Whoever holds a map could insert and cut off sockets. Another user gets at none
// of them: not by number, not by the proxy's descriptors, not by a pin.
func TestAnotherUserReachesNoMap(t *testing.T) {
	if pid := os.Getenv("SLUICE_INTRUDE"); pid != "" {
		intrude(t, pid)
		return
	}
	needRoot(t)
	at := free(t)
	p := start(t, sluice, static(at, free(t), ""), nil, "--splice", "always")
	pid := strconv.Itoa(p.cmd.Process.Pid)
	ids := mapIDs()
	if openMaps(ids) == 0 {
		t.Fatal("root opens no map by number: the check proves nothing")
	}
	for _, link := range descriptorsOf(t, pid) {
		if strings.HasPrefix(link, "/sys/fs/bpf") {
			t.Errorf("a pin is open: %s", link)
		}
	}
	if mounts, err := os.ReadFile("/proc/" + pid + "/mounts"); err == nil && strings.Contains(string(mounts), " bpf ") {
		if pins, _ := os.ReadDir("/sys/fs/bpf"); len(pins) > 0 {
			t.Errorf("pins in /sys/fs/bpf: %v", pins)
		}
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	// A place that the user nobody may enter and run from.
	dir, err := os.MkdirTemp("/tmp", "intruder")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	binary := dir + "/e2e.test"
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(binary, self, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-test.run", "^TestAnotherUserReachesNoMap$", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SLUICE_INTRUDE="+pid, "SLUICE_MAPS="+strings.Join(ids, ","))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("the intruder: %v\n%s", err, out)
	}
}

// mapIDs are the numbers of all maps there are, as root sees them.
func mapIDs() (ids []string) {
	for attr := (bpfID{}); ; attr.id = attr.next {
		if _, err := bpfCall(bpfMapGetNextID, &attr); err != nil {
			return ids
		}
		ids = append(ids, strconv.Itoa(int(attr.next)))
	}
}

// openMaps counts those of the maps that can be opened by number.
func openMaps(ids []string) (n int) {
	for _, s := range ids {
		id, _ := strconv.Atoi(s)
		if fd, err := bpfCall(bpfMapGetFDByID, &bpfID{id: uint32(id)}); err == nil {
			unix.Close(fd)
			n++
		}
	}
	return n
}

func descriptorsOf(t *testing.T, pid string) (links []string) {
	t.Helper()
	fds, err := os.ReadDir("/proc/" + pid + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if link, err := os.Readlink("/proc/" + pid + "/fd/" + fd.Name()); err == nil {
			links = append(links, link)
		}
	}
	return links
}

// intrude is the other user.
func intrude(t *testing.T, pid string) {
	if os.Geteuid() == 0 {
		t.Fatal("the intruder is root")
	}
	if _, err := bpfCall(bpfMapGetNextID, &bpfID{}); err == nil {
		t.Error("lists maps")
	}
	ids := strings.Split(os.Getenv("SLUICE_MAPS"), ",")
	if n := openMaps(ids); n != 0 || len(ids) < 2 {
		t.Errorf("opens %d of %d maps by number", n, len(ids))
	}
	if fds, err := os.ReadDir("/proc/" + pid + "/fd"); err == nil {
		t.Errorf("sees %d descriptors of the proxy", len(fds))
	}
	n, _ := strconv.Atoi(pid)
	if pidfd, err := unix.PidfdOpen(n, 0); err == nil {
		for fd := range 64 {
			if got, err := unix.PidfdGetfd(pidfd, fd, 0); err == nil {
				t.Errorf("takes descriptor %d of the proxy as %d", fd, got)
			}
		}
	}
	if mem, err := os.Open(fmt.Sprintf("/proc/%s/mem", pid)); err == nil {
		mem.Close()
		t.Error("opens the proxy's memory")
	}
}
