package main

import (
	"os"
	"os/exec"
	"regexp"
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
	all := make([]mutant, 23)
	if n := len(rotate(all, 5)); n != 5 {
		t.Errorf("%d of 5", n)
	}
}
