package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/cmd/sluice/admin"
)

// captureReport is what `sluice capture status` says of one part, outbound or
// inbound, from pins or from a running proxy.
type captureReport struct {
	Part   string `json:"part"`
	Pin    string `json:"pin,omitempty"`
	OnExit string `json:"on_exit"`
	// Process is the one that the hooks belong to; 0: not told.
	Process uint32 `json:"process,omitempty"`
	Alive   bool   `json:"alive"`
	// Serving tells whether the routes are that process's own.
	Serving    bool              `json:"serving"`
	Generation uint64            `json:"generation"`
	Entries    int               `json:"entries"`
	Idle       string            `json:"idle,omitempty"`
	Full       string            `json:"full,omitempty"`
	Pins       string            `json:"pins,omitempty"`
	Hooks      []admin.HookJSON  `json:"hooks"`
	Outcomes   map[string]uint64 `json:"outcomes"`
}

var errNeedsPin = errors.New("name the directory of pins: --capture-pin")

// captureCommand is `sluice capture`: status reads, clear changes.
func captureCommand() *cobra.Command {
	var pin, at string
	var asJSON bool
	root := &cobra.Command{Use: "capture", Short: "What captures programs' connections now, and what a dead proxy left", Args: cobra.NoArgs}
	status := &cobra.Command{
		Use:   "status",
		Short: "Show the hooks, by their pins (--capture-pin) or by a running proxy (--admin)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reports, err := reportCapture(cmd, pin, at)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), reports)
			}
			for i := range reports {
				if err := reports[i].print(cmd.OutOrStdout()); err != nil {
					return err
				}
			}
			return nil
		},
	}
	status.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	status.Flags().StringVar(&at, "admin", "127.0.0.1:9901", "address of the running proxy's admin server, asked without --capture-pin")
	clear := &cobra.Command{
		Use:   "clear",
		Short: "Take away the hooks and pins of a proxy that is gone",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if pin == "" {
				return errNeedsPin
			}
			if err := bpf.ClearPins(pin); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "cleared %s\n", pin)
			return err
		},
	}
	root.PersistentFlags().StringVar(&pin, "capture-pin", "", "the directory of pins, as the proxy was given it")
	root.AddCommand(status, clear)
	return root
}

func reportCapture(cmd *cobra.Command, pin, at string) ([]captureReport, error) {
	if pin == "" {
		return askCapture(cmd, at)
	}
	pins, err := bpf.ReadPins(pin)
	if err != nil {
		return nil, err
	}
	var out []captureReport
	for _, p := range pins {
		r := captureReport{
			Part: p.Part, Pin: p.Dir, OnExit: p.OnExit.String(), Process: p.Process, Alive: p.Alive, Serving: p.Serving,
			Generation: p.Generation, Entries: p.Entries, Hooks: []admin.HookJSON{}, Outcomes: p.Outcomes,
		}
		for _, h := range p.Hooks {
			r.Hooks = append(r.Hooks, admin.HookJSON{Name: h.Name, Link: h.LinkID, At: h.At})
		}
		out = append(out, r)
	}
	return out, nil
}

func askCapture(cmd *cobra.Command, at string) (out []captureReport, err error) {
	var c admin.CaptureJSON
	if err := ask(cmd, at, "/routes", &c); err != nil {
		return nil, err
	}
	if c.Cgroup != "" {
		out = append(out, captureReport{
			Part: "outbound", Pin: c.Pin, OnExit: c.OnExit, Alive: true, Serving: c.Swaps > 0, Generation: c.Generation, Entries: len(c.Routes) + len(c.Exclude),
			Idle: c.Idle, Full: c.Full, Pins: c.Pins, Hooks: c.Hooks, Outcomes: c.Outcomes,
		})
	}
	if in := c.Inbound; in != nil {
		out = append(out, captureReport{
			Part: "inbound", Pin: c.Pin, OnExit: c.OnExit, Alive: true, Serving: in.Swaps > 0, Generation: in.Generation, Entries: len(in.Entries),
			Idle: in.Idle, Pins: in.Pins, Hooks: in.Hooks, Outcomes: in.Outcomes,
		})
	}
	if out == nil {
		return nil, errCaptureIsOff
	}
	return out, nil
}

var errCaptureIsOff = errors.New("capture is off: neither --capture-cgroup nor --capture-inbound-ports is given")

func (r *captureReport) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row(r.Part, "%s", r.Pin)
	if r.OnExit != "" {
		row("on exit", "%s", r.OnExit)
	}
	row("proxy", "%s", r.proxy())
	row("table", "generation %d, %d entries", r.Generation, r.Entries)
	for _, why := range [][2]string{{"idle", r.Idle}, {"full", r.Full}, {"at start", r.Pins}} {
		if why[1] != "" {
			row(why[0], "%s", why[1])
		}
	}
	for _, h := range r.Hooks {
		at := h.At
		if at == "" {
			at = "a place that is gone"
		}
		row("hook "+h.Name, "link %d at %s", h.Link, at)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Outcomes)) {
		if n := r.Outcomes[name]; n > 0 {
			row(name, "%d", n)
		}
	}
	return t.Flush()
}

// proxy says whether it lives, and what becomes of connections if not.
func (r *captureReport) proxy() string {
	switch {
	case r.Alive && r.Serving && r.Process == 0:
		return "alive"
	case r.Alive && r.Serving:
		return fmt.Sprintf("process %d, alive", r.Process)
	case r.Alive:
		return fmt.Sprintf("process %d, alive, without routes of its own yet: %s", r.Process, r.fate())
	}
	return fmt.Sprintf("process %d is gone: %s", r.Process, r.fate())
}

func (r *captureReport) fate() string {
	if r.OnExit == bpf.ExitClosed.String() {
		return "connections are refused"
	}
	return "connections pass"
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
