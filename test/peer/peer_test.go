package peer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dial(t *testing.T, h Handler) *net.TCPConn {
	t.Helper()
	s, err := Listen("127.0.0.1:0", h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func TestHandlers(t *testing.T) {
	tests := []struct {
		name string
		h    Handler
		send string
		fin  bool
		want string
		end  End
	}{
		{"echo answers and ends with the client", Echo, "hello", true, "hello", FIN},
		{"echo stays open with the client", Echo, "hello", false, "hello", Open},
		{"answer after EOF counts", AnswerAfterEOF, "12345", true, "5", FIN},
		{"answer after EOF says nothing before", AnswerAfterEOF, "12345", false, "", Open},
		{"banner speaks first", Banner("hi "), "there", true, "hi there", FIN},
		{"banner then FIN ends before the client", BannerThenFIN("hi"), "x", false, "hi", FIN},
		{"stall says nothing", Stall, "x", true, "", Open},
		{"slow says nothing", Slow(1, time.Millisecond), "x", false, "", Open},
		{"reset after data", ResetAfter("", 3, 0), "abc", false, "", RST},
		{"close after data", CloseAfter("", 3, 0), "abc", false, "", FIN},
		{"close with unread data resets", CloseAfter("", 1, 50*time.Millisecond), "abc", false, "", RST},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, tt.h)
			if _, err := io.WriteString(c, tt.send); err != nil {
				t.Fatal(err)
			}
			if tt.fin {
				if err := c.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			timeout := 5 * time.Second
			if tt.end == Open {
				timeout = 100 * time.Millisecond
			}
			data, end, err := ReadToEnd(c, timeout)
			if err != nil {
				t.Fatal(err)
			}
			if string(data) != tt.want || end != tt.end {
				t.Errorf("got %q then %s, want %q then %s", data, end, tt.want, tt.end)
			}
		})
	}
}

func TestRecordTellsFINFromRST(t *testing.T) {
	seen := make(chan Seen, 1)
	for _, end := range []End{FIN, RST} {
		c := dial(t, Record(seen, nil))
		io.WriteString(c, "abc")
		if end == FIN {
			c.Close()
		} else {
			// The bytes must be there before the RST throws them away.
			time.Sleep(50 * time.Millisecond)
			Reset(c)
		}
		if got := <-seen; string(got.Data) != "abc" || got.End != end {
			t.Errorf("saw %q then %s, want abc then %s", got.Data, got.End, end)
		}
	}
}

// net.Dial fails on some of these: the reset comes before it looks.
func TestDialOutlivesAReset(t *testing.T) {
	s, err := Listen("127.0.0.1:0", ResetAfter("", 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 200 {
		c, err := Dial(netip.AddrPort{}, s.Addr(), 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if _, end, err := ReadToEnd(c, 5*time.Second); end != RST || err != nil {
			t.Errorf("sees %s, %v, want RST", end, err)
		}
		c.Close()
	}
}

func TestServerCloseEndsItsConnections(t *testing.T) {
	s, err := Listen("[::1]:0", Stall)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for s.Open() == 0 {
		time.Sleep(time.Millisecond)
	}
	if s.Accepted() != 1 {
		t.Errorf("accepted %d", s.Accepted())
	}
	s.Close()
	if _, end, err := ReadToEnd(c, time.Second); end != FIN || err != nil {
		t.Errorf("end %s, %v", end, err)
	}
}

func TestStreamIsTheSameByAnyCut(t *testing.T) {
	whole := make([]byte, 1000)
	Stamp(whole, 7, 0)
	for cut := 0; cut <= 40; cut++ {
		for n := 0; n <= 40; n++ {
			part := make([]byte, n)
			Stamp(part, 7, int64(cut))
			if !bytes.Equal(part, whole[cut:cut+n]) {
				t.Fatalf("bytes %d to %d differ", cut, cut+n)
			}
		}
	}
	src, err := io.ReadAll(NewSource(7, 1000))
	if err != nil || !bytes.Equal(src, whole) {
		t.Errorf("source differs: %v", err)
	}
}

func TestCheckerNamesTheOffset(t *testing.T) {
	good := func() []byte { p := make([]byte, 4096); Stamp(p, 9, 0); return p }
	tests := []struct {
		name   string
		mangle func(p []byte) []byte
		offset int64 // -1: no mismatch
		origin int64
	}{
		{"the stream itself", func(p []byte) []byte { return p }, -1, 0},
		{"one byte flipped", func(p []byte) []byte { p[1001] ^= 1; return p }, 1001, 1001},
		{"lost bytes", func(p []byte) []byte { return append(p[:500:500], p[517:]...) }, 500, 517},
		{"repeated bytes", func(p []byte) []byte { return append(p[:500:500], p[400:]...) }, 500, 400},
		{"zeroes", func(p []byte) []byte { clear(p[64:128]); return p }, 64, -1},
		{"another stream", func(p []byte) []byte { Stamp(p, 1<<50, 0); return p }, 0, -1},
	}
	for _, tt := range tests {
		for _, chunk := range []int{4096, 100, 16} {
			t.Run(tt.name, func(t *testing.T) {
				c := NewChecker(9)
				_, err := io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{bytes.NewReader(tt.mangle(good()))}, make([]byte, chunk))
				var m *Mismatch
				if !errors.As(err, &m) {
					if tt.offset != -1 || err != nil || c.Good() != 4096 {
						t.Errorf("good %d, error %v", c.Good(), err)
					}
					return
				}
				if m.Offset != tt.offset || c.Good() != tt.offset {
					t.Errorf("mismatch at %d (good %d), want %d", m.Offset, c.Good(), tt.offset)
				}
				if chunk == 4096 && tt.name != "one byte flipped" && m.Origin != tt.origin {
					t.Errorf("origin %d, want %d", m.Origin, tt.origin)
				}
				if _, again := c.Write([]byte("x")); again != err {
					t.Errorf("after a mismatch: %v", again)
				}
				if !strings.Contains(err.Error(), "offset") {
					t.Errorf("error %q names no offset", err)
				}
			})
		}
	}
}

func TestHoleNeverAnswers(t *testing.T) {
	h, err := NewHole()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", h.Addr().String())
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("connect: %v, want a timeout", err)
	}
}

func TestRefusedRefuses(t *testing.T) {
	addr, release, err := Refused()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	start := time.Now()
	c, err := net.Dial("tcp", addr.String())
	if err == nil {
		c.Close()
		t.Fatal("connected")
	}
	if !strings.Contains(err.Error(), "refused") || time.Since(start) > time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

func BenchmarkChecker(b *testing.B) {
	p := make([]byte, 64<<10)
	Stamp(p, 1, 0)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		c := NewChecker(1)
		if _, err := c.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}
