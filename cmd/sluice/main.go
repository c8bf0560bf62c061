// Sluice is a layer-4 data plane in Envoy's place: any xDS control plane drives
// it, and the bytes of established TCP connections stay in the kernel.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// env is what a command touches of the world.
type env struct {
	stdout, stderr io.Writer
	// reopen tells that log files are to be opened anew.
	reopen <-chan os.Signal
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	signal.Ignore(syscall.SIGHUP) // as Envoy does
	reopen := make(chan os.Signal, 1)
	signal.Notify(reopen, syscall.SIGUSR1)
	err := run(ctx, os.Args[1:], env{stdout: os.Stdout, stderr: os.Stderr, reopen: reopen})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
