package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/sluice-proxy/sluice/test/control"
	"github.com/sluice-proxy/sluice/test/peer"
)

// The control plane is killed and comes back, each time with something changed
// while it was away. RESTARTS=100 for the whole, 8 otherwise.
func TestRestartsOfTheControlPlaneTouchNobody(t *testing.T) {
	restarts := 8
	if n, err := strconv.Atoi(os.Getenv("RESTARTS")); err == nil {
		restarts = n
	}
	for _, variant := range []string{"GRPC", "DELTA_GRPC"} {
		t.Run(variant, func(t *testing.T) { restartTimes(t, variant, restarts) })
	}
}

func restartTimes(t *testing.T, variant string, restarts int) {
	server, err := peer.Listen("0.0.0.0:0", peer.Echo)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	at := free(t)
	cp := control.StartServer(t, control.Hooks{})
	update := func(g int) {
		host := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 2, byte(g >> 8), byte(g)}), server.Addr().Port())
		cp.Update(t, control.Resources{Version: strconv.Itoa(g),
			Listeners: []types.Resource{tcpListener(t, "l", at, "c")},
			Clusters:  []types.Resource{edsCluster("c")},
			Endpoints: []types.Resource{assignment("c", host)}})
	}
	update(0)
	p := start(t, sluice, dynamic(cp.Addr(), variant), nil)
	dial := func() (net.Conn, error) { return net.DialTimeout("tcp", at.String(), 5*time.Second) }
	p.await("the listener serves", func() bool {
		c, err := dial()
		if err == nil {
			c.Close()
		}
		return err == nil
	})

	stop := make(chan struct{})
	var wg sync.WaitGroup
	var pongs, fresh, broken atomic.Int64
	ping := func(c net.Conn, in *bufio.Reader) error {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := fmt.Fprintln(c, "ping"); err != nil {
			return err
		}
		line, err := in.ReadString('\n')
		if err == nil && line != "ping\n" {
			err = fmt.Errorf("got %q", line)
		}
		return err
	}
	load := func(keep bool) { // long connections, or one after another
		var c net.Conn
		var in *bufio.Reader
		for {
			select {
			case <-stop:
				if c != nil {
					c.Close()
				}
				return
			case <-time.After(time.Millisecond):
			}
			var err error
			if c == nil {
				if c, err = dial(); err == nil {
					in = bufio.NewReader(c)
				}
			}
			if err == nil {
				err = ping(c, in)
			}
			if err != nil {
				if broken.Add(1) < 5 {
					t.Errorf("keep %v: %v", keep, err)
				}
				c = nil
				continue
			}
			pongs.Add(1)
			if !keep {
				fresh.Add(1)
				c.Close()
				c = nil
			}
		}
	}
	for range 20 {
		wg.Go(func() { load(true) })
	}
	for range 2 {
		wg.Go(func() { load(false) })
	}

	var lives []int // how many requests there were at the end of each
	for g := 1; g <= restarts; g++ {
		cp.Stop()
		before := len(cp.Requests())
		lives = append(lives, before)
		update(g)
		cp.Restart(t)
		p.await(fmt.Sprintf("restart %d: endpoints are acknowledged", g), func() bool {
			for _, r := range cp.Requests()[before:] {
				if r.TypeURL == resourcev3.EndpointType && r.Nonce != "" && r.Error == nil && (r.Delta || r.Version == strconv.Itoa(g)) {
					return true
				}
			}
			return false
		})
	}
	close(stop)
	wg.Wait()
	t.Logf("%s: %d restarts, %d pings, %d new connections, %d broken", variant, restarts, pongs.Load(), fresh.Load(), broken.Load())
	if broken.Load() > 0 || pongs.Load() == 0 || fresh.Load() == 0 {
		t.Errorf("%d connections were touched, %d pings, %d new connections", broken.Load(), pongs.Load(), fresh.Load())
	}
	acked := map[string]string{}
	lives = append(lives, len(cp.Requests()))
	for i, from := 0, 0; i < len(lives); i++ {
		formal(t, cp.Requests()[from:lives[i]], acked)
		from = lives[i]
	}
}

// formal holds the requests of one life of the server to the form: the first of a
// type has no nonce and says what was acknowledged last, later ones answer newer
// and newer responses, and none rejects. acked is kept from life to life.
func formal(t *testing.T, life []control.Request, acked map[string]string) {
	t.Helper()
	nonces := map[string]int{}
	for _, r := range life {
		n, _ := strconv.Atoi(r.Nonce)
		before, asked := nonces[r.TypeURL]
		nonces[r.TypeURL] = n
		switch {
		case r.Error != nil:
			t.Errorf("%s rejects", r)
		case asked && n <= before:
			t.Errorf("%s answers no newer response than %d", r, before)
		case !asked && r.Nonce != "":
			t.Errorf("%s answers what this server never sent", r)
		case !asked && !r.Delta && r.Version != acked[r.TypeURL]:
			t.Errorf("%s, acknowledged was %q", r, acked[r.TypeURL])
		case !asked && r.Delta && acked[r.TypeURL] != "" && len(r.Initial) == 0:
			t.Errorf("%s says nothing of what is held", r)
		}
		if r.Nonce != "" {
			acked[r.TypeURL] = r.Version
			if r.Delta {
				acked[r.TypeURL] = "some"
			}
		}
	}
}
