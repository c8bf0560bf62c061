// Package celtext turns expressions in CEL as they are written into the trees that
// configurations hold. It does not judge them: what a proxy refuses is for its tests.
package celtext

import (
	"testing"

	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/parser"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api/expression"
)

// Tree reads an expression.
func Tree(tb testing.TB, text string) proto.Message {
	tb.Helper()
	p, err := parser.NewParser(parser.Macros(parser.AllMacros...))
	if err != nil {
		tb.Fatal(err)
	}
	a, errs := p.Parse(common.NewTextSource(text))
	if len(errs.GetErrors()) > 0 {
		tb.Fatal(errs.ToDisplayString())
	}
	tree, err := ast.ExprToProto(a.Expr())
	if err != nil {
		tb.Fatal(err)
	}
	return tree
}

// Expression is one as the data plane gets it.
func Expression(tb testing.TB, text string) expression.Expression {
	tb.Helper()
	b, err := proto.Marshal(Tree(tb, text))
	if err != nil {
		tb.Fatal(err)
	}
	return expression.Expression{Tree: string(b)}
}
