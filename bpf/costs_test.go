package bpf

import (
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// A process that receives and sends is charged for its copies and its wake-ups,
// one that nobody watches is not.
func TestCostsOfThisProcess(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: BPF programs")
	}
	c, err := CountCosts()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(os.Getpid()); err == nil {
		t.Error("a process that is not watched has costs")
	}
	if err := c.Watch(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	if err := c.Watch(Workers); err != nil {
		t.Fatal(err)
	}
	a, b := pipe(t)
	port := uint16(a.LocalAddr().(*net.TCPAddr).Port)
	if err := c.WatchPort(port); err != nil {
		t.Fatal(err)
	}
	const size, times = 1 << 10, 100
	echo := func(from io.Reader) {
		go func() { _, _ = io.Copy(struct{ io.Writer }{b}, from) }()
		buf := make([]byte, size)
		for range times {
			if _, err := a.Write(buf); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(a, buf); err != nil {
				t.Fatal(err)
			}
		}
	}
	echo(struct{ io.Reader }{b})
	got, err := c.Read(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// Each byte is sent and received, there and back.
	if want := uint64(2 * size * times); got.Sent != want || got.Received != want || got.Moved != 0 {
		t.Errorf("sent, received, moved: %d, %d, %d bytes; want %d twice and 0", got.Sent, got.Received, got.Moved, want)
	}
	if got.Wakeups == 0 {
		t.Error("no wake-ups")
	}
	arrived, err := c.ReadPort(port)
	if err != nil || arrived.Payload != size*times || arrived.Linear > arrived.Payload {
		t.Errorf("%+v arrived, error %v; want %d bytes", arrived, err, size*times)
	}
	if _, err := c.Read(Workers); err != nil {
		t.Error(err)
	}
	if _, err := c.ReadPort(port + 1); err == nil {
		t.Error("a port that is not watched has arrivals")
	}
}

// What splice(2) hands to a socket is not copied.
func TestSplicedBytesAreMovedNotSent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: BPF programs")
	}
	c, err := CountCosts()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Watch(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	a, b := pipe(t)
	d, e := pipe(t)
	go func() { _, _ = io.Copy(d, b) }() // of one TCPConn to another: splice(2)
	buf := make([]byte, 1<<10)
	if _, err := a.Write(buf); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(e, buf); err != nil {
		t.Fatal(err)
	}
	got, err := c.Read(os.Getpid())
	if err != nil || got.Moved != 1<<10 || got.Sent != 1<<10 || got.Received != 1<<10 {
		t.Errorf("%+v, error %v; want 1024 bytes sent, moved and received", got, err)
	}
}

func pipe(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.DialTimeout("tcp", l.Addr().String(), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return a, b
}
