// Package selftest proves, on a pair of its own over loopback, that this kernel splices
// without losing or repeating a byte, at start, and that it grafts, before the first
// pair is grafted. What a kernel does decides, not its version; where a step fails
// pairs go on without.
package selftest

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"github.com/sluice-proxy/sluice/dataplane/pair"
)

// patience is how long one step may take.
const patience = 5 * time.Second

// errSkip says that a step could not be tried, which fails nothing.
var errSkip = errors.New("skipped")

// steps in the order in which they run.
var steps = [...]step{
	{"overlap", overlap},
	{"stall", stall},
	{"fin", fin},
	{"unsplice", unsplice},
	{"resplice", resplice},
}

// Run tries every step until one fails. It uses the ring of worker 0, so it has
// to be over before that worker begins.
func Run(splice *bpf.Splice, log *slog.Logger) (results []api.SelfTestStep, ok bool) {
	return try(steps[:], func(run func(*rig) error) error {
		use := func(w *loop.Worker) (*pair.Set, error) {
			return pair.NewSet(w, splice, pair.Always, "", pair.NewCrowd(), log)
		}
		return with(&rig{splice: splice}, log, use, func(r *rig) error {
			if err := r.onPath(api.PathSplice); err != nil {
				return err
			}
			return run(r)
		})
	})
}

// RunGraft does the same for the graft, in the namespace that it is for.
func RunGraft(graft *bpf.Graft, log *slog.Logger) (results []api.SelfTestStep, ok bool) {
	return try(graftSteps[:], func(run func(*rig) error) error {
		return with(&rig{graft: graft}, log, func(w *loop.Worker) (*pair.Set, error) {
			set, err := pair.NewSet(w, nil, pair.Off, "", pair.NewCrowd(), log)
			if err == nil {
				err = set.UseGraft(graft, false)
			}
			return set, err
		}, run)
	})
}

// step is one thing to try.
type step struct {
	name string
	run  func(*rig) error
}

func try(steps []step, with func(func(*rig) error) error) (results []api.SelfTestStep, ok bool) {
	ok = true
	for _, step := range steps {
		err := with(step.run)
		if err == nil && fault(step.name) {
			err = errors.New("fault planted by the test build")
		}
		r := api.SelfTestStep{Name: step.name, Result: "ok"}
		switch {
		case errors.Is(err, errSkip):
			r.Result, r.Detail = "skipped", err.Error()
		case err != nil:
			r.Result, r.Detail, ok = "failed", err.Error(), false
		}
		results = append(results, r)
		if !ok {
			break
		}
	}
	return results, ok
}

// rig is a pair between two plain connections.
type rig struct {
	splice         *bpf.Splice
	graft          *bpf.Graft
	worker         *loop.Worker
	pair           *pair.Pair
	client, server *net.TCPConn
	ended          chan pair.Outcome
}

func with(r *rig, log *slog.Logger, use func(*loop.Worker) (*pair.Set, error), step func(*rig) error) error {
	w, err := loop.New(0, log)
	if err != nil {
		return err
	}
	set, err := use(w)
	if err != nil {
		return err
	}
	set.IgnoreMemory()
	go w.Run()
	defer w.Close()
	defer w.Do(func() { set.KillAll(); set.Close() })

	client, down, err := connection()
	if err != nil {
		return err
	}
	defer client.Close()
	server, up, err := connection()
	if err != nil {
		closeFD(down)
		return err
	}
	defer server.Close()
	deadline := time.Now().Add(patience)
	client.SetDeadline(deadline)
	server.SetDeadline(deadline)

	r.worker, r.client, r.server, r.ended = w, client, server, make(chan pair.Outcome, 1)
	w.Do(func() {
		r.pair = set.Start(pair.Config{Downstream: down, Upstream: up, Limit: 256 << 10,
			Ended: func(_ *pair.Pair, o pair.Outcome) { r.ended <- o }})
	})
	return step(r)
}

// onPath checks that both directions travel by a path.
func (r *rig) onPath(want api.Path) error {
	var c api.Connection
	r.worker.Do(func() { r.pair.Status(&c) })
	for _, d := range []api.DirectionStatus{c.Request, c.Response} {
		if d.Path != want {
			return fmt.Errorf("a direction is on path %v, not %v: %s", d.Path, want, d.Reason)
		}
	}
	return nil
}

// exchange sends a message each way.
func (r *rig) exchange(text string) error {
	for _, way := range [][2]net.Conn{{r.client, r.server}, {r.server, r.client}} {
		if _, err := io.WriteString(way[0], text); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		if err := expect(way[1], text); err != nil {
			return err
		}
	}
	return nil
}

func expect(c net.Conn, text string) error {
	got := make([]byte, len(text))
	if n, err := io.ReadFull(c, got); err != nil {
		return fmt.Errorf("read %q: got %q: %w", text, got[:n], err)
	}
	if string(got) != text {
		return fmt.Errorf("read %q: got %q", text, got)
	}
	return nil
}

// stall sends 16 MiB to a reader that does not read at first.
func stall(r *rig) error {
	const total = 16 << 20
	sent := make(chan error, 1)
	go func() {
		buf := make([]byte, 64<<10)
		for off := 0; off < total; off += len(buf) {
			for i := range buf {
				buf[i] = stamp(off + i)
			}
			if _, err := r.client.Write(buf); err != nil {
				sent <- err
				return
			}
		}
		sent <- r.client.CloseWrite()
	}()
	time.Sleep(20 * time.Millisecond) // the stall
	buf := make([]byte, 64<<10)
	off := 0
	for {
		n, err := r.server.Read(buf)
		for i := range n {
			if buf[i] != stamp(off+i) {
				return fmt.Errorf("byte %d of the stream is wrong", off+i)
			}
		}
		off += n
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", off, err)
		}
	}
	if off != total {
		return fmt.Errorf("clean end after %d of %d bytes", off, total)
	}
	return <-sent
}

func stamp(off int) byte { return byte(off ^ off>>8*7 ^ off>>16*31) }

// fin ends both directions by a FIN without data.
func fin(r *rig) error {
	if err := r.exchange("ping"); err != nil {
		return err
	}
	for _, way := range [][2]*net.TCPConn{{r.client, r.server}, {r.server, r.client}} {
		if err := way[0].CloseWrite(); err != nil {
			return fmt.Errorf("send FIN: %w", err)
		}
		if n, err := way[1].Read(make([]byte, 1)); n != 0 || err != io.EOF {
			return fmt.Errorf("after FIN: read %d bytes, %v, want EOF", n, err)
		}
	}
	return r.ends(pair.Complete)
}

// ends waits for the pair's end.
func (r *rig) ends(want pair.Outcome) error {
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case o := <-r.ended:
		if o != want {
			return fmt.Errorf("pair ended %v", o)
		}
		return nil
	case <-timeout.C:
		return errors.New("pair did not end")
	}
}

func unsplice(r *rig) error {
	if err := r.exchange("before"); err != nil {
		return err
	}
	before, err := r.splice.Counters()
	if err != nil {
		return err
	}
	if err := r.change((*pair.Pair).Unsplice, api.PathRelay); err != nil {
		return err
	}
	after, err := r.splice.Counters()
	if err != nil {
		return err
	}
	if n := after["event.left"] - before["event.left"]; n != 2 {
		return fmt.Errorf("%d of 2 verdicts were taken away under their sockets' locks: are the sockets of this process's cgroup?", n)
	}
	return r.exchange("after")
}

func resplice(r *rig) error {
	if err := unsplice(r); err != nil {
		return err
	}
	if err := r.change((*pair.Pair).Resplice, api.PathSplice); err != nil {
		return err
	}
	return r.exchange("again")
}

// change moves both directions to another path, which may have to wait until a
// backlog has drained.
func (r *rig) change(f func(*pair.Pair), to api.Path) error {
	deadline := time.Now().Add(patience)
	for {
		r.worker.Do(func() { f(r.pair) })
		err := r.onPath(to)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}
