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
	bulkBytes      = 1 << 20  // since the last look
	minStay        = int64(time.Second)
)

// wantsSplice decides for a direction on the relay that holds no byte: reads
// and bytes are those since its last change of path, stayed the nanoseconds.
func (m Mode) wantsSplice(reads, bytes uint64, changes uint64, stayed int64) bool {
	switch m {
	case Always:
		return reads > 0 || changes == 0
	case Auto:
		return reads >= minMessages && bytes/reads < maxMeanMessage && (changes == 0 || stayed >= minStay)
	}
	return false
}

// wantsRelay decides for a spliced direction by what the verdict counted since
// the last look, at least a scan period ago.
func (m Mode) wantsRelay(bytes, segments uint64, stayed int64) bool {
	return m == Auto && segments > 0 && bytes >= bulkBytes && bytes/segments > maxMeanMessage && stayed >= minStay
}
