package fault

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/test/netns"
	"github.com/sluice-proxy/sluice/test/peer"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tcpPacket builds a packet with the given payload.
func tcpPacket(v6 bool, seq uint32, flags byte, payload string) []byte {
	ip := 20
	if v6 {
		ip = 40
	}
	p := make([]byte, ip+20)
	if v6 {
		p[0], p[6] = 6<<4, 6
		binary.BigEndian.PutUint16(p[4:], uint16(len(p)-40))
		p[23], p[39] = 1, 2
	} else {
		p[0], p[9] = 4<<4|5, 6
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		copy(p[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	}
	binary.BigEndian.PutUint16(p[ip:], 1000)
	binary.BigEndian.PutUint16(p[ip+2:], 2000)
	p[ip+12] = 5 << 4
	s, ok := parse(p)
	if !ok {
		panic("no segment")
	}
	return s.with(seq, flags, []byte(payload))
}

func checksums(t *testing.T, p []byte) {
	t.Helper()
	s, ok := parse(p)
	if !ok {
		t.Fatalf("no segment: % x", p)
	}
	pseudo := uint32(6) + uint32(len(p)-s.ip)
	if s.ip == 40 {
		pseudo = sum(pseudo, p[8:40])
	} else {
		pseudo = sum(pseudo, p[12:20])
		if got := fold(sum(0, p[:20])); got != 0 {
			t.Errorf("IP checksum is off by %#x", got)
		}
	}
	if got := fold(sum(pseudo, p[s.ip:])); got != 0 {
		t.Errorf("TCP checksum is off by %#x", got)
	}
}

func TestOverlapHoldsOldAndNewBytes(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("IPv6 %v", v6), func(t *testing.T) {
			f := flows{}
			give := func(seq uint32, flags byte, payload string, again bool, back, mtu int) (got []string) {
				s, ok := parse(tcpPacket(v6, seq, flags, payload))
				if !ok {
					t.Fatal("no segment")
				}
				for _, p := range f.remember(s, again, back, mtu) {
					checksums(t, p)
					q, _ := parse(p)
					got = append(got, fmt.Sprintf("%d:%s:%x", q.seq(), q.payload, q.flags()))
				}
				return got
			}
			headers := 40
			if v6 {
				headers = 60
			}
			for _, step := range []struct {
				seq     uint32
				flags   byte
				payload string
				again   bool
				back    int
				room    int
				want    string
			}{
				{99, flagSYN, "", true, 5, 100, "[]"},
				{100, 0x10, "0123456789", true, 5, 100, "[]"}, // nothing before it
				{110, 0x18, "ABCDE", true, 5, 100, "[105:56789ABCDE:18]"},
				{115, 0x11, "FGH", true, 4, 5, "[111:BCDEF:10 116:GH:11]"}, // cut, FIN on the last
				{110, 0x10, "ABCDE", true, 5, 100, "[]"},                   // a retransmit as it was
				{130, 0x10, "gap", true, 5, 100, "[]"},                     // after a loss
				{133, 0x10, "on", true, 100, 100, "[130:gapon:10]"},
				{135, 0x14, "", true, 5, 100, "[]"},
				{135, 0x10, "x", true, 5, 100, "[]"}, // forgotten by RST
			} {
				if got := fmt.Sprint(give(step.seq, step.flags, step.payload, step.again, step.back, headers+step.room)); got != step.want {
					t.Errorf("segment %d %q: got %s, want %s", step.seq, step.payload, got, step.want)
				}
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(tcpPacket(false, 1, 0x18, "hello"))
	f.Add(tcpPacket(true, 1, 0x18, "hello"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if s, ok := parse(p); ok {
			flows := flows{}
			flows.remember(s, true, 10, 1500)
			s, _ = parse(s.with(s.seq()+uint32(len(s.payload)), s.flags(), s.payload))
			flows.remember(s, true, 10, 1500)
		}
	})
}

func TestQueueKeepsOrderOfThoseDueAtOnce(t *testing.T) {
	var q queue
	now := time.Now()
	for i := range 100 {
		q.put(delayed{now.Add(time.Duration(i%3) * time.Second), []byte{byte(i)}})
	}
	last := -1
	for n := range 100 {
		d := q.take()
		at := int(d.due.Sub(now)/time.Second)*1000 + int(d.packet[0])
		if at <= last {
			t.Fatalf("item %d: %d after %d", n, at, last)
		}
		last = at
	}
}

func TestSeedSaysWhatHappens(t *testing.T) {
	run := func(seed uint64) string {
		l := &lane{box: &Box{mtu: 1500}, plan: Plan{Loss: .1, Duplicate: .1, Reorder: .1, Overlap: .3, Jitter: time.Millisecond, Late: time.Hour},
			random: rand.New(rand.NewPCG(seed, 0)), flows: flows{}, late: make(chan delayed, 1000)}
		for i := range uint32(200) {
			l.treat(nil, tcpPacket(false, i*3, 0x10, "abc"))
		}
		close(l.late)
		out := ""
		for d := range l.late {
			out += fmt.Sprintf("%x %v;", d.packet, time.Until(d.due) > time.Minute)
		}
		return out + fmt.Sprint(l.box.Counts())
	}
	first := run(1)
	if first != run(1) {
		t.Error("the same seed did other things")
	}
	if first == run(2) {
		t.Error("another seed did the same")
	}
}

// TCP gets through every fault, and every fault was there.
func TestStreamThroughTheBox(t *testing.T) {
	for _, family := range []int{4, 6} {
		t.Run(fmt.Sprintf("IPv%d", family), func(t *testing.T) {
			a, b := netns.ForTest(t), netns.ForTest(t)
			nets := []string{"10.9.0.1/24", "10.9.0.2/24"}
			if family == 6 {
				nets = []string{"fd09::1/64", "fd09::2/64"}
			}
			pa, pb := netip.MustParsePrefix(nets[0]), netip.MustParsePrefix(nets[1])
			box, err := Join(netns.End{NS: a, Name: "f0", Addrs: []netip.Prefix{pa}}, netns.End{NS: b, Name: "f1", Addrs: []netip.Prefix{pb}}, 1500,
				Plan{Loss: .005, Duplicate: .01, Reorder: .01, Overlap: .2, Delay: 100 * time.Microsecond, Jitter: 300 * time.Microsecond, Late: 2 * time.Millisecond}, 1)
			if err != nil {
				t.Fatal(err)
			}
			defer box.Close()
			ln, err := b.Listen(t.Context(), "tcp", netip.AddrPortFrom(pb.Addr(), 0).String())
			if err != nil {
				t.Fatal(err)
			}
			const n = 4 << 20
			done := make(chan error, 1)
			server := peer.Serve(ln, peer.Both(1, 2, n, func(err error) { done <- err }))
			defer server.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			c, err := a.Dial(ctx, "tcp", server.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(60 * time.Second))
			go func() {
				io.Copy(struct{ io.Writer }{c}, peer.NewSource(2, n))
				c.(*net.TCPConn).CloseWrite()
			}()
			check := peer.NewChecker(1)
			if got, err := io.Copy(check, c); err != nil || got != n {
				t.Errorf("got %d bytes: %v", got, err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			counts := box.Counts()
			t.Logf("%+v", counts)
			if counts.Lost == 0 || counts.Duplicated == 0 || counts.Reordered == 0 || counts.Overlapped == 0 {
				t.Errorf("some fault did not happen: %+v", counts)
			}
			if counts.Oversized != 0 {
				t.Errorf("%d packets were larger than the wire takes", counts.Oversized)
			}
		})
	}
}
