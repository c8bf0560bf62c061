package rbac

import (
	"slices"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/match"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// value is an api.ValueMatch made ready. there says whether there is a value at
// all; nil that is there is JSON's null.
type value func(v any, there bool) bool

// NewMetadata makes a metadata matcher ready, for other filters too.
func NewMetadata(m *api.MetadataMatch) func(*stream.Info) bool {
	filter, path, invert, holds := m.Filter, m.Path, m.Invert, newValue(&m.Value)
	return func(i *stream.Info) bool {
		v, there := lookup(i.Metadata(), filter, path)
		return holds(v, there) != invert
	}
}

// lookup goes down into dynamic metadata.
func lookup(m stream.Metadata, filter string, path []string) (any, bool) {
	at, there := m[filter]
	if !there || len(path) == 0 {
		return nil, false
	}
	for _, key := range path[:len(path)-1] {
		next, ok := at[key].(map[string]any)
		if !ok {
			return nil, false
		}
		at = next
	}
	v, there := at[path[len(path)-1]]
	return v, there
}

func newValue(m *api.ValueMatch) value {
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
		holds := match.NewString(m.String)
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
		holds := newValue(m.OneOf)
		return func(v any, _ bool) bool {
			l, ok := v.([]any)
			return ok && slices.ContainsFunc(l, func(e any) bool { return holds(e, true) })
		}
	}
	alternatives := make([]value, len(m.Or))
	for i := range m.Or {
		alternatives[i] = newValue(&m.Or[i])
	}
	return func(v any, there bool) bool {
		return slices.ContainsFunc(alternatives, func(holds value) bool { return holds(v, there) })
	}
}
