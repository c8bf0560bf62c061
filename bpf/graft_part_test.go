package bpf

import (
	"errors"
	"io"
	"net"
	"testing"
)

// A pair whose halves part: nothing new passes, and once all is acknowledged the
// proxy's sockets say FIN where the stream is.
func TestHalvesPart(t *testing.T) {
	for name, at := range sites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newStock(t, at(t))
			k.must(k.join())
			k.exchange("ping")
			k.activate()
			k.exchange("a longer message that the sockets at rest have never seen")
			before := k.counters()
			if !k.pair.Part() {
				t.Fatalf("state %d", k.pair.State())
			}
			if k.pair.Part() {
				t.Error("a pair began to part twice")
			}
			k.await("the grace period", k.pair.Settled)
			send(t, k.client, "this is kept back")
			k.await("the segment", func() bool { return k.counters()["passage.held"] > before["passage.held"] })
			done := false
			k.await("all is acknowledged", func() bool {
				k.must(k.in.Do(func() (err error) { done, err = k.pair.Parted(); return err }))
				return done
			})
			if s := k.pair.State(); s != GraftParted {
				t.Fatalf("state %d", s)
			}
			k.must(k.up.CloseWrite())
			if n, err := k.server.Read(make([]byte, 100)); n != 0 || err != io.EOF {
				t.Errorf("the server read %d bytes, %v, want the end", n, err)
			}
			// What was kept back is sent again, and is the proxy's now.
			receive(t, k.down, "this is kept back")
			send(t, k.down, "of the proxy")
			receive(t, k.client, "of the proxy")
			send(t, k.server, "to the proxy")
			receive(t, k.up, "to the proxy")
			k.must(k.down.CloseWrite())
			if n, err := k.client.Read(make([]byte, 100)); n != 0 || err != io.EOF {
				t.Errorf("the client read %d bytes, %v, want the end", n, err)
			}
			for _, ends := range [][2]*net.TCPConn{{k.client, k.down}, {k.server, k.up}} {
				k.must(ends[0].CloseWrite())
				if _, err := ends[1].Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("the proxy's socket: %v, want the end", err)
				}
			}
			k.expect(before, map[string]uint64{"passage.held": 1, "passage.parted": 4, "passage.own_parted": 4, "parting.done": 1})
		})
	}
}

func TestHalvesThatCannotPart(t *testing.T) {
	k := newStock(t, loopbackSite(t, false))
	k.must(k.join())
	if k.pair.Part() {
		t.Fatal("a pair that drains began to part")
	}
	k.exchange("ping")
	k.activate()
	before := k.counters()
	parts := func(why error, counter string) {
		t.Helper()
		k.await("the grace period", k.pair.Settled)
		k.await("an answer", func() bool {
			done := true
			err := k.in.Do(func() (err error) { done, err = k.pair.Parted(); return err })
			if done {
				t.Fatal("it parted")
			}
			return errors.Is(err, why)
		})
		k.expect(before, map[string]uint64{counter: 1})
	}
	parts(errParting, "parting.state") // not asked to
	if !k.pair.Part() {
		t.Fatal("it does not begin")
	}
	GraftPlant{&k.pair}.Owe()
	parts(nil, "parting.waits")
	k.pair.words().Way[0].High--
	k.pair.generation++
	parts(errParting, "parting.request")
	k.pair.generation--
	// A socket that has something of its own under way is not at rest.
	send(t, k.up, "of the proxy")
	receive(t, k.server, "he proxy") // the ping passed it by
	parts(errParting, "parting.sockets")
	k.pair.End()
}
