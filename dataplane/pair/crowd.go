package pair

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

const (
	// lookPeriod is how long the conversations of user space are counted at a time.
	lookPeriod = 50 * time.Millisecond
	// More busy directions than minCrowd, and than crowdPerWorker for each worker,
	// are a crowd; no fewer for calm end it.
	minCrowd       = 8
	crowdPerWorker = 4
	calm           = int64(time.Second)
)

// Crowd is what the workers find out together: whether so many conversations are
// busy, on a machine with nothing to spare, that the relay serves them better. It
// is one answer for all, because some on the kernel path beside others on the
// relay fare worse than all on either: each of them wakes somebody, and none
// shares a wake-up.
type Crowd struct {
	here atomic.Bool

	mu   sync.Mutex
	sets []*Set
	seen int64 // when there was one last
	cpu  cpu
}

// NewCrowd makes the crowd of a data plane.
func NewCrowd() *Crowd { return &Crowd{cpu: cpu{read: readCPU}} }

// join is called before the set's worker has any pair.
func (c *Crowd) join(s *Set) {
	c.mu.Lock()
	c.sets = append(c.sets, s)
	c.mu.Unlock()
}

// manyLocked tells whether there are enough for a crowd.
func (c *Crowd) manyLocked() bool {
	n := 0
	for _, s := range c.sets {
		n += int(s.busy.Load())
	}
	return n > max(minCrowd, crowdPerWorker*len(c.sets))
}

// judge decides anew. When a crowd has come, every worker takes its part of it
// from the splice.
func (c *Crowd) judge(now int64) error {
	c.mu.Lock()
	crowded, err := c.manyLocked(), error(nil)
	if crowded {
		var quiet bool
		quiet, err = c.cpu.isQuiet(now)
		crowded = !quiet
	}
	came := crowded && !c.here.Load()
	switch {
	case crowded:
		c.seen = now
		c.here.Store(true)
	case now-c.seen >= calm:
		c.here.Store(false)
	}
	sets := c.sets
	c.mu.Unlock()
	if came {
		for _, s := range sets {
			s.worker.Post(s.disperse)
		}
	}
	return err
}

// judge asks the crowd, and says what is wrong.
func (s *Set) judge() {
	if err := s.crowd.judge(s.worker.Now()); err != nil {
		s.log.Warn("watch CPU", "error", err)
	}
}

// disperse takes the busy conversations from the splice.
func (s *Set) disperse() {
	for i := len(s.spliced) - 1; i >= 0; i-- {
		p := s.spliced[i]
		for j := range p.direction {
			if d := &p.direction[j]; d.counted && !p.closed {
				d.demote(api.PathRelay, reasonCrowd)
			}
		}
		p.watch()
	}
}

// talks counts a busy conversation that user space moves, once a look. It returns
// true once it has been counted in one that is over, so that all who came with it
// have been, too.
func (d *direction) talks() bool {
	s := d.p.set
	if !s.look.Armed() {
		s.worker.After(&s.look, lookPeriod)
	}
	if d.lastLook != s.looks {
		d.lastLook, d.traffic.steady = s.looks, d.lastLook == s.looks-1
		s.talking[1]++
		s.publish()
	}
	return d.traffic.steady
}

// looked ends a look, and begins the next while there is somebody to count.
func (s *Set) looked() {
	if s.talking[1] > 0 {
		s.worker.After(&s.look, lookPeriod)
	}
	s.talking = [2]int{s.talking[1], 0}
	s.looks++
	s.publish()
	s.judge()
}

// uncount forgets a direction that changes its path, or ends.
func (d *direction) uncount() {
	s := d.p.set
	if d.lastLook >= s.looks-1 && (d.lastLook != s.looks || d.traffic.steady) {
		s.talking[0]--
	}
	if d.lastLook == s.looks {
		s.talking[1]--
	}
	d.lastLook, d.traffic.steady = 0, false
	d.countSpliced(false)
	s.publish()
}

// countSpliced says whether a spliced direction is busy.
func (d *direction) countSpliced(busy bool) {
	if s := d.p.set; busy != d.counted {
		if d.counted = busy; busy {
			s.splicedBusy++
		} else {
			s.splicedBusy--
		}
		s.publish()
	}
}

// publish tells the other workers how many are busy here: in the look that is on
// or in the last, whatever is more, for nobody is to be missed between two.
func (s *Set) publish() {
	s.busy.Store(int32(max(s.talking[0], s.talking[1]) + s.splicedBusy))
}
