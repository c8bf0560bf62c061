package accesslog

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/expression"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// The values of %ACCESS_LOG_TYPE% for TCP. That of a listener's log is empty:
// NotSet.
const (
	Start     = "TcpConnectionStart"
	Connected = "TcpUpstreamConnected"
	Periodic  = "TcpPeriodic"
	End       = "TcpConnectionEnd"
)

// Log is one access log in force. Safe for concurrent use.
type Log struct {
	to     logger
	filter *api.LogFilter
	// conditions are the expressions of the filter, made ready.
	conditions conditions
}

type conditions map[expression.Expression]*stream.Condition

// add makes the expressions of a filter ready.
func (c conditions) add(f *api.LogFilter) error {
	if f == nil {
		return nil
	}
	if f.Expression.Given() {
		ready, err := stream.NewCondition(f.Expression)
		if err != nil {
			return err
		}
		c[f.Expression] = ready
	}
	for _, in := range [][]api.LogFilter{f.And, f.Or} {
		for i := range in {
			if err := c.add(&in[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// logger is where a log goes; writing never waits.
type logger interface {
	Write(stream.Moment)
	Close()
}

// lines is a log in a file.
type lines struct {
	file   *File
	format *stream.Formatter
}

func (l *lines) Write(m stream.Moment) { l.file.Write(l.format.Append(nil, m)) }
func (l *lines) Close()                { l.file.Close() }

// Logs are the access logs of one place.
type Logs []*Log

// Logs opens the logs of a configuration, or none of them.
func (fs *Files) Logs(configs []*api.AccessLog) (Logs, error) {
	var out Logs
	for _, c := range configs {
		ready := conditions{}
		if err := ready.add(c.Filter); err != nil {
			out.Close()
			return nil, err
		}
		if c.Service != nil {
			out = append(out, &Log{to: fs.services.Open(c.Service), filter: c.Filter, conditions: ready})
			continue
		}
		f, err := fs.Open(c.Path)
		if err != nil {
			out.Close()
			return nil, err
		}
		l := &lines{file: f}
		if c.JSON != nil {
			l.format = stream.NewJSON(*c.JSON, c.OmitEmpty)
		} else {
			l.format = stream.NewText(c.Text, c.OmitEmpty)
		}
		out = append(out, &Log{to: l, filter: c.Filter, conditions: ready})
	}
	return out, nil
}

// Close gives the files and streams back.
func (ls Logs) Close() {
	for _, l := range ls {
		l.to.Close()
	}
}

// Write writes about a connection to every log whose filter lets it pass.
func (ls Logs) Write(info *stream.Info, kind string) {
	if len(ls) == 0 {
		return
	}
	m := stream.Moment{Info: info, Type: kind, Now: time.Now()}
	for _, l := range ls {
		if l.filter == nil || l.conditions.pass(l.filter, m) {
			l.to.Write(m)
		}
	}
}

// pass runs a filter. What the filters mean is said in accesslog.proto.
func (c conditions) pass(f *api.LogFilter, m stream.Moment) bool {
	i := m.Info
	switch {
	case f.Nothing:
		return false
	case f.And != nil:
		return !slices.ContainsFunc(f.And, func(g api.LogFilter) bool { return !c.pass(&g, m) })
	case f.Or != nil:
		return slices.ContainsFunc(f.Or, func(g api.LogFilter) bool { return c.pass(&g, m) })
	case f.Duration != nil:
		return compare(f.Duration, uint64(i.Duration().Milliseconds()))
	case f.StatusCode != nil:
		return compare(f.StatusCode, 0)
	case f.Flags != nil:
		if len(*f.Flags) == 0 {
			return i.Flags != 0
		}
		return slices.ContainsFunc(i.Flags.Short(), func(s string) bool { return slices.Contains(*f.Flags, s) })
	case f.Types != nil:
		kind := m.Type
		if kind == "" {
			kind = "NotSet"
		}
		return slices.Contains(f.Types.Types, kind) != f.Types.Exclude
	case f.Sample != nil:
		return rand.Uint32N(max(f.Sample.Denominator, 1)) < f.Sample.Numerator
	case f.Expression.Given():
		return c[f.Expression].Holds(i)
	case f.Metadata != nil:
		return matches(f.Metadata, i.Metadata())
	}
	return true
}

func compare(c *api.Comparison, v uint64) bool {
	switch c.Op {
	case "GE":
		return v >= c.Value
	case "LE":
		return v <= c.Value
	case "NE":
		return v != c.Value
	}
	return v == c.Value
}

func matches(c *api.MetadataCondition, md stream.Metadata) bool {
	var v any = map[string]any(md[c.Filter])
	for _, key := range c.Path {
		fields, _ := v.(map[string]any)
		var ok bool
		if v, ok = fields[key]; !ok {
			return c.Missing
		}
	}
	var s string
	switch v := v.(type) {
	case string:
		s = v
	case bool:
		s = strconv.FormatBool(v)
	case float64:
		s = strconv.FormatFloat(v, 'g', -1, 64)
	}
	return (s == c.Equals) != c.Invert
}
