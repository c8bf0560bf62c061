// Command bench compares Sluice with what one would use in its place: make
// bench. See docs/performance.md for what is measured and how.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		args = []string{"all"}
	}
	want := map[string]int{"serve": 3, "load": 2, "copy": 3, "forward": 4, "readme": 3}
	if n, ok := want[args[0]]; ok && len(args) != n {
		return fmt.Errorf("read command line: %s takes %d arguments", args[0], n-1)
	}
	switch args[0] {
	case "serve":
		var threads int
		if _, err := fmt.Sscan(args[2], &threads); err != nil {
			return fmt.Errorf("read number of threads: %w", err)
		}
		return serve(args[1], threads)
	case "load":
		return offer(args[1])
	case "copy":
		return copyProxy(args[1], args[2])
	case "forward":
		return forward(args[1], args[2], args[3])
	case "readme":
		return readme(args[1], args[2])
	case "profile":
		return profile(ctx, args[1:])
	}
	return compare(ctx, args)
}
