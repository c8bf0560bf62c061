// Package demo is `sluice demo`: Sluice's main job, shown on one machine within
// half a minute. A control plane on go-control-plane's cache and the proxy run
// as processes of their own; the back ends and the clients are here, and check
// what they get. What it counts as failed it saw on a client's connection, in
// what the control plane was answered, or in how a process ended.
package demo

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// limit is what a run may take before its processes are ended.
const limit = 24 * time.Second

// Command is the sub-command `demo`. Its error is set when anything failed.
func Command() *cobra.Command {
	var o options
	var fault string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Show the main job: a control plane, two back ends, a load, 200 swaps, a table",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"", "corrupt", "refuse"}, fault) {
				return fmt.Errorf("read --fault: %q is none of corrupt, refuse", fault)
			}
			var err error
			if o.binary, err = os.Executable(); err != nil {
				return fmt.Errorf("find own binary: %w", err)
			}
			ctx, cancel := context.WithTimeoutCause(cmd.Context(), limit, fmt.Errorf("the demo took longer than %v", limit))
			defer cancel()
			return o.run(ctx, backendFaults(fault), cmd.OutOrStdout())
		},
	}
	c.Flags().StringVar(&fault, "fault", "", "make a back end fail, to see the demo find it: corrupt (flips one byte), refuse (closes its port for a while)")
	c.Flags().StringVar(&o.splice, "splice", "always", "what the proxy is started with: auto, always or off")
	c.Flags().IntVar(&o.swaps, "swaps", 200, "how often the endpoint is swapped")
	c.Flags().BoolVarP(&o.verbose, "verbose", "v", false, "also print the proxy's log")
	c.AddCommand(controlPlaneCommand())
	return c
}

func controlPlaneCommand() *cobra.Command {
	var listen string
	c := &cobra.Command{
		Use:    "control-plane",
		Short:  "The demo's control plane; orders on stdin, events on stdout",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serveControlPlane(cmd.Context(), listen, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "address to serve on")
	return c
}

// options of a run.
type options struct {
	binary  string // of sluice
	splice  string
	swaps   int
	verbose bool
}
