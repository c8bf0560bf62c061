package pair

import (
	"fmt"
	"time"
)

// Mode is the operator's say in the choice of a path.
type Mode uint8

// The modes of --splice.
const (
	Auto   Mode = iota // the rule below
	Always             // from the first byte, and never back
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

// The rule. A conversation of small messages is what the kernel path is best
// at; bulk is what it is worst at, for each redirected segment costs a visit of
// the kernel's worker whatever its length. The crossover lies at 16 KiB a
// message. A change costs some 15 us each way, which a conversation pays back in
// 8 to 15 messages; so it has to show that it is one first. docs/splice.md has
// the figures.
const (
	minMessages    = 16
	maxMeanMessage = 16 << 10 // bytes
	minMeanPipe    = 32 << 10 // bytes
	bulkBytes      = 1 << 20  // since the last look
	maxOverflows   = 64       // segments, since the last look
	minStay        = int64(time.Second)
	trafficWindow  = 64 // reads
)

// traffic is what the rule knows of a direction whose bytes user space moves:
// the reads since the last change of path and their bytes. Both are halved when
// the window is full, so that what was long ago does not decide.
type traffic struct{ reads, bytes uint32 }

func (t *traffic) saw(n int) {
	if t.reads == trafficWindow {
		t.reads /= 2
		t.bytes /= 2
	}
	t.reads++
	t.bytes += uint32(n)
}

func (t *traffic) mean() uint32 { return t.bytes / max(t.reads, 1) }

// wantsSplice decides for a direction that user space moves and has found
// empty: changes are those of its path so far, stayed the nanoseconds since the
// last.
func (m Mode) wantsSplice(t *traffic, changes uint64, stayed int64) bool {
	switch m {
	case Always:
		return t.reads > 0 || changes == 0
	case Auto:
		return t.reads >= minMessages && t.mean() < maxMeanMessage && (changes == 0 || stayed >= minStay)
	}
	return false
}

// wantsPipe decides for a direction on the relay.
func (t *traffic) wantsPipe() bool { return t.reads >= minMessages && t.mean() >= minMeanPipe }

// leavesPipe decides for a direction on the pipe. What comes in so small pieces
// is moved as fast by recv and send, and may be a conversation.
func (t *traffic) leavesPipe() bool { return t.reads >= minMessages && t.mean() < maxMeanMessage }

// leavesSplice decides for a spliced direction by what the verdict counted since
// the last look, a scan period ago.
func (m Mode) leavesSplice(moved scanned, stayed int64) bool {
	if m != Auto || moved.segments == 0 || stayed < minStay {
		return false
	}
	return moved.bytes >= bulkBytes && (moved.bytes/moved.segments > maxMeanMessage || moved.overflows >= maxOverflows)
}
