package match

import (
	"slices"

	"github.com/sluice-proxy/sluice/api"
)

// Value is an api.ValueMatch made ready. there says whether there is a value at
// all; nil that is there is JSON's null.
type Value func(v any, there bool) bool

// NewValue makes a value matcher ready.
func NewValue(m *api.ValueMatch) Value {
	switch {
	case m.Null:
		return func(v any, there bool) bool { return there && v == nil }
	case m.Number != nil:
		n := *m.Number
		return func(v any, _ bool) bool {
			x, ok := v.(float64)
			if n.Exact {
				return ok && x == n.Start
			}
			return ok && n.Start <= x && x < n.End
		}
	case m.String != nil:
		holds := NewString(m.String)
		return func(v any, _ bool) bool {
			s, ok := v.(string)
			return ok && holds(s)
		}
	case m.Bool != nil:
		want := *m.Bool
		return func(v any, _ bool) bool {
			b, ok := v.(bool)
			return ok && b == want
		}
	case m.Present != nil:
		want := *m.Present
		return func(_ any, there bool) bool { return there && want }
	case m.OneOf != nil:
		holds := NewValue(m.OneOf)
		return func(v any, _ bool) bool {
			l, ok := v.([]any)
			return ok && slices.ContainsFunc(l, func(e any) bool { return holds(e, true) })
		}
	}
	alternatives := make([]Value, len(m.Or))
	for i := range m.Or {
		alternatives[i] = NewValue(&m.Or[i])
	}
	return func(v any, there bool) bool {
		return slices.ContainsFunc(alternatives, func(holds Value) bool { return holds(v, there) })
	}
}
