// Package parity gives one scenario to real Envoy and to Sluice, and compares
// what both ends see and which counters move. README.md lists the scenarios,
// and where Sluice differs on purpose.
package parity

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

var (
	update    = flag.Bool("update", false, "write Envoy's records to testdata/envoy")
	envoyOnly = flag.Bool("envoy-only", false, "do not run Sluice")
	plant     = flag.Bool("plant", false, "show that every scenario notices a wrong proxy (slow)")
	scratch   string
)

func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "12") // a scenario waits most of its time
	flag.Parse()
	var err error
	if scratch, err = os.MkdirTemp("", "sluice-parity-"); err != nil {
		panic(err)
	}
	// goleak exits by itself: the folder is removed from its cleanup.
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(scratch)
		os.Exit(code)
	}))
}

// scenario is one story. It is told once per proxy.
type scenario struct {
	name string
	tell func(r *run)
}

func all() []scenario {
	return slices.Concat(transfers, ends, failures, limits, choices, chains,
		criteria, trees, chainRejections, logs, proxying, inspecting, unwrapping,
		refusals, roles, expressions, states, authorizing, rateLimiting, tunnelling, tunnellingHTTP2, tunnellingHTTP2Securely, drains, binding, bindingRejections, resolving, forwarding, forwardingSecurely, forwardRejections, reaching, reachingDestinations, gathering, checking, ejecting,
		hashes, subsets, places, balancingRejections, https, secured, formats, figures, breakers, hostFigures, gatheredLimits, hashPolicies, sinks, overloads, loadReports, gatheredTCP, discoveries, operations)
}

// needEnvoy skips without Envoy, but not where CI promised it.
func needEnvoy(t *testing.T) {
	t.Helper()
	if _, err := envoy.binary(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("needs Envoy: %v", err)
	}
}

func tellOnce(t *testing.T, s scenario, k kind, plant bool) (record, info string) {
	t.Helper()
	r := &run{TB: t, kind: k, plant: plant}
	if text, _ := recordOf(t, s.name, k); !*update && !*own && text != "" {
		r.expect = strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	}
	s.tell(r)
	for i, want := range r.expect {
		if i < len(r.record) && isLate(want, r.record[i]) {
			r.record[i] = want
		}
	}
	return lines(r.record), lines(r.info)
}

// isLate is whether got is want but for an end that came within 0.75 s and not at
// once: a clock that runs from the dial, through whatever the story did, cannot tell
// that from a busy machine. Whoever ends after a second is seen, and so is whoever
// ends at once where it should take half a second.
func isLate(want, got string) bool {
	return want != got && want == strings.Replace(got, "after 0.5 s", "at once", 1)
}

func lines(l []string) string {
	if len(l) == 0 {
		return ""
	}
	return strings.Join(l, "\n") + "\n"
}

// TestParity compares Envoy with its own records (so a change of the oracle or a
// scenario that depends on chance is seen as such), and Sluice with Envoy, or
// with testdata/sluice where it differs on purpose.
func TestParity(t *testing.T) {
	needEnvoy(t)
	for _, s := range all() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			want := ""
			t.Run("envoy", func(t *testing.T) {
				want, _ = recordOf(t, s.name, envoy)
				got, info := tell(t, s, envoy, false, want)
				if *update {
					writeRecord(t, filepath.Join("testdata", "envoy", s.name+".txt"), got, info)
					want = got
				}
				if got != want {
					t.Errorf("Envoy is not as recorded:\n%s", diff(want, got))
				}
			})
			if *envoyOnly || want == "" {
				return
			}
			t.Run("sluice", func(t *testing.T) {
				want, whose := recordOf(t, s.name, sluice)
				got, info := tell(t, s, sluice, false, want)
				if info != "" {
					t.Logf("not compared:\n%s", info)
				}
				if got != want {
					t.Errorf("Sluice differs from %s (-record +Sluice):\n%s", whose, diff(want, got))
				}
			})
		})
	}
}

func TestOnlyAShortDelayIsForgiven(t *testing.T) {
	for _, tt := range []struct {
		want, got string
		late      bool
	}{
		{`client: got "x", then FIN at once`, `client: got "x", then FIN after 0.5 s`, true},
		{`client: got "x", then FIN at once`, `client: got "x", then FIN after 1.0 s`, false},
		{`client: got "x", then FIN after 0.5 s`, `client: got "x", then FIN at once`, false},
		{`client: got "x", then FIN at once`, `client: got "x", then RST after 0.5 s`, false},
		{`client: got "x", then FIN at once`, `client: got "", then FIN after 0.5 s`, false},
	} {
		if got := isLate(tt.want, tt.got); got != tt.late {
			t.Errorf("%q for %q is forgiven: %t", tt.got, tt.want, got)
		}
	}
}

// TestEveryScenarioCanFail puts an impostor, who speaks out of turn and resets,
// in the place of the proxy: no record may come out as it should.
func TestEveryScenarioCanFail(t *testing.T) {
	if !*plant {
		t.Skip("run with -plant")
	}
	needEnvoy(t)
	for _, s := range all() {
		t.Run(s.name, func(t *testing.T) {
			got, _ := tell(t, s, envoy, true, "")
			if got == readRecord(t, filepath.Join("testdata", "envoy", s.name+".txt")) {
				t.Errorf("the impostor was not noticed:\n%s", got)
			}
		})
	}
}

// TestRecordsBelongToScenarios finds records that no scenario writes any more,
// and scenarios that the README does not list.
func TestRecordsBelongToScenarios(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, s := range slices.Concat(all(), streams()) {
		if known[s.name] {
			t.Errorf("two scenarios are called %s", s.name)
		}
		known[s.name] = true
		if !strings.Contains(string(readme), "`"+s.name+"`") {
			t.Errorf("README.md does not list %s", s.name)
		}
	}
	files, err := filepath.Glob("testdata/*/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".txt"); !known[name] {
			t.Errorf("%s belongs to no scenario", f)
		}
	}
	for name := range known {
		if !exists(filepath.Join("testdata", "envoy", name+".txt")) {
			t.Errorf("%s has no record of Envoy", name)
		}
	}
}

// writeRecord puts what is not compared in comments.
func writeRecord(t *testing.T, file, record, info string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	var comments strings.Builder
	for l := range strings.Lines(info) {
		comments.WriteString("# " + l)
	}
	if err := os.WriteFile(file, []byte(comments.String()+record), 0o644); err != nil {
		t.Fatal(err)
	}
}

// recordOf is what k should come to, and whose record that is: "" if there is none.
func recordOf(t *testing.T, name string, k kind) (text, whose string) {
	t.Helper()
	if file := filepath.Join("testdata", "sluice", name+".txt"); k.name == "sluice" && exists(file) {
		return readRecord(t, file), "its own record"
	}
	if file := filepath.Join("testdata", "envoy", name+".txt"); exists(file) {
		return readRecord(t, file), "Envoy"
	}
	return "", ""
}

func readRecord(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("read record (make it by -update): %v", err)
	}
	var record strings.Builder
	for l := range strings.Lines(string(text)) {
		if !strings.HasPrefix(l, "#") {
			record.WriteString(l)
		}
	}
	return record.String()
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func diff(want, got string) string {
	return cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n"))
}
