package celtext

import (
	"testing"

	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api/expression"
	run "github.com/sluice-proxy/sluice/dataplane/cel"
	read "github.com/sluice-proxy/sluice/xds/cel"
)

var seeds = []string{
	"true", `source.address.startsWith("10.") && source.port in [1, 2u]`, "has(a.b) ? a.b : -1", `{"a": [1]}["a"][0] == 1 || !b`, `"a".matches("b+")`,
	"google.protobuf.Duration{seconds: 5}", `google.protobuf.Struct{fields: {"a": 1}}`, `re.captureN("a", "(a)")`, `string(1) + "a".replace("a", "b")`, "[1].all(x, x == 1)",
	"timestamp('2020-01-01T00:00:00Z').getHours()", "google.protobuf.Any{}", "dyn(type(1)) == int", `true || int("x") == 1`,
}

type nobody struct{}

func (nobody) Name(name string) (any, bool) { return name, name == "a" }

// Whatever one half takes the other runs, and neither falls over what it is given.
func FuzzWhatIsReadRuns(f *testing.F) {
	for _, s := range seeds {
		b, err := proto.Marshal(Tree(f, s))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, byte(0))
		f.Add(b, byte(7))
	}
	f.Fuzz(func(t *testing.T, b []byte, options byte) {
		tree := &expr.Expr{}
		if proto.Unmarshal(b, tree) != nil {
			return
		}
		e, err := read.Tree(tree, expression.Options{Conversion: options&1 != 0, Concat: options&2 != 0, Functions: options&4 != 0})
		if err != nil {
			return
		}
		p, err := run.New(e)
		if err != nil {
			t.Fatalf("%v is read and does not run: %v", tree, err)
		}
		p.Holds(nobody{})
	})
}

// Texts too: what is written nobody has judged before.
func FuzzTexts(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := read.Text("expression", s, expression.Options{})
		if err != nil {
			return
		}
		p, err := run.New(e)
		if err != nil {
			t.Fatalf("%s is read and does not run: %v", s, err)
		}
		p.Holds(nobody{})
	})
}
