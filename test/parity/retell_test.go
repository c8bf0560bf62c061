package parity

import (
	"sync"
	"testing"
	"time"
)

// stall is a wake-up so late that the pauses of a story no longer say what they
// are meant to: a breath is four of it.
const stall = 50 * time.Millisecond

// stage is held by each story that is told beside others, and locked by one that
// is told again.
var stage sync.RWMutex

// tell tells a story to a proxy. One that comes out as none of want, while the
// machine was too busy to tell it with the times that it has, has said nothing
// about the proxy: it is told again, alone, up to twice. What comes out wrong
// without a stall counts at once.
func tell(t *testing.T, s scenario, k kind, plant bool, want string) (record, info string) {
	t.Helper()
	for again := range 3 {
		var late time.Duration
		t.Run("told", func(t *testing.T) {
			if again > 0 {
				stage.Lock()
				defer stage.Unlock()
			} else {
				stage.RLock()
				defer stage.RUnlock()
			}
			lateness := watch()
			record, info = tellOnce(t, s, k, plant)
			late = lateness()
		})
		if t.Failed() {
			t.FailNow() // it has no record
		}
		if record == want || late < stall || plant || *update || *own {
			break
		}
		t.Logf("the machine was %v late: told again, after\n%s", late.Round(time.Millisecond), diff(want, record))
	}
	return record, info
}

// watch sleeps in small pieces until it is asked for the latest wake-up.
func watch() (lateness func() time.Duration) {
	const piece = 20 * time.Millisecond
	stop, done := make(chan struct{}), make(chan time.Duration)
	go func() {
		var worst time.Duration
		for t := time.NewTimer(piece); ; t.Reset(piece) {
			from := time.Now()
			select {
			case <-t.C:
				worst = max(worst, time.Since(from)-piece)
			case <-stop:
				done <- max(worst, time.Since(from)-piece)
				return
			}
		}
	}()
	return func() time.Duration {
		close(stop)
		return <-done
	}
}
