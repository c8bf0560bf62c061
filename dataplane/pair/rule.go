package pair

import (
	"fmt"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// Mode is the operator's say in the choice of a path.
type Mode uint8

// The modes of --splice.
const (
	Auto   Mode = iota // the rule below
	Always             // from the first byte, and back only from an overflow
	Off
)

// ParseMode reads a mode as the flag has it.
func ParseMode(s string) (Mode, error) {
	for m, name := range modeNames {
		if s == name {
			return Mode(m), nil
		}
	}
	return 0, fmt.Errorf("read splice mode: %q is none of auto, always, off", s)
}

var modeNames = [...]string{Auto: "auto", Always: "always", Off: "off"}

func (m Mode) String() string { return modeNames[m] }

// The rule. What the kernel path saves is the worker's wake-up for each message.
// That is much where a wake-up brings one message, and nothing where it brings
// several: then the relay serves them one after the other, and the kernel's
// worker, which is woken for each, costs more. So it is for conversations that are
// no crowd (crowd.go). Bulk is what the kernel path is worst at, for each
// redirected segment costs a visit of that worker whatever its length, and
// splice(2) moves it without a copy. A change costs some 15 us each way, which a
// conversation pays back in 8 to 15 messages; so it has to show that it is one
// first. docs/splice.md has the figures.
const (
	minMessages    = 16
	maxMeanMessage = 24 << 10 // bytes
	minMeanPipe    = 32 << 10 // bytes
	bulkBytes      = 1 << 20  // since the last look
	busyMessages   = 50       // a second
	minStay        = int64(time.Second)
	alwaysStay     = int64(100 * time.Millisecond) // after an overflow, where the operator wants the splice
	trafficWindow  = 64                            // reads
)

// traffic is what the rule knows of a direction whose bytes user space moves:
// the reads since the last change of path and their bytes. Both are halved when
// the window is full, so that what was long ago does not decide.
type traffic struct {
	bytes  uint32
	reads  uint16
	steady bool  // counted in two looks in a row
	since  int64 // when the first of them came, about, by the worker's clock
}

func (t *traffic) saw(n int, now int64) {
	if t.reads == trafficWindow {
		t.reads /= 2
		t.bytes /= 2
		t.since += (now - t.since) / 2
	} else if t.reads == 0 {
		t.since = now
	}
	t.reads++
	t.bytes += uint32(n)
}

func (t *traffic) mean() uint32 { return t.bytes / max(uint32(t.reads), 1) }

// talks tells whether it looks like a conversation.
func (t *traffic) talks() bool { return t.reads >= minMessages && t.mean() < maxMeanMessage }

// busy tells whether they come at busyMessages a second or more.
func (t *traffic) busy(now int64) bool {
	return int64(t.reads)*int64(time.Second) >= busyMessages*(now-t.since)
}

// situation is what the rule looks at beside the traffic.
type situation struct {
	changes uint32 // of the direction's path so far
	stayed  int64  // nanoseconds since the last
	empty   bool   // the source was found empty
	splice  bool   // the kernel would take the direction
	crowded bool   // many conversations are busy, on a machine that is not quiet
	known   bool   // whether they are: all that began when this one did were counted
}

// fromUserSpace decides for a direction that user space moves and that holds no
// byte. It returns the path that it is on if that is the best, with the reason if
// it is another than before.
func (m Mode) fromUserSpace(on api.Path, t *traffic, at situation) (to api.Path, why reason) {
	first, talks := at.changes == 0, t.talks()
	switch {
	case m == Always && at.splice && at.empty && (first || at.stayed >= alwaysStay):
		return api.PathSplice, reasonAlways
	case m == Auto && at.splice && at.empty && talks && at.known && !at.crowded && (first || at.stayed >= minStay):
		return api.PathSplice, reasonChatty
	case m == Auto && at.splice && on == api.PathRelay && talks && at.crowded:
		return on, reasonCrowd
	case on == api.PathRelay && t.reads >= minMessages && t.mean() >= minMeanPipe:
		return api.PathPipe, reasonBulk
	case on == api.PathPipe && talks:
		return api.PathRelay, reasonSmall
	}
	return on, 0
}

// fromSplice decides for a spliced direction by what the verdict counted since
// the last look, a scan period ago.
func (m Mode) fromSplice(moved scanned, at situation) (to api.Path, why reason) {
	if m != Auto || moved.segments == 0 {
		return api.PathSplice, 0
	}
	switch mean := moved.bytes / uint64(moved.segments); {
	case at.stayed >= minStay && moved.bytes >= bulkBytes && mean > maxMeanMessage:
		return api.PathPipe, reasonBulk
	case moved.segments >= busyMessages && at.crowded:
		return api.PathRelay, reasonCrowd
	}
	return api.PathSplice, 0
}
