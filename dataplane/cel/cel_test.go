package cel

import (
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api/expression"
	"github.com/sluice-proxy/sluice/test/celtext"
)

func read(t testing.TB, text string, o expression.Options) *Program {
	t.Helper()
	e := celtext.Expression(t, text)
	e.Options = o
	program, err := New(e)
	if err != nil {
		t.Fatal(err)
	}
	return program
}

type fields map[string]any

func (f fields) Field(name string) (any, bool) { v, ok := f[name]; return v, ok }
func (f fields) Name(name string) (any, bool)  { return f.Field(name) }

// note has the fields a, which is set, and b.
type note struct{}

func (note) Field(name string) (any, bool) {
	switch name {
	case "a":
		return "set", true
	case "b":
		return "", true
	}
	return nil, false
}
func (note) Has(name string) bool { return name == "a" }
func (note) JSON() any            { return map[string]any{"a": "set"} }
func (note) Text() string         { return `a: "set" ` }

func known() fields {
	return fields{
		"o": fields{"s": "text", "i": int64(-5), "u": uint64(5), "f": 2.5, "b": true, "t": time.Unix(1577836800, 0), "d": 90 * time.Minute, "y": []byte("bytes"), "deep": fields{"x": "y"}},
		"m": note{}, "j": map[string]any{"n": 1.0, "l": []any{"x", nil, true}, "null": nil},
	}
}

func TestHolds(t *testing.T) {
	concat, conversion := expression.Options{Concat: true}, expression.Options{Conversion: true}
	for _, tt := range []struct {
		text    string
		options expression.Options
		want    bool
	}{
		{`o.s == "text" && o.i == -5 && o.u == 5u && o.f == 2.5 && o.b`, expression.Options{}, true},
		{`o.t == timestamp("2020-01-01T00:00:00Z") && o.d == duration("5400s") && o.y == b"bytes"`, expression.Options{}, true},
		{`o["deep"].x == "y" && "deep" in o && !("x" in o) && size(o) == 0`, expression.Options{}, true},
		{"o.absent == 1", expression.Options{}, false},
		{"o.absent != 1", expression.Options{}, false},
		{"o[1] == 1", expression.Options{}, false},
		{"o.s.x == 1", expression.Options{}, false},
		{"!has(o.absent) && has(o.s)", expression.Options{}, true},
		{"has(o.s.x)", expression.Options{}, false},
		{"!has(o.s.x)", expression.Options{}, false},
		{"has(nobody.x) || true", expression.Options{}, true},
		{"!has(nobody.x)", expression.Options{}, false},
		{"o == o && o == o.deep", expression.Options{}, true},
		{`has(m.a) && !has(m.b) && m.b == "" && m == m`, expression.Options{}, true},
		{"has(m.c) || !has(m.c)", expression.Options{}, false},
		{`j.n == 1 && j.l[2] && j["null"] == null && !has(j.nope)`, expression.Options{}, true},
		{"o.b ? o.b : nope", expression.Options{}, true},
		{"1", expression.Options{}, false},
		{`o.b || int("x") == 1`, expression.Options{}, true}, // an error that nobody comes to
		{`o.s.matches("^t.*t$") && !o.s.matches("^x")`, expression.Options{}, true},
		{`"a" + "b" == "ab"`, expression.Options{}, false},
		{`"a" + "b" == "ab" && b"a" + b"b" == b"ab"`, concat, true},
		{"[1] + [2] == [1, 2]", concat, false},
		{`o.s + 1 == "text1"`, concat, false},
		{`string(o.i) == "-5"`, conversion, true},
		{"1 + 1 == 2 && 1u + 1u == 2u && 1.0 + 0.5 == 1.5 && o.t + o.d > o.t", expression.Options{}, true},
		{`"abc".upperAscii() == "ABC"`, expression.Options{Functions: true}, true},
		{`re.extract("user@host", "(.*)@(.*)", "\\2!\\1\\\\") == "host!user\\"`, expression.Options{}, true},
		{`re.extract("a", "(b)", "\\1") == ""`, expression.Options{}, false},
		{`re.extract("a", "a", "\\1") == ""`, expression.Options{}, false},
		{`re.extract("a", "a", "\\") == ""`, expression.Options{}, false},
		{`re.extract("a", "(", "") == ""`, expression.Options{}, false},
		{`re.capture("ab", "a(.)") == "b" && re.captureN("ab", "(?P<x>a)(.)") == {"x": "a", "2": "b"}`, expression.Options{}, true},
		{`re.capture("ab", "a") == ""`, expression.Options{}, false},
		{`re.capture("xab", "a(.)") == "b"`, expression.Options{}, false},
	} {
		if got := read(t, tt.text, tt.options).Holds(known()); got != tt.want {
			t.Errorf("%s (%+v): %v", tt.text, tt.options, got)
		}
	}
}

func TestWhatIsNoTreeIsRefused(t *testing.T) {
	for _, tree := range []string{"\xff", ""} {
		if _, err := New(expression.Expression{Tree: tree}); err == nil {
			t.Errorf("%q is taken", tree)
		}
	}
}

func BenchmarkHolds(b *testing.B) {
	p, n := read(b, `o.s.startsWith("te") && o.u in [4u, 5u]`, expression.Options{}), known()
	b.ReportAllocs()
	for b.Loop() {
		if !p.Holds(n) {
			b.Fatal("does not hold")
		}
	}
}

func BenchmarkNew(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		read(b, `o.s.startsWith("te") && o.u in [4u, 5u]`, expression.Options{})
	}
}
