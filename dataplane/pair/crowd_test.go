package pair

import (
	"slices"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// idle gives the machine so much idle CPU time, in percent.
func (c *Crowd) idle(percent uint64) {
	var t cpuTime
	c.cpu.read = func() (cpuTime, error) {
		t.total += 100
		t.idle += percent
		return t, nil
	}
}

// A crowd is known by the conversations of all workers together, comes at once,
// and goes when there have been fewer for a while.
func TestCrowdOfAllWorkers(t *testing.T) {
	second := int64(time.Second)
	type step struct {
		at   int64
		busy []int32
		want bool
	}
	for _, tt := range []struct {
		name  string
		idle  uint64
		steps []step
	}{
		{"few", 0, []step{{second, []int32{4, 4}, false}, {2 * second, []int32{0, 8}, false}}},
		{"many together", 0, []step{{second, []int32{4, 5}, true}}},
		{"more workers, more conversations", 0, []step{{second, []int32{4, 4, 4, 4}, false}, {second, []int32{4, 4, 4, 5}, true}}},
		{"idle CPUs, as soon as that is known", 50, []step{{second, []int32{10, 10}, true}, {2 * second, []int32{10, 10}, false}, {3 * second, []int32{10, 10}, false}}},
		{"fewer for a moment", 0, []step{{second, []int32{9, 0}, true}, {second * 3 / 2, []int32{2, 0}, true}, {second * 19 / 10, []int32{9, 0}, true}, {second * 25 / 10, []int32{2, 0}, true}, {3 * second, []int32{2, 0}, false}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := NewCrowd()
			c.idle(tt.idle)
			for range tt.steps[0].busy {
				c.join(&Set{worker: newRig(t, Off, "tcp4").w})
			}
			for _, s := range tt.steps {
				for i, n := range s.busy {
					c.sets[i].busy.Store(n)
				}
				if err := c.judge(s.at); err != nil || c.here.Load() != s.want {
					t.Errorf("at %v with %d: crowd %v, %v", time.Duration(s.at), s.busy, c.here.Load(), err)
				}
			}
		})
	}
}

// chatter has every client and its server talk until the function that it returns
// is called.
func chatter(t *testing.T, pairs []*testPair) (stop func()) {
	for _, p := range pairs {
		go func() {
			b := make([]byte, 64)
			for {
				if _, err := p.server.Read(b); err != nil {
					return
				}
				if _, err := p.server.Write(b); err != nil {
					return
				}
			}
		}()
		go func() {
			b := make([]byte, 64)
			for {
				if _, err := p.client.Write(b); err != nil {
					return
				}
				if _, err := p.client.Read(b); err != nil {
					return
				}
				time.Sleep(time.Millisecond)
			}
		}()
	}
	return func() {
		for _, p := range pairs {
			p.client.Close()
			p.server.Close()
			<-p.ended
		}
	}
}

// paths are the paths of the pairs' directions.
func (r *rig) paths(pairs []*testPair) (on []api.Path) {
	r.w.Do(func() {
		for _, p := range pairs {
			on = append(on, p.direction[0].path, p.direction[1].path)
		}
	})
	return on
}

// Conversations that begin together are judged together: no one of a crowd is
// spliced, not even for a moment. When most of them have ended the rest is.
func TestNoneOfACrowdIsSpliced(t *testing.T) {
	r := newRig(t, Auto, "tcp4")
	r.set.crowd.idle(0)
	var pairs []*testPair
	for range 12 {
		pairs = append(pairs, r.pair(nil))
	}
	stopMost, stopRest := chatter(t, pairs[3:]), chatter(t, pairs[:3])
	r.await("a crowd", func() bool { return r.set.crowd.here.Load() })
	for end := time.Now().Add(4 * lookPeriod); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if n := r.set.Promotions.Load(); n != 0 {
			t.Fatalf("%d promotions", n)
		}
	}
	stopMost()
	r.await("the rest on the splice", func() bool { return !slices.Contains(r.paths(pairs[:3]), api.PathRelay) })
	stopRest()
	r.counted(t)
}

// Spliced conversations leave the splice together when others make them a crowd.
func TestCrowdIsTakenFromTheSplice(t *testing.T) {
	r := newRig(t, Auto, "tcp4")
	r.set.crowd.idle(0)
	few := []*testPair{r.pair(nil), r.pair(nil)}
	stopFew := chatter(t, few)
	r.await("few on the splice", func() bool { return !slices.Contains(r.paths(few), api.PathRelay) })
	r.w.Do(func() { r.w.Stop(&r.set.scan) }) // which would do it too, later
	var more []*testPair
	for range 10 {
		more = append(more, r.pair(nil))
	}
	stopMore := chatter(t, more)
	r.await("all on the relay", func() bool {
		return !slices.Contains(r.paths(append(more, few...)), api.PathSplice) && r.set.Demotions.Load() > 0
	})
	if n := r.set.Promotions.Load(); n != 4 {
		t.Errorf("%d promotions, want 4", n)
	}
	stopMore()
	stopFew()
	r.counted(t)
}

// counted checks that nobody is left in the counts once all have ended.
func (r *rig) counted(t *testing.T) {
	r.await("nobody counted", func() bool { return r.set.busy.Load() == 0 })
	r.w.Do(func() {
		if r.set.talking != [2]int{} || r.set.splicedBusy != 0 {
			t.Errorf("counted after the end: %v on the relay, %d spliced", r.set.talking, r.set.splicedBusy)
		}
	})
}

// next ends the look that is on.
func (s *Set) next() {
	s.worker.Stop(&s.look)
	s.looked()
}

// Who pauses has to be counted again before it is spliced, for others may have
// come meanwhile.
func TestPausedConversationIsCountedAgain(t *testing.T) {
	r := newRig(t, Auto, "tcp4")
	p := r.pair(nil)
	r.w.Do(func() {
		d, s := &p.direction[0], r.set
		for i, want := range []bool{false, false, true, true} {
			if i == 2 {
				s.next()
			}
			if got := d.talks(); got != want {
				t.Errorf("asked %d times: %v, want %v", i+1, got, want)
			}
		}
		s.next()
		s.next() // counts nobody
		if s.look.Armed() {
			t.Error("looks go on although nobody talks")
		}
		if d.talks() {
			t.Error("counted by the looks before the pause")
		}
	})
}

// A conversation is one, whatever path it was counted on last.
func TestConversationIsCountedOnce(t *testing.T) {
	r := newRig(t, Auto, "tcp4")
	p := r.pair(nil)
	r.w.Do(func() {
		d, s := &p.direction[0], r.set
		expect := func(what string, want int32) {
			t.Helper()
			if n := s.busy.Load(); n != want {
				t.Errorf("%s: %d busy, want %d", what, n, want)
			}
		}
		d.talks()
		expect("talks", 1)
		s.next()
		d.talks()
		expect("talks on", 1)
		d.uncount() // as it changes its path
		expect("changes", 0)
		d.countSpliced(true)
		d.countSpliced(true)
		expect("spliced", 1)
		d.uncount()
		expect("leaves", 0)
		d.talks()
		s.next()
		expect("counted in the last look only", 1)
		d.uncount()
		expect("ends", 0)
	})
}
