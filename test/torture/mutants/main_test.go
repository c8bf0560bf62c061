package main

import (
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The patches apply to the tree as it is, and docs/splice.md or docs/graft.md tells
// of each.
func TestPatchesFitTheTreeAndTheDocs(t *testing.T) {
	all, err := read(".")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no mutants")
	}
	var docs []byte
	for _, name := range []string{"splice.md", "graft.md"} {
		text, err := os.ReadFile("../../../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, text...)
	}
	for _, m := range all {
		cmd := exec.Command("patch", "-p1", "-s", "-f", "--dry-run", "-i", "test/torture/mutants/"+m.number+".patch")
		cmd.Dir = "../../.."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("mutant %s does not apply: %v\n%s", m.number, err, out)
		}
		name, _, _ := strings.Cut(strings.Fields(m.test)[1], "/")
		found := false
		number := regexp.MustCompile(`\| (\d\d, )*` + m.number + `(, \d\d)* \|`)
		for line := range strings.Lines(string(docs)) {
			found = found || number.MatchString(line) && strings.Contains(line, name)
		}
		if !found {
			t.Errorf("the docs have no row with mutant %s and %s", m.number, name)
		}
	}
}

func TestRotationComesToEvery(t *testing.T) {
	for _, c := range []struct{ all, some int }{{23, 5}, {45, 3}, {48, 3}, {2, 5}} {
		var all []mutant
		for i := range c.all {
			all = append(all, mutant{number: strconv.Itoa(i)})
		}
		seen := map[string]bool{}
		days := (c.all + c.some - 1) / c.some
		for day := range days + 1 { // the parts differ by one
			some := rotate(all, c.some, 300+day)
			if len(some) != min(c.all, c.some) {
				t.Errorf("%d of %d, want %d", len(some), c.all, c.some)
			}
			for _, m := range some {
				seen[m.number] = true
			}
		}
		if len(seen) != c.all {
			t.Errorf("%d days of %d show %d of %d", days+1, c.some, len(seen), c.all)
		}
	}
}
