//go:build !sluice_fault

package selftest

// fault makes a step fail in the test build; here none does.
func fault(string) bool { return false }
