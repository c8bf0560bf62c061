// Package expression is what both halves know of an expression in CEL: it was read
// and found good by xds/cel, and dataplane/cel runs it.
package expression

// Expression is an expression as plain content. The zero value is none.
type Expression struct {
	// Tree is a serialized google.api.expr.v1alpha1.Expr.
	Tree string
	// Options are what the expression may do besides.
	Options
}

// Options is envoy.config.core.v3.CelExpressionConfig; all are off in Envoy unless
// they are asked for.
type Options struct {
	// Conversion has string(x), Concat the + of strings and of bytes, Functions
	// those of the extension library for strings.
	Conversion, Concat, Functions bool
}

// Given says that there is an expression.
func (e Expression) Given() bool { return e.Tree != "" }
