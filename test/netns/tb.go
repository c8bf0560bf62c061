package netns

import (
	"errors"
	"os"
	"testing"
)

// ForTest makes a namespace that goes with the test. Without root the test is
// skipped with the reason; as root a failure is a failure.
func ForTest(tb testing.TB) *NS {
	tb.Helper()
	ns, err := New()
	if errors.Is(err, ErrPrivilege) && os.Geteuid() != 0 {
		tb.Skipf("needs root: %v", err)
	}
	if err != nil {
		tb.Fatalf("make namespace: %v", err)
	}
	tb.Cleanup(func() { ns.Close() })
	return ns
}
