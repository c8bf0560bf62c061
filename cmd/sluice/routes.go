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
	list := &cobra.Command{
		Use:   "routes",
		Short: "List what becomes of the connections that captured programs open",
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
			if err := ask(cmd, at, "/routes?destination="+url.QueryEscape(to.String()), &d); err != nil {
				return err
			}
			return printDecision(cmd.OutOrStdout(), &d)
		},
	}
	list.PersistentFlags().StringVar(&at, "admin", "127.0.0.1:9901", "address of the running proxy's admin server")
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
	if c.Cgroup == "" {
		_, err := fmt.Fprintln(w, "capture is off: --capture-cgroup is not given")
		return err
	}
	fmt.Fprintf(w, "captured cgroup %s, generation %d, %d swaps, the last in %d µs\n", c.Cgroup, c.Generation, c.Swaps, c.LastSwapUS)
	if c.Idle != "" {
		fmt.Fprintf(w, "nothing is captured: %s\n", c.Idle)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PREFIX\tPORT\tVERDICT\tLISTENER\tCLUSTER\tPOLICY\tTARGET")
	for _, p := range c.Exclude {
		fmt.Fprintf(t, "%s\tany\texclude\t\t\t\t\n", p)
	}
	for _, r := range c.Routes {
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
	for name, n := range c.Outcomes {
		if n > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(w, "%s: %d\n", name, c.Outcomes[name])
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
