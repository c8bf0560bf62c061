package resource

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	celfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	grpcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	celformatterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/cel/v3"
	metadataformatterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/metadata/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/expression"
	"github.com/sluice-proxy/sluice/api/substitution"
	"github.com/sluice-proxy/sluice/xds/cel"
)

// defaultLogFormat is Envoy's (access_log/usage.rst).
const defaultLogFormat = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% " +
	"%DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n"

// accessLogs decodes the logs of one place. A logger that is not built sends
// lines somewhere else than a file: it is noted, for it changes no connection.
func (w *walker) accessLogs(path string, in []*accesslogv3.AccessLog) []*api.AccessLog {
	var out []*api.AccessLog
	for i, l := range in {
		place := fmt.Sprintf("%s[%d]", path, i)
		m, name, _, err := open(l.GetTypedConfig())
		inner := anyPath(place, name)
		if err != nil {
			w.fail(place, err)
			continue
		}
		log := &api.AccessLog{Name: l.GetName()}
		switch c := m.(type) {
		case *filev3.FileAccessLog:
			log.Path = c.GetPath()
			w.logFormat(inner, log, c)
		case *streamv3.StdoutAccessLog:
			log.Path = "/dev/stdout"
			w.substitutionFormat(inner+".log_format", log, c.GetLogFormat())
		case *streamv3.StderrAccessLog:
			log.Path = "/dev/stderr"
			w.substitutionFormat(inner+".log_format", log, c.GetLogFormat())
		case *grpcv3.TcpGrpcAccessLogConfig:
			log.Service = w.serviceLog(inner+".common_config", c.GetCommonConfig())
		default:
			if cause := unregistered(l.GetName(), l.GetTypedConfig()); cause != "" {
				w.fail(place, errors.New(cause))
				continue
			}
			w.unbuilt = append(w.unbuilt, inner)
			continue
		}
		if l.GetFilter() != nil {
			f := w.logFilter(place+".filter", l.GetFilter())
			log.Filter = &f
		}
		out = append(out, log)
	}
	return out
}

func (w *walker) logFormat(path string, log *api.AccessLog, c *filev3.FileAccessLog) {
	switch f := c.GetAccessLogFormat().(type) {
	case *filev3.FileAccessLog_Format:
		// An empty string is the default.
		if f.Format == "" {
			w.text(path+".format", log, defaultLogFormat, expression.Options{})
			return
		}
		w.text(path+".format", log, f.Format, expression.Options{})
	case *filev3.FileAccessLog_JsonFormat:
		w.json(path+".json_format", log, f.JsonFormat, expression.Options{})
	case *filev3.FileAccessLog_TypedJsonFormat:
		w.json(path+".typed_json_format", log, f.TypedJsonFormat, expression.Options{})
	case *filev3.FileAccessLog_LogFormat:
		w.substitutionFormat(path+".log_format", log, f.LogFormat)
	default:
		w.text(path, log, defaultLogFormat, expression.Options{})
	}
}

func (w *walker) substitutionFormat(path string, log *api.AccessLog, f *corev3.SubstitutionFormatString) {
	if f == nil {
		w.text(path, log, defaultLogFormat, expression.Options{})
		return
	}
	log.OmitEmpty = f.GetOmitEmptyValues()
	options := w.formatters(path+".formatters", f.GetFormatters())
	switch f := f.GetFormat().(type) {
	case *corev3.SubstitutionFormatString_TextFormat:
		w.text(path+".text_format", log, f.TextFormat, options)
	case *corev3.SubstitutionFormatString_TextFormatSource:
		s, err := dataSource(f.TextFormatSource)
		if err != nil {
			w.fail(path+".text_format_source", err)
			return
		}
		w.text(path+".text_format_source", log, s, options)
	case *corev3.SubstitutionFormatString_JsonFormat:
		w.json(path+".json_format", log, f.JsonFormat, options)
	}
}

func (w *walker) text(path string, log *api.AccessLog, s string, o expression.Options) {
	f, err := parseFormat(s, o)
	if err != nil {
		w.fail(path, err)
	}
	log.Text = f
}

// parseFormat reads a format, and the expressions in it.
func parseFormat(s string, o expression.Options) (substitution.Format, error) {
	f, err := substitution.Parse(s)
	for i := range f {
		if p := &f[i]; err == nil && (p.Command == "CEL" || p.Command == "TYPED_CEL") {
			p.Expression, err = cel.Text("expression", p.Arg, o)
		}
	}
	return f, err
}

func (w *walker) json(path string, log *api.AccessLog, s *structpb.Struct, o expression.Options) {
	n, err := formatTree(structpb.NewStructValue(s), o)
	if err != nil {
		w.fail(path, err)
		return
	}
	log.JSON = &n
}

// formatters are commands besides. METADATA is known anyway, and so is CEL, but for
// its options.
func (w *walker) formatters(path string, in []*corev3.TypedExtensionConfig) (options expression.Options) {
	for i, f := range in {
		at := fmt.Sprintf("%s[%d]", path, i)
		m, _, _, err := open(f.GetTypedConfig())
		switch c := m.(type) {
		case *celformatterv3.Cel:
			options = cel.Options(c.GetCelConfig())
		case *metadataformatterv3.Metadata:
		default:
			switch {
			case err != nil:
			case strings.HasPrefix(innerURL(f.GetTypedConfig()), "envoy.extensions.formatter."):
				w.unbuilt = append(w.unbuilt, at)
				continue
			default:
				err = fmt.Errorf("Formatter not found: %s", short(f.GetName()))
			}
			w.fail(at, err)
		}
	}
	return options
}

// formatTree reads a JSON format: strings are formats, the rest stays as it is.
func formatTree(v *structpb.Value, o expression.Options) (substitution.Node, error) {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		f, err := parseFormat(k.StringValue, o)
		if len(f) == 0 {
			return substitution.Node{Literal: `""`}, err
		}
		return substitution.Node{Format: f}, err
	case *structpb.Value_NumberValue:
		return substitution.Node{Literal: strconv.FormatFloat(k.NumberValue, 'f', -1, 64)}, nil
	case *structpb.Value_BoolValue:
		return substitution.Node{Literal: strconv.FormatBool(k.BoolValue)}, nil
	case *structpb.Value_ListValue:
		n := substitution.Node{IsList: true}
		for _, e := range k.ListValue.GetValues() {
			one, err := formatTree(e, o)
			if err != nil {
				return n, err
			}
			n.List = append(n.List, one)
		}
		return n, nil
	case *structpb.Value_StructValue:
		var fields []substitution.Field
		for key, e := range k.StructValue.GetFields() {
			one, err := formatTree(e, o)
			if err != nil {
				return substitution.Node{}, err
			}
			fields = append(fields, substitution.Field{Key: key, Value: one})
		}
		return substitution.Object(fields), nil
	}
	return substitution.Node{}, nil
}

// logFilter decodes a filter. Other extensions are noted and pass everything; what is about HTTP passes nothing, as a TCP
// connection has no headers.
func (w *walker) logFilter(path string, f *accesslogv3.AccessLogFilter) api.LogFilter {
	var pass api.LogFilter
	switch s := f.GetFilterSpecifier().(type) {
	case *accesslogv3.AccessLogFilter_StatusCodeFilter:
		return api.LogFilter{StatusCode: comparison(s.StatusCodeFilter.GetComparison())}
	case *accesslogv3.AccessLogFilter_DurationFilter:
		return api.LogFilter{Duration: comparison(s.DurationFilter.GetComparison())}
	case *accesslogv3.AccessLogFilter_RuntimeFilter:
		return api.LogFilter{Sample: sample(s.RuntimeFilter)}
	case *accesslogv3.AccessLogFilter_AndFilter:
		return api.LogFilter{And: w.logFilters(path+".and_filter", s.AndFilter.GetFilters())}
	case *accesslogv3.AccessLogFilter_OrFilter:
		return api.LogFilter{Or: w.logFilters(path+".or_filter", s.OrFilter.GetFilters())}
	case *accesslogv3.AccessLogFilter_ResponseFlagFilter:
		flags := append([]string{}, s.ResponseFlagFilter.GetFlags()...)
		return api.LogFilter{Flags: &flags}
	case *accesslogv3.AccessLogFilter_LogTypeFilter:
		t := &api.LogTypes{Exclude: s.LogTypeFilter.GetExclude()}
		for _, k := range s.LogTypeFilter.GetTypes() {
			t.Types = append(t.Types, k.String())
		}
		return api.LogFilter{Types: t}
	case *accesslogv3.AccessLogFilter_MetadataFilter:
		return api.LogFilter{Metadata: w.metadataCondition(path+".metadata_filter", s.MetadataFilter)}
	case *accesslogv3.AccessLogFilter_HeaderFilter:
		return api.LogFilter{Nothing: !absentHeaderHolds(s.HeaderFilter.GetHeader())}
	case *accesslogv3.AccessLogFilter_GrpcStatusFilter:
		// A connection has no status, which is unknown.
		unknown := slices.Contains(s.GrpcStatusFilter.GetStatuses(), accesslogv3.GrpcStatusFilter_UNKNOWN)
		return api.LogFilter{Nothing: unknown == s.GrpcStatusFilter.GetExclude()}
	case *accesslogv3.AccessLogFilter_TraceableFilter:
		return api.LogFilter{Nothing: true}
	case *accesslogv3.AccessLogFilter_ExtensionFilter:
		m, _, _, err := open(s.ExtensionFilter.GetTypedConfig())
		if c, ok := m.(*celfilterv3.ExpressionFilter); ok && err == nil {
			e, err := cel.Text("filter expression", c.GetExpression(), cel.Options(c.GetCelConfig()))
			if err != nil {
				w.fail(path+".extension_filter", err)
			}
			return api.LogFilter{Expression: e}
		}
		if err != nil {
			w.fail(path+".extension_filter", err)
		} else if cause := unregistered(s.ExtensionFilter.GetName(), s.ExtensionFilter.GetTypedConfig()); cause != "" {
			w.fail(path+".extension_filter", errors.New(cause))
		}
		w.unbuilt = append(w.unbuilt, path+".extension_filter")
	}
	return pass // not_health_check_filter: no TCP connection is one
}

// absentHeaderHolds says whether a matcher holds where no header is.
func absentHeaderHolds(m *routev3.HeaderMatcher) bool {
	holds := false
	switch p := m.GetHeaderMatchSpecifier().(type) {
	case nil:
	case *routev3.HeaderMatcher_PresentMatch:
		holds = !p.PresentMatch
	case *routev3.HeaderMatcher_StringMatch:
		if !m.GetTreatMissingHeaderAsEmpty() {
			return false // inverted or not
		}
		e, exact := p.StringMatch.GetMatchPattern().(*matcherv3.StringMatcher_Exact)
		holds = exact && e.Exact == ""
	default:
		return false
	}
	return holds != m.GetInvertMatch()
}

func (w *walker) logFilters(path string, in []*accesslogv3.AccessLogFilter) []api.LogFilter {
	out := make([]api.LogFilter, len(in))
	for i, f := range in {
		out[i] = w.logFilter(fmt.Sprintf("%s.filters[%d]", path, i), f)
	}
	return out
}

func comparison(c *accesslogv3.ComparisonFilter) *api.Comparison {
	return &api.Comparison{Op: c.GetOp().String(), Value: uint64(c.GetValue().GetDefaultValue()), Key: c.GetValue().GetRuntimeKey()}
}

func sample(f *accesslogv3.RuntimeFilter) *api.Fraction {
	p := f.GetPercentSampled()
	den := map[typev3.FractionalPercent_DenominatorType]uint32{
		typev3.FractionalPercent_HUNDRED: 100, typev3.FractionalPercent_TEN_THOUSAND: 10_000, typev3.FractionalPercent_MILLION: 1_000_000,
	}[p.GetDenominator()]
	return &api.Fraction{Numerator: p.GetNumerator(), Denominator: den, Key: f.GetRuntimeKey()}
}

// metadataCondition reads a filter that does not heed the matcher's invert, as
// Envoy's does not.
func (w *walker) metadataCondition(path string, f *accesslogv3.MetadataFilter) *api.MetadataCondition {
	m := f.GetMatcher()
	c := &api.MetadataCondition{Filter: m.GetFilter(), Missing: f.GetMatchIfKeyNotFound() == nil || f.GetMatchIfKeyNotFound().GetValue()}
	for _, s := range m.GetPath() {
		c.Path = append(c.Path, s.GetKey())
	}
	if m != nil {
		v := w.valueMatch(path+".matcher.value", m.GetValue())
		c.Value = &v
	}
	return c
}
