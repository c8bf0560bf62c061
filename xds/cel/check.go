package cel

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/sluice-proxy/sluice/api/expression"
)

// maxDepth bounds a tree: Envoy's parser of protobuf does not follow one further.
const maxDepth = 100

// checker looks at a tree as Envoy's builder does, which first finds the functions
// and then plans the rest.
type checker struct{ options expression.Options }

// arity says how many arguments a function takes, alone and as a method of its
// first.
type arity struct{ alone, method []int }

func functions() map[string]arity {
	all := map[string]arity{
		"size": {[]int{1}, []int{0}}, "matches": {[]int{2}, []int{1}}, "startsWith": {[]int{2}, []int{1}}, "endsWith": {[]int{2}, []int{1}}, "contains": {[]int{2}, []int{1}},
		"re.extract": {alone: []int{3}}, "re.capture": {alone: []int{2}}, "re.captureN": {alone: []int{2}},
	}
	for _, name := range strings.Fields("timestamp duration int uint double bytes bool dyn type -_") {
		all[name] = arity{alone: []int{1}}
	}
	for _, name := range strings.Fields("_+_ _-_ _*_ _/_ _%_ _<_ _<=_ _>_ _>=_") {
		all[name] = arity{alone: []int{2}}
	}
	for _, name := range strings.Fields("FullYear Month DayOfYear DayOfMonth Date DayOfWeek Hours Minutes Seconds Milliseconds") {
		all["get"+name] = arity{method: []int{0, 1}}
	}
	return all
}

func stringFunctions() map[string]arity {
	return map[string]arity{
		"strings.quote": {alone: []int{1}}, "replace": {method: []int{2, 3}}, "upperAscii": {method: []int{0}}, "lowerAscii": {method: []int{0}},
		"split": {method: []int{1, 2}}, "join": {method: []int{0, 1}}, "trim": {method: []int{0}}, "substring": {method: []int{1, 2}},
		"charAt": {method: []int{1}}, "indexOf": {method: []int{1, 2}}, "lastIndexOf": {method: []int{1, 2}}, "reverse": {method: []int{0}}, "format": {method: []int{1}},
	}
}

// builtin are the operators that are no functions, and how Envoy tells a wrong
// number of arguments.
func builtin(name string) (arguments []int, wrong string) {
	switch name {
	case "_&&_", "_||_":
		return []int{2, 3, 4, 5, 6, 7, 8}, "Invalid argument count for a binary function call."
	case "_?_:_":
		return []int{3}, "Invalid argument count for a ternary function call."
	case "!_":
		return []int{1}, "unexpected number of args for builtin not operator"
	case "_==_", "_!=_":
		return []int{2}, "unexpected number of args for builtin equality operator"
	case "@in", "_in_", "in":
		return []int{2}, "unexpected number of args for builtin 'in' operator"
	case "_[_]":
		return []int{2}, "unexpected number of args for builtin index operator"
	case "@not_strictly_false", "__not_strictly_false__":
		return []int{1}, "unexpected number of args for builtin not_strictly_false operator"
	}
	return nil, ""
}

// known says whether there is such a function.
func (c checker) known(name string, arguments int, method bool) bool {
	takes := func(a arity) bool {
		if method {
			return slices.Contains(a.method, arguments)
		}
		return slices.Contains(a.alone, arguments)
	}
	if operators, _ := builtin(name); operators != nil {
		return true
	}
	return takes(functions()[name]) || c.options.Functions && takes(stringFunctions()[name]) || c.options.Conversion && name == "string" && arguments == 1 && !method
}

// resolve finds every function.
func (c checker) resolve(e *expr.Expr, depth int) error {
	if depth > maxDepth {
		return errTooDeep
	}
	if call := e.GetCallExpr(); call != nil {
		name := call.GetFunction()
		namespace, qualified := path(call.GetTarget())
		switch {
		case qualified && call.GetTarget() != nil && c.known(namespace+"."+name, len(call.GetArgs()), false):
		case !c.known(name, len(call.GetArgs()), call.GetTarget() != nil):
			return fmt.Errorf("No overload found in reference resolve step for %s", name)
		}
	}
	for _, part := range parts(e) {
		if part == nil {
			continue
		}
		if err := c.resolve(part, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// path is an identifier with its selections, as `a.b.c`.
func path(e *expr.Expr) (string, bool) {
	switch k := e.GetExprKind().(type) {
	case *expr.Expr_IdentExpr:
		return k.IdentExpr.GetName(), true
	case *expr.Expr_SelectExpr:
		if k.SelectExpr.GetTestOnly() {
			return "", false
		}
		of, ok := path(k.SelectExpr.GetOperand())
		return of + "." + k.SelectExpr.GetField(), ok
	}
	return "", false
}

// parts are the expressions directly in e; those that have to be there may be nil.
func parts(e *expr.Expr) (out []*expr.Expr) {
	switch k := e.GetExprKind().(type) {
	case *expr.Expr_SelectExpr:
		return []*expr.Expr{k.SelectExpr.GetOperand()}
	case *expr.Expr_CallExpr:
		if t := k.CallExpr.GetTarget(); t != nil {
			out = append(out, t)
		}
		return append(out, k.CallExpr.GetArgs()...)
	case *expr.Expr_ListExpr:
		return k.ListExpr.GetElements()
	case *expr.Expr_StructExpr:
		for _, entry := range k.StructExpr.GetEntries() {
			if entry.GetMapKey() != nil {
				out = append(out, entry.GetMapKey())
			}
			out = append(out, entry.GetValue())
		}
		return out
	case *expr.Expr_ComprehensionExpr:
		p := k.ComprehensionExpr
		return []*expr.Expr{p.GetIterRange(), p.GetAccuInit(), p.GetLoopCondition(), p.GetLoopStep(), p.GetResult()}
	}
	return nil
}

// check plans the rest.
func (c checker) check(e *expr.Expr) error {
	switch k := e.GetExprKind().(type) {
	case nil:
		return errors.New("Invalid empty expression")
	case *expr.Expr_ConstExpr:
		switch k.ConstExpr.GetConstantKind().(type) {
		case nil:
			return errors.New("unspecified constant")
		case *expr.Constant_DurationValue, *expr.Constant_TimestampValue:
			return errors.New("constants that are times are not supported") // deprecated
		}
	case *expr.Expr_IdentExpr:
		if k.IdentExpr.GetName() == "" {
			return errors.New("Invalid expression: identifier 'name' must not be empty")
		}
	case *expr.Expr_SelectExpr:
		switch {
		case k.SelectExpr.GetOperand() == nil:
			return errors.New("invalid expression: select must specify an operand")
		case k.SelectExpr.GetField() == "":
			return errors.New("invalid expression: select 'field' must not be empty")
		}
	case *expr.Expr_CallExpr:
		if err := c.call(k.CallExpr); err != nil {
			return err
		}
	case *expr.Expr_ListExpr:
		if len(k.ListExpr.GetOptionalIndices()) > 0 {
			return errors.New("optional elements are not supported")
		}
	case *expr.Expr_StructExpr:
		if err := structure(k.StructExpr); err != nil {
			return err
		}
	case *expr.Expr_ComprehensionExpr:
		return errors.New("Comprehension support is disabled")
	}
	for _, part := range parts(e) {
		if err := c.check(part); err != nil {
			return err
		}
	}
	return nil
}

func (c checker) call(k *expr.Expr_Call) error {
	name, given := k.GetFunction(), len(k.GetArgs())
	if takes, wrong := builtin(name); takes != nil {
		if k.GetTarget() != nil && name == "_[_]" {
			given++
		} else if k.GetTarget() != nil {
			given = -1
		}
		if !slices.Contains(takes, given) {
			return errors.New(wrong)
		}
		return nil
	}
	if name != "matches" || given == 0 {
		return nil
	}
	pattern, constant := k.GetArgs()[given-1].GetConstExpr().GetConstantKind().(*expr.Constant_StringValue)
	if !constant {
		return nil
	}
	if _, err := regexp.Compile(pattern.StringValue); err != nil {
		return fmt.Errorf("invalid regular expression: %w", re2(err))
	}
	return nil
}

// re2 tells a mistake in a regular expression in RE2's words: `missing ): (a`.
func re2(err error) error {
	var e *syntax.Error
	if !errors.As(err, &e) {
		return err
	}
	code := strings.NewReplacer("missing closing ", "missing ", "missing argument to repetition operator", "no argument for repetition operator").Replace(e.Code.String())
	return fmt.Errorf("%s: %s", code, e.Expr)
}

// structure judges a map or a message.
func structure(s *expr.Expr_CreateStruct) error {
	name := s.GetMessageName()
	var fields protoreflect.FieldDescriptors
	if name != "" {
		// What the other half knows are protobuf's own.
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		m, ok := d.(protoreflect.MessageDescriptor)
		if err != nil || !ok || !strings.HasPrefix(name, "google.protobuf.") {
			return fmt.Errorf("Invalid struct creation: missing type info for '%s'", name)
		}
		fields = m.Fields()
	}
	for _, entry := range s.GetEntries() {
		switch {
		case entry.GetOptionalEntry():
			return errors.New("optional entries are not supported")
		case name == "" && entry.GetMapKey() == nil:
			return errors.New("Map entry missing key")
		case name != "" && entry.GetMapKey() != nil:
			return errors.New("Struct field missing name")
		case name != "" && fields.ByName(protoreflect.Name(entry.GetFieldKey())) == nil:
			return fmt.Errorf("Invalid message creation: field '%s' not found in '%s'", entry.GetFieldKey(), name)
		}
	}
	return nil
}
