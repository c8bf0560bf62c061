// Package cel runs expressions in CEL over what is known of a connection. It is the
// only package that knows how cel-go evaluates; what the names in an expression
// stand for is up to who runs it.
//
// What Envoy has of the language: everything but comprehensions (all, exists, map,
// ...), and the + of lists; strings can be made, joined and taken apart only where
// the configuration says so. Nothing is type-checked before it runs, and a mistake
// of types is an error as what is absent is. Nothing repeats, so that an expression
// costs no more than its own length times what it looks at.
package cel

import (
	"fmt"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/env"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/ext"
	"github.com/google/cel-go/interpreter"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api/expression"
)

// Program is an expression made ready. It is safe for concurrent use.
type Program struct{ program cel.Program }

// New makes an expression ready.
func New(e expression.Expression) (*Program, error) {
	tree := &expr.Expr{}
	if err := proto.Unmarshal([]byte(e.Tree), tree); err != nil {
		return nil, fmt.Errorf("read expression: %w", err)
	}
	with := []cel.EnvOption{
		cel.StdLib(cel.StdLibSubset(&env.LibrarySubset{ExcludeFunctions: []*env.Function{env.NewFunction(operators.Add)}})),
		addition(e.Concat), regularExpressions(), cel.EnableErrorOnBadPresenceTest(true),
	}
	if e.Functions {
		with = append(with, ext.Strings())
	}
	environment, err := cel.NewCustomEnv(with...)
	if err != nil {
		return nil, fmt.Errorf("prepare CEL: %w", err)
	}
	parsed := cel.ParsedExprToAst(&expr.ParsedExpr{Expr: tree})
	p, err := environment.Program(parsed, cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		// A constant that is an error, as int("x") is, is one of those who evaluate it,
		// if anybody does.
		p, err = environment.Program(parsed, cel.OptimizeRegex(interpreter.MatchesRegexOptimization))
	}
	if err != nil {
		return nil, fmt.Errorf("plan expression: %w", err)
	}
	return &Program{p}, nil
}

// Names finds what an expression's names stand for.
type Names interface {
	// Name yields a value as Fields.Field does.
	Name(name string) (any, bool)
}

// activation is Names as cel-go wants them.
type activation struct{ Names }

func (a activation) ResolveName(name string) (any, bool) {
	v, ok := a.Name(name)
	if !ok {
		return nil, false
	}
	return value(v), true
}

func (activation) Parent() cel.Activation { return nil }

// run yields nil for an error.
func (p *Program) run(n Names) ref.Val {
	v, _, err := p.program.Eval(activation{n})
	if err != nil || types.IsUnknownOrError(v) {
		return nil
	}
	return v
}

// Holds says whether the expression is true. An error is not, and neither is a
// value that is no bool.
func (p *Program) Holds(n Names) bool { return p.run(n) == types.True }

// addition is the + of numbers and times, and of strings and bytes if concat.
func addition(concat bool) cel.EnvOption {
	add := func(l, r ref.Val) ref.Val {
		switch l.(type) {
		case types.String, types.Bytes:
			if !concat {
				return types.MaybeNoSuchOverloadErr(r)
			}
		case types.Int, types.Uint, types.Double, types.Timestamp, types.Duration:
		default:
			return types.MaybeNoSuchOverloadErr(r)
		}
		return l.(traits.Adder).Add(r)
	}
	return cel.Function(operators.Add,
		cel.Overload("add", []*cel.Type{cel.DynType, cel.DynType}, cel.DynType),
		cel.SingletonBinaryBinding(add))
}
