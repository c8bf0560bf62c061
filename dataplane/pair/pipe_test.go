package pair

import (
	"io"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

func TestBulkGoesThroughThePipeAndComesBack(t *testing.T) {
	forEach(t, func(t *testing.T, r *rig) {
		if r.graft != nil {
			t.Skip("bulk is grafted too")
		}
		if r.set.mode == Always {
			t.Skip("stays in the kernel")
		}
		p := r.pair(nil)
		const total = 64 << 20
		go func() {
			buf := make([]byte, 256<<10)
			for off := 0; off < total; off += len(buf) {
				for i := range buf {
					buf[i] = stamp(off+i, 3)
				}
				p.client.Write(buf)
			}
		}()
		buf := make([]byte, total)
		p.server.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.ReadFull(p.server, buf); err != nil {
			t.Fatal(err)
		}
		for i := range buf {
			if buf[i] != stamp(i, 3) {
				t.Fatalf("byte %d is wrong", i)
			}
		}
		c := r.status(p)
		if c.Request.Path != api.PathPipe || c.Request.Piped < total/2 || c.Request.Piped+c.Request.Relayed != total {
			t.Errorf("request is on %v (%s): %d piped, %d relayed", c.Request.Path, c.Request.Reason, c.Request.Piped, c.Request.Relayed)
		}
		pingPong(t, p.client, p.server, 200, 10)
		if c := r.status(p); c.Request.Path != api.PathRelay || c.Request.Reason != reasons[reasonSmall] {
			t.Errorf("after a conversation the request is on %v (%s)", c.Request.Path, c.Request.Reason)
		}
		p.client.Close()
		p.server.Close()
		p.end(t)
		await(t, "pipes that nobody uses are closed", func() (none bool) {
			r.w.Do(func() { none = r.set.pipes.made == 0 })
			return none
		})
	})
}

func TestWithoutPipesBulkIsRelayed(t *testing.T) {
	r := newRig(t, Off, "tcp4")
	r.w.Do(func() { r.set.pipes.made = maxPipes })
	p := r.pair(nil)
	go func() {
		writeStamped(p.client, 32<<20, 1)
		p.client.CloseWrite()
	}()
	if n := readStamped(t, p.server, 1); n != 32<<20 {
		t.Errorf("got %d bytes", n)
	}
	r.w.Do(func() { p.Force(1, api.PathPipe) })
	pingHalf(t, p.server, p.client)
	if c := r.status(p); c.Response.Path != api.PathRelay || c.Response.Reason != reasons[reasonNoPipe] || r.set.NoPipe.Load() == 0 {
		t.Errorf("response is on %v (%s), %d without a pipe", c.Response.Path, c.Response.Reason, r.set.NoPipe.Load())
	}
	r.w.Do(func() { r.set.pipes.made = 0 })
}

// A reset in mid-bulk: what was received before it arrives, and nothing is left
// of the pipe.
func TestStalledPipeIsHeldAndGivenBack(t *testing.T) {
	r := newRig(t, Off, "tcp4")
	p := r.pair(nil)
	r.w.Do(func() { p.Force(0, api.PathPipe) })
	go writeStamped(p.client, 1<<30, 1)
	await(t, "the pipe holds bytes", func() (held bool) {
		r.w.Do(func() { held = p.direction[0].pipe != nil && p.direction[0].pipe.n > 0 })
		return held
	})
	p.client.SetLinger(0)
	p.client.Close()
	if o := p.end(t); o != DownstreamReset {
		t.Errorf("ended %v", o)
	}
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
