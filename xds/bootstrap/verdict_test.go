package bootstrap

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "write what Load says into testdata/verdicts.txtar; read the difference")

// Every file of the archive begins with two comments: what Load says (`ok`, or
// the error after the file's name), and what Envoy 1.40's --mode validate says
// (`accepts` or `refuses`), with the reason where the two differ. With
// SLUICE_ENVOY=/path/to/envoy the second is checked too.
func TestVerdicts(t *testing.T) {
	const file = "testdata/verdicts.txtar"
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	envoy := os.Getenv("SLUICE_ENVOY")
	for i, f := range ar.Files {
		t.Run(f.Name, func(t *testing.T) {
			want, theirs, body := header(t, f.Data)
			c, err := load(Options{Path: f.Name}, func(string) ([]byte, error) { return body, nil })
			got := "ok"
			if err != nil {
				got = strings.TrimPrefix(err.Error(), f.Name+": ")
				if got == err.Error() {
					t.Errorf("the file's name is missing: %v", err)
				}
			}
			if (c == nil) != (err != nil) {
				t.Errorf("config %v with error %v", c, err)
			}
			if strings.ContainsAny(got, "\n\u00a0") {
				t.Errorf("not one steady line: %q", got)
			}
			if *update {
				ar.Files[i].Data = fmt.Appendf(nil, "# sluice: %s\n# envoy: %s\n%s", got, theirs, body)
			} else if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			verdict, _, reasoned := strings.Cut(theirs, ", ")
			if (got == "ok") != (verdict == "accepts") && !reasoned && !strings.Contains(got, "not supported yet") {
				t.Errorf("differs from Envoy (%s) without a reason", theirs)
			}
			if envoy != "" {
				if v := ask(t, envoy, body); v != verdict {
					t.Errorf("envoy %s, not %s", v, verdict)
				}
			}
		})
	}
	if *update {
		if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func header(t *testing.T, b []byte) (ours, theirs string, body []byte) {
	t.Helper()
	l := bytes.SplitN(b, []byte("\n"), 3)
	if len(l) != 3 {
		t.Fatal("no header")
	}
	ours, ok := strings.CutPrefix(string(l[0]), "# sluice: ")
	theirs, ok2 := strings.CutPrefix(string(l[1]), "# envoy: ")
	if !ok || !ok2 {
		t.Fatalf("bad header: %s, %s", l[0], l[1])
	}
	return ours, theirs, l[2]
}

func ask(t *testing.T, envoy string, body []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "b.yaml")
	if err := os.WriteFile(p, body, 0o600); err != nil {
		t.Fatal(err)
	}
	err := exec.Command(envoy, "--mode", "validate", "-l", "off", "-c", p).Run()
	if _, exit := err.(*exec.ExitError); err != nil && !exit {
		t.Fatal(err)
	}
	if err != nil {
		return "refuses"
	}
	return "accepts"
}
