package proxyprotocol

import (
	"testing"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/stream"
	"golang.org/x/sys/unix"
)

// give lets the filter see bytes that really wait in a socket; left is what it
// leaves there.
func give(tb testing.TB, c *api.ProxyProtocol, b []byte) (st filter.Status, info *stream.Info, consumed uint64, left int) {
	tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	if len(b) > 0 {
		if _, err := unix.Write(fds[0], b); err != nil {
			tb.Fatal(err)
		}
	}
	f := New(c, stats.New())
	defer f.Release()
	s := &filter.Socket{FD: fds[1], Info: &stream.Info{}}
	st = f.New(s).Data(s, b)
	rest := make([]byte, len(b)+1)
	n, _, _ := unix.Recvfrom(fds[1], rest, unix.MSG_DONTWAIT)
	return st, s.Info, s.Consumed, max(n, 0)
}

const (
	line = "PROXY TCP4 10.1.2.3 10.4.5.6 1111 2222\r\n"
	head = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x0a\x01\x02\x03\x0a\x04\x05\x06\x04\x57\x08\xae"
)

func TestExactlyTheHeaderIsTaken(t *testing.T) {
	for _, h := range []string{line, head} {
		for n := range h {
			if st, _, consumed, left := give(t, &api.ProxyProtocol{}, []byte(h[:n])); n > 0 && (st != filter.Stop || consumed != 0 || left != n) {
				t.Fatalf("%d bytes of %q: %v, %d consumed, %d left", n, h, st, consumed, left)
			}
		}
		st, info, consumed, left := give(t, &api.ProxyProtocol{}, []byte(h+"hello"))
		if st != filter.Continue || int(consumed) != len(h) || left != 5 || info.Remote().String() != "10.1.2.3:1111" || info.Local().String() != "10.4.5.6:2222" || !info.LocalRestored() {
			t.Fatalf("%q: %v, %d consumed, %d left, %+v", h, st, consumed, left, info)
		}
	}
}

func TestSanitize(t *testing.T) {
	for in, want := range map[string]string{"": "", "plain": "plain", "é": "é", "v\xffw": "v!w", "\xc3": "!"} {
		if got := sanitize([]byte(in)); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte(line+"x"), false)
	f.Add([]byte(head+"x"), true)
	f.Add([]byte("GET /"), true)
	f.Fuzz(func(t *testing.T, b []byte, optional bool) {
		if len(b) > 60_000 {
			return
		}
		st, info, consumed, left := give(t, &api.ProxyProtocol{Optional: optional, PassAllTLVs: true}, b)
		if int(consumed)+left != len(b) {
			t.Fatalf("%d consumed, %d left of %d", consumed, left, len(b))
		}
		if st != filter.Continue && consumed != 0 {
			t.Fatal("bytes were taken and the header not accepted")
		}
		if info.LocalRestored() && (!info.Local().IsValid() || !info.Remote().IsValid()) {
			t.Fatal("addresses that are none")
		}
	})
}
