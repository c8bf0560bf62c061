package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/cmd/sluice/admin"
)

// askTimeout bounds a question to a running proxy.
const askTimeout = 10 * time.Second

// routesCommand is `sluice routes`, which asks a running proxy.
func routesCommand() *cobra.Command {
	var at string
	var inbound bool
	list := &cobra.Command{
		Use:   "routes",
		Short: "List what becomes of the connections that captured programs open, and of those from outside",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var c admin.CaptureJSON
			if err := ask(cmd, at, "/routes", &c); err != nil {
				return err
			}
			return printRoutes(cmd.OutOrStdout(), &c)
		},
	}
	get := &cobra.Command{
		Use:   "get ADDRESS:PORT",
		Short: "Say what becomes of a connection to one destination, and why",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := netip.ParseAddrPort(args[0])
			if err != nil {
				return fmt.Errorf("read destination: %q is no address with port", args[0])
			}
			var d admin.DecisionJSON
			question := "/routes?destination="
			if inbound {
				question = "/routes?inbound="
			}
			if err := ask(cmd, at, question+url.QueryEscape(to.String()), &d); err != nil {
				return err
			}
			return printDecision(cmd.OutOrStdout(), &d)
		},
	}
	list.PersistentFlags().StringVar(&at, "admin", "127.0.0.1:9901", "address of the running proxy's admin server")
	get.Flags().BoolVar(&inbound, "inbound", false, "ask about a connection that comes from outside, not about one that a captured program opens")
	list.AddCommand(get)
	return list
}

func ask(cmd *cobra.Command, at, path string, into any) error {
	ctx := cmd.Context()
	client := http.Client{Timeout: askTimeout}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+path, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", at, err)
	}
	answer, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("ask %s: %w", at, err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		return fmt.Errorf("ask %s: %w", at, err)
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s: %s: %s", at, answer.Status, b)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("read answer of %s: %w", at, err)
	}
	return nil
}

func printRoutes(w io.Writer, c *admin.CaptureJSON) error {
	if c.Cgroup == "" && c.Inbound == nil {
		_, err := fmt.Fprintln(w, errCaptureIsOff)
		return err
	}
	if c.Cgroup != "" {
		fmt.Fprintf(w, "captured cgroup %s, generation %d, %d swaps, the last in %d µs\n", c.Cgroup, c.Generation, c.Swaps, c.LastSwapUS)
		if err := printTable(w, c.Idle, c.Exclude, c.Routes, c.Outcomes); err != nil {
			return err
		}
	}
	if in := c.Inbound; in != nil {
		fmt.Fprintf(w, "inbound of %s, generation %d, %d swaps, the last in %d µs\n", in.Namespace, in.Generation, in.Swaps, in.LastSwapUS)
		return printTable(w, in.Idle, nil, in.Entries, in.Outcomes)
	}
	return nil
}

func printTable(w io.Writer, idle string, exclude []string, routes []admin.RouteJSON, outcomes map[string]uint64) error {
	if idle != "" {
		fmt.Fprintf(w, "nothing is captured: %s\n", idle)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PREFIX\tPORT\tVERDICT\tLISTENER\tCLUSTER\tPOLICY\tTARGET")
	for _, p := range exclude {
		fmt.Fprintf(t, "%s\tany\texclude\t\t\t\t\n", p)
	}
	for _, r := range routes {
		port := "any"
		if r.Port != 0 {
			port = fmt.Sprint(r.Port)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Prefix, port, r.Verdict, r.Listener, r.Cluster, r.Policy, r.Target)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	var names []string
	for name, n := range outcomes {
		if n > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(w, "%s: %d\n", name, outcomes[name])
	}
	return nil
}

func printDecision(w io.Writer, d *admin.DecisionJSON) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, value)
		}
	}
	row("destination", d.Destination)
	row("verdict", d.Verdict)
	row("reason", d.Reason)
	if d.Route != nil {
		row("listener", d.Route.Listener)
		row("target", d.Route.Target)
		row("policy", d.Route.Policy)
	}
	row("chain", d.Chain)
	row("cluster", d.Cluster)
	return t.Flush()
}
