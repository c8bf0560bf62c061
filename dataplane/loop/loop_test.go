package loop

import (
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) *Worker {
	t.Helper()
	w, err := New(0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	go w.Run()
	t.Cleanup(w.Close)
	return w
}

func TestTimersFireInOrder(t *testing.T) {
	w := start(t)
	var fired []int
	done := make(chan struct{})
	order := rand.Perm(50)
	w.Do(func() {
		base := w.Now()
		for _, i := range order {
			w.At(&Timer{F: func() {
				if fired = append(fired, i); len(fired) == 50 {
					close(done)
				}
			}}, base+int64(i)*int64(100*time.Microsecond))
		}
	})
	<-done
	if !slices.IsSorted(fired) {
		t.Errorf("fired in order %v", fired)
	}
}

func TestTimerHeapAgainstModel(t *testing.T) {
	var w Worker
	model := map[*Timer]int64{}
	var fired []*Timer
	all := make([]*Timer, 40)
	for i := range all {
		tm := &Timer{}
		tm.F = func() { fired = append(fired, tm) }
		all[i] = tm
	}
	for step := range 5000 {
		tm := all[rand.IntN(len(all))]
		switch rand.IntN(4) {
		case 0:
			w.Stop(tm)
			delete(model, tm)
		case 1:
			w.now += rand.Int64N(20)
			fired = fired[:0]
			w.timers.fire(w.now)
			for _, f := range fired {
				if at, ok := model[f]; !ok || at > w.now {
					t.Fatalf("step %d: fired a timer that was not due", step)
				}
				delete(model, f)
			}
			for _, at := range model {
				if at <= w.now {
					t.Fatalf("step %d: a due timer did not fire", step)
				}
			}
		default:
			at := w.now + rand.Int64N(100)
			w.At(tm, at)
			model[tm] = at
		}
		if len(model) != len(w.timers) {
			t.Fatalf("step %d: %d armed, want %d", step, len(w.timers), len(model))
		}
	}
}

type handlerFunc func(uint32)

func (f handlerFunc) Ready(e uint32) { f(e) }

func TestEventOfAClosedDescriptorIsNotGivenToItsSuccessor(t *testing.T) {
	w := start(t)
	pipe := func() (r, wr int) {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
			t.Error(err)
		}
		return p[0], p[1]
	}
	wrong := make(chan struct{}, 1)
	settled := make(chan struct{})
	w.Do(func() {
		r1, w1 := pipe()
		r2, w2 := pipe()
		// Both are readable in one batch; the first handler to run replaces
		// the other's descriptor by a new one of the same number.
		var ran bool
		replace := func(mine, other, otherWriter int) Handler {
			return handlerFunc(func(uint32) {
				w.Del(mine)
				if ran {
					return
				}
				ran = true
				w.Forget(other)
				unix.Close(other)
				unix.Close(otherWriter)
				r3, w3 := pipe()
				if r3 != other {
					unix.Dup3(r3, other, unix.O_CLOEXEC)
				}
				w.Add(other, unix.EPOLLIN, handlerFunc(func(uint32) { wrong <- struct{}{} }))
				w.After(&Timer{F: func() {
					w.Del(other)
					unix.Close(other)
					unix.Close(w3)
					unix.Close(mine)
					close(settled)
				}}, time.Millisecond)
			})
		}
		w.Add(r1, unix.EPOLLIN, replace(r1, r2, w2))
		w.Add(r2, unix.EPOLLIN, replace(r2, r1, w1))
		unix.Write(w1, []byte("x"))
		unix.Write(w2, []byte("x"))
	})
	<-settled
	select {
	case <-wrong:
		t.Error("the new descriptor got the old one's event")
	default:
	}
}

func TestPostAfterCloseIsRefused(t *testing.T) {
	w, err := New(0, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		t.Fatal(err)
	}
	go w.Run()
	ran := false
	w.Post(func() { ran = true })
	w.Close()
	if !ran {
		t.Error("what was posted before Close did not run")
	}
	if w.Post(func() {}) || w.Do(func() {}) {
		t.Error("a closed worker took more work")
	}
}
