package pair

import (
	"errors"
	"os"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/dataplane/address"
	"golang.org/x/sys/unix"
)

// Why a pair is not grafted, other than what the programs find (bpf.Refusal).
var (
	errGraftFilter    = errors.New("a filter must see its bytes")
	errGraftUnix      = errors.New("unix")
	errGraftTLS       = errors.New("TLS")
	errGraftEnd       = errors.New("half-closed")
	errGraftSpliced   = errors.New("it has been spliced")
	errGraftKeepAlive = errors.New("keep-alive, which the proxy's own sockets could not answer")
	errGraftMark      = errors.New("a mark, which routes it")
	errGraftAddress   = errors.New("an address that is not this machine's")
	errGraftTracked   = errors.New("connection tracking (netfilter) is on: it would see one direction only")
)

// trackPeriod is how long a look at netfilter counts.
const trackPeriod = int64(time.Second)

// fits looks at what the programs do not see, and returns the addresses.
func (p *Pair) fits() (down, up bpf.Ends, err error) {
	switch {
	case p.cfg.Unix:
		return down, up, errGraftUnix
	case p.secured():
		return down, up, errGraftTLS
	case p.cfg.Moved != nil || p.direction[0].gate != gateOpen:
		return down, up, errGraftFilter
	case p.set.tracked():
		return down, up, errGraftTracked
	}
	for i := range p.ends {
		e := &p.ends[i]
		if e.fin || e.failed || p.direction[i].done {
			return down, up, errGraftEnd
		}
		if e.adopted {
			return down, up, errGraftSpliced
		}
		if on, _ := getsockopt(e.fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE); on != 0 {
			return down, up, errGraftKeepAlive
		}
		if mark, _ := getsockopt(e.fd, unix.SOL_SOCKET, unix.SO_MARK); mark != 0 {
			return down, up, errGraftMark
		}
		if on, _ := getsockopt(e.fd, unix.SOL_IP, unix.IP_TRANSPARENT); on != 0 {
			return down, up, errGraftAddress
		}
	}
	down.Remote, down.Local = address.Ends(p.ends[0].fd)
	up.Remote, up.Local = address.Ends(p.ends[1].fd)
	if !down.Remote.IsValid() || !up.Remote.IsValid() {
		return down, up, errGraftEnd
	}
	return down, up, nil
}

// tracked tells whether netfilter tracks connections in this namespace. It counts
// none where nobody asks it to.
func (s *Set) tracked() bool {
	now := s.worker.Now()
	if s.trackedRead != 0 && now-s.trackedRead < trackPeriod {
		return s.isTracked
	}
	// The file is the namespace's of the thread that reads it.
	b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	s.trackedRead, s.isTracked = now, err == nil && strings.TrimSpace(string(b)) != "0"
	return s.isTracked
}

// maxSegment is the most that TCP_MAXSEG takes (MAX_TCP_WINDOW).
const maxSegment = 32767

// Segment is what TCP_MAXSEG of the upstream's socket has to be, before it
// connects, so that its segments fit the downstream's connection; 0 for no matter.
func (s *Set) Segment(downstream int) int {
	if !s.graftsByRule || tcpInfo(downstream, &s.info) != 0 {
		return 0
	}
	const timestamps, option = 1, 12 // TCPI_OPT_TIMESTAMPS, and what they take
	segment := s.info.Snd_mss
	if s.info.Options&timestamps != 0 {
		segment += option
	}
	if segment = min(segment, s.info.Advmss); segment > maxSegment {
		return 0
	}
	return int(segment)
}
