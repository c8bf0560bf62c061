package books

import (
	"errors"
	"io"
	"os"
	"syscall"
	"testing"
	"time"
)

type records []string

func (r *records) Read(b []byte) (int, error) {
	if len(*r) == 0 {
		return 0, io.EOF
	}
	n := copy(b, (*r)[0])
	*r = (*r)[1:]
	return n, nil
}

func TestComplaintsAreTheKernelsOwn(t *testing.T) {
	r := records{
		"6,1,1000,-;eth0: link becomes ready\n",
		"4,2,2000,-;WARNING: CPU: 1 PID: 41 at net/ipv4/af_inet.c:157 inet_sock_destruct+0x169/0x190\n SUBSYSTEM=x\n",
		"4,3,3000,-;Modules linked in:\n",
		"1,4,4000,-;BUG: kernel NULL pointer dereference, address: 0\n",
	}
	if got := complaints(&r); len(got) != 2 {
		t.Errorf("complaints %q", got)
	}
}

func TestAccountThatDoesNotComeBackIsAnError(t *testing.T) {
	pages, err := TCPPages()
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Books{pages: pages}).Close(5 * time.Second); err != nil {
		t.Error(err)
	}
	if err := (&Books{pages: pages - 10*Slack}).Close(0); err == nil {
		t.Error("many more pages than before are no error")
	}
	if _, err := tcpPages("TCP: nothing\n"); err == nil {
		t.Error("no line of TCP is no error")
	}
}

// What the kernel said before is no news.
func TestLogIsReadFromItsEnd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: reads the kernel's log")
	}
	b, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	if b.log == nil {
		t.Skip("no /dev/kmsg here")
	}
	if _, err := b.log.Read(make([]byte, 8192)); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("a record of before, or %v", err)
	}
	if err := b.Close(5 * time.Second); err != nil {
		t.Error(err)
	}
}
