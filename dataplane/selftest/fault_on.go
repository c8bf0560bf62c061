//go:build sluice_fault

package selftest

import "os"

// fault makes the step that SLUICE_FAULT names fail.
func fault(step string) bool { return os.Getenv("SLUICE_FAULT") == step }
