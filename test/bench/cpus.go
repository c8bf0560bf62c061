package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// firstCPUs are the first n CPUs that this process may use.
func firstCPUs(n int) ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("read CPUs: %w", err)
	}
	var cpus []int
	for i := 0; len(cpus) < n && i < len(set)*64; i++ {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	if len(cpus) < n {
		return nil, fmt.Errorf("read CPUs: %d are needed, %d are there", n, len(cpus))
	}
	return cpus, nil
}
