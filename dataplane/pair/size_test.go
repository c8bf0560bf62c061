package pair

import (
	"testing"
	"unsafe"
)

// A proxy has thousands of pairs that do nothing. The allocator's next size is
// 512 bytes: what a pair at rest does not need is pointed to, as its alarm is.
func TestPairIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Pair{}); n > 480 {
		t.Errorf("%d bytes, want 480 at most", n)
	}
}
