package cel

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
)

// regularExpressions are re.extract, re.capture and re.captureN as Envoy's CEL has
// them: the first finds its pattern anywhere and writes what it found anew, the
// others need the whole text to match, and give its first group, or all by name or
// number.
func regularExpressions() cel.EnvOption {
	three := []*cel.Type{cel.StringType, cel.StringType, cel.StringType}
	return cel.Lib(library{
		cel.Function("re.extract", cel.Overload("re_extract", three, cel.StringType, cel.FunctionBinding(extract))),
		cel.Function("re.capture", cel.Overload("re_capture", three[:2], cel.StringType, cel.BinaryBinding(capture))),
		cel.Function("re.captureN", cel.Overload("re_captureN", three[:2], cel.MapType(cel.StringType, cel.StringType), cel.BinaryBinding(captureAll))),
	})
}

type library []cel.EnvOption

func (l library) CompileOptions() []cel.EnvOption   { return l }
func (library) ProgramOptions() []cel.ProgramOption { return nil }

func extract(args ...ref.Val) ref.Val {
	text, pattern, rewrite := string(args[0].(types.String)), string(args[1].(types.String)), string(args[2].(types.String))
	re, err := regexp.Compile(pattern)
	if err != nil {
		return types.NewErr("invalid regular expression: %s", err)
	}
	at := re.FindStringSubmatchIndex(text)
	if at == nil {
		return types.NewErr("unable to extract capturing group for the given regex")
	}
	// RE2's \1 is Go's ${1}.
	var out strings.Builder
	for i := 0; i < len(rewrite); i++ {
		if rewrite[i] != '\\' {
			out.WriteByte(rewrite[i])
			continue
		}
		if i++; i == len(rewrite) {
			return types.NewErr("invalid rewrite: %s", rewrite)
		}
		switch c := rewrite[i]; {
		case c == '\\':
			out.WriteByte('\\')
		case '0' <= c && c <= '9' && int(c-'0') <= re.NumSubexp():
			if n := 2 * int(c-'0'); at[n] >= 0 {
				out.WriteString(text[at[n]:at[n+1]])
			}
		default:
			return types.NewErr("invalid rewrite: %s", rewrite)
		}
	}
	return types.String(out.String())
}

// groups matches the whole text.
func groups(text, pattern ref.Val) ([]string, *regexp.Regexp, ref.Val) {
	re, err := regexp.Compile("^(?:" + string(pattern.(types.String)) + ")$")
	if err != nil {
		return nil, nil, types.NewErr("invalid regular expression: %s", err)
	}
	found := re.FindStringSubmatch(string(text.(types.String)))
	if len(found) < 2 {
		return nil, nil, types.NewErr("capturing groups were not found in the given regex")
	}
	return found, re, nil
}

func capture(text, pattern ref.Val) ref.Val {
	found, _, err := groups(text, pattern)
	if err != nil {
		return err
	}
	return types.String(found[1])
}

func captureAll(text, pattern ref.Val) ref.Val {
	found, re, err := groups(text, pattern)
	if err != nil {
		return err
	}
	all := map[string]string{}
	for i, name := range re.SubexpNames()[1:] {
		if name == "" {
			name = strconv.Itoa(i + 1)
		}
		all[name] = found[i+1]
	}
	return types.NewStringStringMap(types.DefaultTypeAdapter, all)
}
