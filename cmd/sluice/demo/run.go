package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// run is one demo: the scene, the story, the table.
type run struct {
	*options
	out      io.Writer
	tally    tally
	backends [2]*backend
	proxy    *proxy
	control  *controller
	listener string // where clients connect
	last     order
	result   result
}

func (o *options) run(ctx context.Context, f faults, out io.Writer) error {
	began := time.Now()
	dir, err := os.MkdirTemp("", "sluice-demo")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	defer os.RemoveAll(dir)
	r := &run{options: o, out: out}
	if err := r.scene(ctx, dir, f); err != nil {
		r.tally.fail("%v", err)
	} else {
		r.play(ctx)
	}
	r.close()
	if r.proxy != nil && o.verbose {
		fmt.Fprintf(out, "\nlog of the proxy:\n%s", r.proxy.log)
	}
	r.result.took = time.Since(began)
	return r.report()
}

func (r *run) say(format string, args ...any) { fmt.Fprintf(r.out, format+"\n", args...) }

// scene starts everybody and pushes the first state.
func (r *run) scene(ctx context.Context, dir string, f faults) (err error) {
	for i, f := range []faults{{}, f} {
		if r.backends[i], err = startBackend(i+1, f); err != nil {
			return err
		}
	}
	if r.control, err = startController(r.binary, "127.0.0.1:0"); err != nil {
		return err
	}
	if r.listener, err = freePort(); err != nil {
		return err
	}
	if r.proxy, err = r.startProxyAndPush(ctx, dir); err != nil {
		return err
	}
	r.say("proxy         process %d, listens on %s, admin on http://%s", r.proxy.cmd.Process.Pid, r.listener, r.proxy.admin)
	r.say("control plane process %d, go-control-plane's cache, delta ADS on %s", r.control.cmd.Process.Pid, r.control.addr)
	r.say("back ends     1 on %s, 2 on %s; each greets with its number, then echoes", r.backends[0].addr, r.backends[1].addr)
	return nil
}

func (r *run) startProxyAndPush(ctx context.Context, dir string) (*proxy, error) {
	if err := r.push(0, false); err != nil {
		return nil, err
	}
	p, err := r.startProxy(ctx, dir, r.control.addr)
	if err != nil {
		return nil, err
	}
	_, err = r.control.await(ctx, "the first listener's ACK", func(e event) bool { return e.Kind == "ack" && e.Type == resourcev3.ListenerType })
	return p, err
}

// push g points the cluster at one of the back ends in turn.
func (r *run) push(g int, bad bool) error {
	r.last = order{Version: strconv.Itoa(g), Listener: r.listener, Endpoint: r.backends[g%2].addr, Bad: bad}
	return r.control.push(r.last)
}

// play is the story; what goes wrong is told to the tally.
func (r *run) play(ctx context.Context) {
	talking, hangUp := context.WithCancel(ctx)
	var talks, visits sync.WaitGroup
	defer talks.Wait()
	defer hangUp()
	r.converse(talking, &talks, longLived/2)
	if err := r.swap(ctx, 1); err != nil { // the other half talks to the other back end
		r.tally.fail("%v", err)
		return
	}
	r.converse(talking, &talks, longLived-longLived/2)

	var err error
	r.say("\n%d long-lived connections talk, each byte is compared ...", longLived)
	if r.result.cost, err = measureCost(ctx, r.proxy, &r.tally); err != nil {
		r.tally.fail("%v", err)
		return
	}
	visiting, stay := context.WithCancel(ctx)
	defer visits.Wait()
	defer stay()
	visits.Go(func() { r.visitors(visiting) })
	for _, act := range []func(context.Context) error{r.swapMany, r.badListener, r.swapAfterBad} {
		if err := act(ctx); err != nil {
			r.tally.fail("%v", err)
			return
		}
	}
	stay()
	visits.Wait()
	if r.result.connections, err = r.proxy.connections(); err != nil {
		r.tally.fail("%v", err)
	}
	hangUp()
	talks.Wait()
	if err := r.awaitBytes(ctx); err != nil {
		r.tally.fail("%v", err)
	}
}

// awaitBytes reads the proxy's bytes by path until they add up to the clients';
// a client sees its end a moment before the proxy books it.
func (r *run) awaitBytes(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 3*time.Second, errors.New("they do not"))
	defer cancel()
	b := &r.result.bytes
	var err error
	late := poll(ctx, "the proxy's bytes to add up to the clients'", func() bool {
		for name, to := range map[string]*uint64{"bytes_relay": &b.Relayed, "bytes_pipe": &b.Piped, "bytes_splice": &b.Spliced, "bytes_graft": &b.Grafted} {
			if *to, err = r.proxy.stat(statScope + name); err != nil {
				return true
			}
		}
		// What a failed connection moved, its client does not know.
		return len(r.tally.failed()) > 0 || b.sum() == uint64(r.tally.bytes.Load())
	})
	if late != nil {
		return fmt.Errorf("%w: %d and %d", late, b.sum(), r.tally.bytes.Load())
	}
	return err
}

// converse opens n long-lived connections.
func (r *run) converse(ctx context.Context, wg *sync.WaitGroup, n int) {
	for range n {
		seed := r.tally.long.Add(1)
		c, err := open(r.listener)
		if err != nil {
			r.tally.fail("long-lived connection %d: %v", seed, err)
			continue
		}
		r.tally.bytes.Add(int64(len(banner(c.number))))
		wg.Go(func() { r.tally.converse(ctx, c, uint64(seed)) })
	}
}

// visitors are short connections without end, beside those that time swaps.
func (r *run) visitors(ctx context.Context) {
	for ctx.Err() == nil {
		r.tally.visit(r.listener)
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// swapMany makes the swaps, with the control plane's death in their middle.
func (r *run) swapMany(ctx context.Context) error {
	r.say("%d swaps of the endpoint, under short connections ...", r.swaps)
	for g := 2; g < 2+r.swaps; g++ {
		if g == 2+r.swaps/2 {
			if err := r.killControlPlane(ctx); err != nil {
				return err
			}
		}
		if err := r.swap(ctx, g); err != nil {
			return err
		}
		r.result.swaps++
	}
	return nil
}

// swap pushes g and times when a client is first served by its back end; then,
// with the ACK there, no new connection may get the old one.
func (r *run) swap(ctx context.Context, g int) error {
	want := g%2 + 1
	pushed := time.Now()
	if err := r.push(g, false); err != nil {
		return err
	}
	for r.tally.visit(r.listener) != want {
		if ctx.Err() != nil {
			return fmt.Errorf("swap %d: no client came to back end %d: %w", g, want, context.Cause(ctx))
		}
	}
	if g > 1 {
		r.result.effect = append(r.result.effect, time.Since(pushed))
	}
	if _, err := r.control.await(ctx, fmt.Sprintf("the ACK of swap %d", g), func(e event) bool {
		return e.Kind == "ack" && e.Type == resourcev3.EndpointType && e.Version == strconv.Itoa(g)
	}); err != nil {
		return err
	}
	if got := r.tally.visit(r.listener); got != want && got != 0 {
		r.tally.fail("swap %d: back end %d served a connection opened after the ACK, want %d", g, got, want)
	}
	return nil
}

// killControlPlane ends it by SIGKILL and starts another, which knows nothing of
// the first, on the same address.
func (r *run) killControlPlane(ctx context.Context) error {
	killed, before := time.Now(), r.tally.short.Load()
	r.control.kill()
	select {
	case <-time.After(500 * time.Millisecond):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	next, err := startController(r.binary, r.control.addr)
	if err != nil {
		return err
	}
	r.control = next
	if err := r.control.push(r.last); err != nil {
		return err
	}
	if _, err := r.control.await(ctx, "the proxy to come back to the control plane", func(e event) bool { return e.Kind == "stream" }); err != nil {
		return err
	}
	r.result.alone, r.result.aloneServed = time.Since(killed), r.tally.short.Load()-before
	r.say("kill -9 of the control plane, restarted as process %d; the proxy was alone for %v and clients opened %d connections", r.control.cmd.Process.Pid, r.result.alone.Round(time.Millisecond), r.result.aloneServed)
	return nil
}

// badListener wants the NACK, and the good listener as it was.
func (r *run) badListener(ctx context.Context) error {
	if err := r.push(2+r.swaps, true); err != nil {
		return err
	}
	e, err := r.control.await(ctx, "the bad listener's NACK", func(e event) bool { return e.Kind != "stream" && e.Type == resourcev3.ListenerType })
	if err != nil {
		return err
	}
	if e.Kind != "nack" {
		return errors.New("the bad listener was accepted")
	}
	r.result.nack = strings.TrimSpace(e.Message)
	r.say("a bad listener was pushed; the proxy's NACK says:\n  %s", r.result.nack)
	return nil
}

// swapAfterBad shows that what was NACKed stands in nobody's way.
func (r *run) swapAfterBad(ctx context.Context) error { return r.swap(ctx, 3+r.swaps) }

func (r *run) close() {
	if r.proxy != nil {
		if err := r.proxy.stop(syscall.SIGTERM); err != nil {
			r.tally.fail("end of the proxy: %v; its log:\n%s", err, r.proxy.log)
		}
	}
	if r.control != nil {
		r.control.kill()
	}
	for _, b := range r.backends {
		if b != nil {
			b.close()
		}
	}
}
