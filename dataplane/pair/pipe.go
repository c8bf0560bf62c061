package pair

import (
	"syscall"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/loop"
	"golang.org/x/sys/unix"
)

const (
	// pipeBytes is the capacity asked for: so many pages' slots, each of which
	// may hold a whole fragment of an skb, up to 32 KiB. More than that is not
	// moved at once.
	pipeBytes = 1 << 20
	// maxPipes bounds a worker's pipes, keepPipes those of them that rest. A
	// direction has one only while bytes are in it, so that more than one is
	// in use at a time only for slow destinations; past the bound they relay.
	maxPipes  = 128
	keepPipes = 8
)

// pipe is a kernel pipe, through which splice(2) moves pages without a copy.
type pipe struct {
	r, w int
	n    int // bytes in it
}

// pipes are a worker's.
type pipes struct {
	rested []*pipe
	made   int
	timer  loop.Timer // until the rested ones are closed
	used   bool       // since it was set
}

// get returns an empty pipe, or nil if there are too many, or no descriptors.
func (s *pipes) get() *pipe {
	if last := len(s.rested) - 1; last >= 0 {
		p := s.rested[last]
		s.rested = s.rested[:last]
		return p
	}
	if s.made == maxPipes {
		return nil
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return nil
	}
	// A smaller one, where the user's share of pages is used up, serves too.
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, pipeBytes)
	s.made++
	return &pipe{r: fds[0], w: fds[1]}
}

// put takes an empty pipe back.
func (s *pipes) put(p *pipe) {
	if len(s.rested) >= keepPipes {
		s.discard(p)
		return
	}
	s.rested = append(s.rested, p)
}

// discard closes a pipe, with what is in it.
func (s *pipes) discard(p *pipe) {
	unix.Close(p.r)
	unix.Close(p.w)
	s.made--
}

func (s *pipes) close() {
	for _, p := range s.rested {
		s.discard(p)
	}
	s.rested = nil
}

// pumpPipe is pumpRelay by splice(2). It begins with an empty pipe, so that
// EAGAIN speaks of the source.
func (d *direction) pumpPipe() {
	p, s := d.p, d.p.set
	d.emptied = false
	d.dst().hurry(false)
	size := min(pipeBytes, max(minRead, int(p.cfg.Limit)))
	for range relayRounds {
		tube := s.pipes.get()
		s.pipes.used = true
		if !s.pipes.timer.Armed() {
			s.worker.After(&s.pipes.timer, pipeRest)
		}
		if tube == nil {
			s.NoPipe.Add(1)
			d.moved(api.PathRelay, reasonNoPipe)
			d.pumpRelay()
			return
		}
		n, err := splice2(d.src().fd, tube.w, size)
		if n == 0 {
			s.pipes.put(tube)
			switch {
			case err == unix.EAGAIN:
				d.choose(true)
			case err == unix.EINVAL:
				d.barredPipe = true
				d.moved(api.PathRelay, reasonNoPipe)
				d.pumpRelay()
			case err != 0:
				p.fail(d.src(), false)
			default:
				d.src().fin = true
				d.finish()
			}
			return
		}
		p.active = s.worker.Now()
		d.plain += uint64(n)
		d.piped += uint64(n)
		s.PipedBytes.Add(uint64(n))
		d.traffic.saw(n, p.active)
		tube.n, d.pipe = n, tube
		if !d.empty() {
			return
		}
	}
	d.yield()
}

// empty writes what is in the pipe. What the destination does not take stays in
// it, and false is returned; also when the destination broke.
func (d *direction) empty() bool {
	s := d.p.set
	for d.pipe.n > 0 {
		n, err := splice2(d.pipe.r, d.dst().fd, d.pipe.n)
		if err == unix.EAGAIN {
			return false
		}
		if err != 0 || n == 0 {
			d.p.fail(d.dst(), false)
			return false
		}
		d.pipe.n -= n
	}
	s.pipes.put(d.pipe)
	d.pipe = nil
	return true
}

// splice2 is splice(2) between a socket and a pipe, either way.
func splice2(from, to, size int) (int, syscall.Errno) {
	const flags = unix.SPLICE_F_NONBLOCK | unix.SPLICE_F_MOVE
	// What is longer than a buffer takes long enough for the runtime to know.
	call := syscall.RawSyscall6
	if size > loop.BufferSize {
		call = syscall.Syscall6
	}
	n, _, err := call(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(size), flags)
	if err != 0 {
		return 0, err
	}
	return int(n), 0
}
