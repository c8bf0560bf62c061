// Package cel reads expressions in CEL, as text and as trees, and finds what Envoy
// would refuse in them, in its words. dataplane/cel runs them.
package cel

import (
	"errors"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/parser"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api/expression"
)

// maxNesting bounds what stands in parentheses in a text, as in Envoy.
const maxNesting = 32

// Options are those of a configuration, which may be nil.
func Options(c *corev3.CelExpressionConfig) expression.Options {
	return expression.Options{Conversion: c.GetEnableStringConversion(), Concat: c.GetEnableStringConcat(), Functions: c.GetEnableStringFunctions()}
}

// Text reads an expression as it is written. what says what Envoy calls it: the
// error of a text that is no expression begins with it.
func Text(what, s string, o expression.Options) (expression.Expression, error) {
	p, err := parser.NewParser(parser.Macros(parser.AllMacros...), parser.MaxRecursionDepth(maxNesting))
	if err != nil {
		return expression.Expression{}, fmt.Errorf("prepare parser: %w", err)
	}
	parsed, errs := p.Parse(common.NewTextSource(s))
	if all := errs.GetErrors(); len(all) > 0 {
		if strings.Contains(all[0].Message, "recursion limit exceeded") {
			return expression.Expression{}, fmt.Errorf("Not able to parse %s: CANCELLED: Expression recursion limit exceeded. limit: %d", what, maxNesting)
		}
		// Envoy's first column is 1 also where there is none.
		text := strings.Replace(errs.ToDisplayString(), "<input>:1:0:", "<input>:1:1:", 1)
		return expression.Expression{}, fmt.Errorf("Not able to parse %s: INVALID_ARGUMENT: %s", what, text)
	}
	tree, err := ast.ExprToProto(parsed.Expr())
	if err != nil {
		return expression.Expression{}, fmt.Errorf("Not able to parse %s: %w", what, err)
	}
	// The same message, by another name.
	b, err := proto.Marshal(tree)
	if err != nil {
		return expression.Expression{}, fmt.Errorf("write expression: %w", err)
	}
	return unpack(b, o)
}

func unpack(b []byte, o expression.Options) (expression.Expression, error) {
	tree := &expr.Expr{}
	if err := proto.Unmarshal(b, tree); err != nil {
		return expression.Expression{}, fmt.Errorf("read expression: %w", err)
	}
	return Tree(tree, o)
}

// Tree takes an expression that others have read.
func Tree(e *expr.Expr, o expression.Options) (expression.Expression, error) {
	c := checker{options: o}
	if err := c.resolve(e, 0); err != nil {
		return expression.Expression{}, fmt.Errorf("failed to create an expression: %w", err)
	}
	if err := c.check(e); err != nil {
		return expression.Expression{}, fmt.Errorf("failed to create an expression: %w", err)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
	if err != nil {
		return expression.Expression{}, fmt.Errorf("write expression: %w", err)
	}
	return expression.Expression{Tree: string(b), Options: o}, nil
}

var errTooDeep = errors.New("expression is nested too deeply")
