package cel

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api/expression"
	"github.com/sluice-proxy/sluice/test/celtext"
)

func TestTextsAreRead(t *testing.T) {
	strings := expression.Options{Functions: true}
	for _, tt := range []struct {
		text    string
		options expression.Options
	}{
		{"true", expression.Options{}}, {"nobody.knows['it'] == 1 && -1 < 2", expression.Options{}}, {"has(a.b) ? !a.b : a.c in [1, 2u, 3.5, b'x', null]", expression.Options{}},
		{`startsWith("a", "b") || "a".startsWith("b")`, expression.Options{}}, {`re.extract("a", "b", "c")`, expression.Options{}}, {`request.time.getHours("Europe/Berlin")`, expression.Options{}},
		{`google.protobuf.Duration{seconds: 5}`, expression.Options{}}, {`{"a": {1: 2}}`, expression.Options{}}, {`"a" + "b"`, expression.Options{}}, {`matches("a", source.address)`, expression.Options{}},
		{`"a".replace("b", "c", 1)`, strings}, {`strings.quote("a")`, strings}, {"string(1)", expression.Options{Conversion: true}}, {"a && b && c && d || e", expression.Options{}},
	} {
		e, err := Text("expression", tt.text, tt.options)
		if err != nil || !e.Given() || e.Options != tt.options {
			t.Errorf("%s: %+v, %v", tt.text, e, err)
		}
	}
}

// The words are Envoy 1.40's.
func TestTextsAreRefused(t *testing.T) {
	const expecting = "expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
	none := func(name string) string {
		return "failed to create an expression: No overload found in reference resolve step for " + name
	}
	for text, want := range map[string]string{
		"":                     "Not able to parse filter expression: INVALID_ARGUMENT: ERROR: <input>:1:1: Syntax error: mismatched input '<EOF>' " + expecting,
		"1 +":                  "Not able to parse filter expression: INVALID_ARGUMENT: ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' " + expecting + "\n | 1 +\n | ...^",
		"this is none":         "Not able to parse filter expression: INVALID_ARGUMENT: ERROR: <input>:1:6: Syntax error: mismatched input 'is' expecting <EOF>\n | this is none\n | .....^",
		"99999999999999999999": "Not able to parse filter expression: INVALID_ARGUMENT: ERROR: <input>:1:1: invalid int literal\n | 99999999999999999999\n | ^",
		strings.Repeat("(", 40) + "1" + strings.Repeat(")", 40): "Not able to parse filter expression: CANCELLED: Expression recursion limit exceeded. limit: 32",
		"f(1)": none("f"), "a.b.f(1)": none("f"), `"a".startsWith()`: none("startsWith"), "size(1, 2)": none("size"), "string(1)": none("string"), `"a".replace("a", "b")`: none("replace"),
		`math.greatest(1, 2)`: none("greatest"), "cel.bind(x, 1, x)": none("bind"), "f(g(1))": none("f"),
		"[1].exists(x, x == 1)":            "failed to create an expression: Comprehension support is disabled",
		`"a".matches("(a")`:                "failed to create an expression: invalid regular expression: missing ): (a",
		`matches("a", "[")`:                "failed to create an expression: invalid regular expression: missing ]: [",
		"foo.Bar{}":                        "failed to create an expression: Invalid struct creation: missing type info for 'foo.Bar'",
		"google.protobuf.Int64Value{x: 1}": "failed to create an expression: Invalid message creation: field 'x' not found in 'google.protobuf.Int64Value'",
	} {
		if e, err := Text("filter expression", text, expression.Options{}); err == nil || err.Error() != want {
			t.Errorf("%q: %+v, %v\nwant %s", text, e, err, want)
		}
	}
}

func TestTreesAreRefused(t *testing.T) {
	call := func(name string, arguments ...*expr.Expr) *expr.Expr {
		return &expr.Expr{ExprKind: &expr.Expr_CallExpr{CallExpr: &expr.Expr_Call{Function: name, Args: arguments}}}
	}
	one := &expr.Expr{ExprKind: &expr.Expr_ConstExpr{ConstExpr: &expr.Constant{ConstantKind: &expr.Constant_BoolValue{BoolValue: true}}}}
	deep := one
	for range 2 * maxDepth {
		deep = call("!_", deep)
	}
	of := func(s *expr.Expr_CreateStruct) *expr.Expr {
		return &expr.Expr{ExprKind: &expr.Expr_StructExpr{StructExpr: s}}
	}
	for _, tt := range []struct {
		tree *expr.Expr
		want string
	}{
		{&expr.Expr{}, "Invalid empty expression"}, {call("size", &expr.Expr{}), "Invalid empty expression"},
		{&expr.Expr{ExprKind: &expr.Expr_ConstExpr{ConstExpr: &expr.Constant{}}}, "unspecified constant"},
		{&expr.Expr{ExprKind: &expr.Expr_IdentExpr{IdentExpr: &expr.Expr_Ident{}}}, "Invalid expression: identifier 'name' must not be empty"},
		{&expr.Expr{ExprKind: &expr.Expr_SelectExpr{SelectExpr: &expr.Expr_Select{Field: "a"}}}, "invalid expression: select must specify an operand"},
		{&expr.Expr{ExprKind: &expr.Expr_SelectExpr{SelectExpr: &expr.Expr_Select{Operand: one}}}, "invalid expression: select 'field' must not be empty"},
		{&expr.Expr{ExprKind: &expr.Expr_ComprehensionExpr{ComprehensionExpr: &expr.Expr_Comprehension{}}}, "Comprehension support is disabled"},
		{call("!_"), "unexpected number of args for builtin not operator"}, {call("_==_", one), "unexpected number of args for builtin equality operator"},
		{call("@in", one), "unexpected number of args for builtin 'in' operator"}, {call("_[_]", one), "unexpected number of args for builtin index operator"},
		{call("_&&_", one), "Invalid argument count for a binary function call."}, {call("_?_:_", one), "Invalid argument count for a ternary function call."},
		{call("_+_", one), "No overload found in reference resolve step for _+_"}, {call(""), "No overload found in reference resolve step for "},
		{of(&expr.Expr_CreateStruct{Entries: []*expr.Expr_CreateStruct_Entry{{}}}), "Map entry missing key"},
		{&expr.Expr{ExprKind: &expr.Expr_ListExpr{ListExpr: &expr.Expr_CreateList{Elements: []*expr.Expr{one}, OptionalIndices: []int32{5}}}}, "optional elements are not supported"},
		{&expr.Expr{ExprKind: &expr.Expr_ConstExpr{ConstExpr: &expr.Constant{ConstantKind: &expr.Constant_DurationValue{}}}}, "constants that are times are not supported"},
		{deep, "expression is nested too deeply"},
	} {
		if _, err := Tree(tt.tree, expression.Options{}); err == nil || err.Error() != "failed to create an expression: "+tt.want {
			t.Errorf("%v: %v", tt.tree, err)
		}
	}
}

func TestOptions(t *testing.T) {
	if got := Options(nil); got != (expression.Options{}) {
		t.Errorf("none: %+v", got)
	}
	all := Options(&corev3.CelExpressionConfig{EnableStringConversion: true, EnableStringConcat: true, EnableStringFunctions: true})
	if all != (expression.Options{Conversion: true, Concat: true, Functions: true}) {
		t.Errorf("all: %+v", all)
	}
}

// A text and its tree are the same expression.
func TestATreeIsItsText(t *testing.T) {
	const text = `source.address.startsWith("10.") && has(a.b)`
	byText, err := Text("expression", text, expression.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := proto.Marshal(celtext.Tree(t, text))
	if err != nil {
		t.Fatal(err)
	}
	byTree, err := unpack(b, expression.Options{})
	if err != nil || byTree != byText {
		t.Errorf("%+v, %v, want %+v", byTree, err, byText)
	}
}
