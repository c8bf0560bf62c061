package main

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sluice-proxy/sluice/bpf"
)

// verdict is how one check of the doctor ended.
type verdict string

const (
	ok   verdict = "ok"
	warn verdict = "warn" // Sluice works without, less well or with less of it
	fail verdict = "fail" // what the flags ask for does not work
)

// check is one thing that was looked at.
type check struct {
	Name   string  `json:"name"`
	Result verdict `json:"result"`
	Detail string  `json:"detail,omitempty"`
	// Do says how it gets better; empty if it is well, or nothing can be done.
	Do string `json:"do,omitempty"`
}

// diagnosis is the doctor's answer.
type diagnosis struct {
	Fit    bool    `json:"fit"` // no check failed
	Checks []check `json:"checks"`
}

// doctor knows what the flags need; the rest may be missing.
type doctor struct {
	proc  string // where procfs is
	needs map[bpf.Use]bool

	cgroups []string // that are named
	pin     string
	without []string // capabilities
	out     []check
}

var errUnfit = errors.New("this machine lacks what the flags ask for: see fail")

// doctorCommand is `sluice doctor`. It takes the flags that ask something of the
// machine as the proxy takes them.
func doctorCommand() *cobra.Command {
	var splice, graft, cgroup, accept, pin, inbound string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look at kernel, capabilities, system settings and limits, and say what to do",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains([]string{"auto", "always", "off"}, splice) {
				return fmt.Errorf("read --splice: %q is none of auto, always, off", splice)
			}
			if !slices.Contains([]string{"", "auto", "off"}, graft) {
				return fmt.Errorf("read --graft: %q is none of auto, off", graft)
			}
			o := options{splice: splice, graft: graft}
			d := &doctor{proc: "/proc", pin: pin, needs: map[bpf.Use]bool{
				bpf.UseSplice: splice == "always", bpf.UseGraft: graft == "auto", bpf.UseCapture: cgroup != "", bpf.UsePins: pin != "", bpf.UseInbound: inbound != "",
			}}
			for _, c := range []string{cgroup, accept} {
				if c != "" {
					d.cgroups = append(d.cgroups, c)
				}
			}
			return d.examine(splice != "off", o.grafts() != "off").print(cmd.OutOrStdout(), asJSON)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.StringVar(&splice, "splice", "auto", "as the proxy's: with always a machine that cannot splice fails")
	f.StringVar(&graft, "graft", "", "as the proxy's: with auto a machine that cannot graft fails")
	f.StringVar(&cgroup, "capture-cgroup", "", "as the proxy's: a machine that cannot capture fails")
	f.StringVar(&accept, "capture-accept-cgroup", "", "as the proxy's")
	f.StringVar(&pin, "capture-pin", "", "as the proxy's: a machine that cannot pin there fails")
	f.StringVar(&inbound, "capture-inbound-ports", "", "as the proxy's: a machine without sk_lookup fails")
	return cmd
}

// examine runs every check; splice and graft say whether their self-tests are among
// them.
func (d *doctor) examine(splice, graft bool) *diagnosis {
	d.capabilities()
	d.features()
	d.loads()
	if splice {
		d.selfTest()
	}
	if graft {
		d.graftSelfTest()
	}
	d.places()
	d.sysctls()
	d.limits()
	out := &diagnosis{Fit: true, Checks: d.out}
	for _, c := range d.out {
		out.Fit = out.Fit && c.Result != fail
	}
	return out
}

func (d *doctor) say(name string, r verdict, detail, do string) {
	d.out = append(d.out, check{Name: name, Result: r, Detail: detail, Do: do})
}

// missing is the verdict about what is not there.
func (d *doctor) missing(use bpf.Use) verdict {
	if d.needs[use] {
		return fail
	}
	return warn
}

func (d *diagnosis) print(w io.Writer, asJSON bool) error {
	if asJSON {
		if err := printJSON(w, d); err != nil {
			return err
		}
	} else if err := d.text(w); err != nil {
		return err
	}
	if !d.Fit {
		return errUnfit
	}
	return nil
}

func (d *diagnosis) text(w io.Writer) error {
	for _, c := range d.Checks {
		line := fmt.Sprintf("%-4s  %s", c.Result, c.Name)
		if c.Detail != "" {
			line += ": " + c.Detail
		}
		if c.Do != "" {
			line += "\n      -> " + c.Do
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// useWords are the uses as the doctor calls them.
var useWords = map[bpf.Use]string{bpf.UseSplice: "splice", bpf.UseCapture: "capture", bpf.UsePins: "pins", bpf.UseInbound: "inbound capture", bpf.UseGraft: "graft"}
