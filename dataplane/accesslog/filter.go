package accesslog

import (
	"math/rand/v2"
	"slices"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/dataplane/match"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// filter is an api.LogFilter made ready. What the filters mean is said in
// accesslog.proto.
type filter func(stream.Moment) bool

func always(stream.Moment) bool { return true }

// newFilter fails for an expression that cannot be run. r may be nil.
func newFilter(f *api.LogFilter, r *runtime.Runtime) (filter, error) {
	switch {
	case f == nil:
		return always, nil
	case f.Nothing:
		return func(stream.Moment) bool { return false }, nil
	case f.And != nil:
		all, err := newFilters(f.And, r)
		return func(m stream.Moment) bool {
			return !slices.ContainsFunc(all, func(p filter) bool { return !p(m) })
		}, err
	case f.Or != nil:
		all, err := newFilters(f.Or, r)
		return func(m stream.Moment) bool { return slices.ContainsFunc(all, func(p filter) bool { return p(m) }) }, err
	case f.Duration != nil:
		return func(m stream.Moment) bool {
			return compare(f.Duration, r, uint64(m.Info.Duration().Milliseconds()))
		}, nil
	case f.StatusCode != nil:
		return func(stream.Moment) bool { return compare(f.StatusCode, r, 0) }, nil
	case f.Flags != nil:
		return func(m stream.Moment) bool { return flagged(*f.Flags, m.Info) }, nil
	case f.Types != nil:
		return func(m stream.Moment) bool { return typed(f.Types, m.Type) }, nil
	case f.Sample != nil:
		return func(stream.Moment) bool {
			share := r.Number(f.Sample.Key, uint64(f.Sample.Numerator))
			return uint64(rand.Uint32N(max(f.Sample.Denominator, 1))) < share
		}, nil
	case f.Expression.Given():
		ready, err := stream.NewCondition(f.Expression)
		return func(m stream.Moment) bool { return ready.Holds(m.Info) }, err
	case f.Metadata != nil:
		return newMetadata(f.Metadata), nil
	}
	return always, nil
}

func newFilters(in []api.LogFilter, r *runtime.Runtime) ([]filter, error) {
	out := make([]filter, len(in))
	for i := range in {
		var err error
		if out[i], err = newFilter(&in[i], r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func flagged(any []string, i *stream.Info) bool {
	if len(any) == 0 {
		return i.Flags != 0
	}
	return slices.ContainsFunc(i.Flags.Short(), func(s string) bool { return slices.Contains(any, s) })
}

func typed(t *api.LogTypes, kind string) bool {
	if kind == "" {
		kind = "NotSet"
	}
	return slices.Contains(t.Types, kind) != t.Exclude
}

func compare(c *api.Comparison, r *runtime.Runtime, v uint64) bool {
	to := c.Value
	if c.Key != "" {
		to = r.Number(c.Key, to)
	}
	switch c.Op {
	case "GE":
		return v >= to
	case "LE":
		return v <= to
	case "NE":
		return v != to
	}
	return v == to
}

func newMetadata(c *api.MetadataCondition) filter {
	holds := func(any, bool) bool { return false }
	if c.Value != nil {
		holds = match.NewValue(c.Value)
	}
	return func(m stream.Moment) bool {
		v, there := m.Info.Metadata().At(c.Filter, c.Path)
		if !there {
			return c.Missing
		}
		return holds(v, there)
	}
}
