package cel

import (
	"encoding/base64"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// Print is what an access log prints of the expression: as text, and as what
// encoding/json is to print where the value keeps its type. It is false for an error.
func (p *Program) Print(n Names) (text string, typed any, ok bool) {
	v := p.run(n)
	if v == nil {
		return "", nil, false
	}
	return printed(v), plain(v), true
}

// printed is Envoy's print of a CelValue.
func printed(v ref.Val) string {
	switch v := v.(type) {
	case types.Bool:
		return strconv.FormatBool(bool(v))
	case types.Int:
		return strconv.FormatInt(int64(v), 10)
	case types.Uint:
		return strconv.FormatUint(uint64(v), 10)
	case types.Double:
		return double(float64(v))
	case types.String:
		return string(v)
	case types.Bytes:
		return string(v)
	case types.Duration:
		return duration(v.Duration)
	case types.Timestamp:
		return v.UTC().Format("2006-01-02T15:04:05.999999999-07:00")
	case types.Null:
		return "NULL"
	case message:
		return v.Text()
	case traits.Mapper:
		return "CelMap value"
	case traits.Lister:
		return "CelList value"
	case *types.Type:
		return "CelType value"
	}
	return ""
}

// double has six digits, as absl::StrCat has.
func double(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 0):
		return strings.TrimPrefix(strings.ToLower(strconv.FormatFloat(f, 'g', -1, 64)), "+")
	}
	return strconv.FormatFloat(f, 'g', 6, 64)
}

// duration is as absl::FormatDuration has it: nothing that is 0.
func duration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	sign := ""
	if d < 0 {
		sign, d = "-", -d
	}
	if d < time.Second {
		return sign + strings.Replace(d.String(), "µ", "u", 1)
	}
	out := sign
	if h := d / time.Hour; h > 0 {
		out += strconv.FormatInt(int64(h), 10) + "h"
	}
	if m := d % time.Hour / time.Minute; m > 0 {
		out += strconv.FormatInt(int64(m), 10) + "m"
	}
	if s := d % time.Minute; s > 0 {
		out += strconv.FormatFloat(s.Seconds(), 'f', -1, 64) + "s"
	}
	return out
}

// plain is v as JSON has it, nil for what JSON has not.
func plain(v ref.Val) any {
	switch v := v.(type) {
	case types.Bool:
		return bool(v)
	case types.Int:
		return int64(v)
	case types.Uint:
		return uint64(v)
	case types.Double:
		if f := float64(v); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f
		}
		return nil
	case types.String:
		return string(v)
	case types.Bytes:
		return base64.StdEncoding.EncodeToString(v)
	case types.Duration:
		return seconds(v.Duration)
	case types.Timestamp:
		return v.UTC().Format("2006-01-02T15:04:05") + fraction(v.Nanosecond()) + "Z"
	case message:
		return v.JSON()
	case object:
		if _, root := v.fields.(interface{ Root() }); root {
			return nil
		}
		return map[string]any{}
	case traits.Mapper:
		all := map[string]any{}
		for i := v.Iterator(); i.HasNext() == types.True; {
			key := i.Next()
			all[printed(key)] = plain(v.Get(key))
		}
		return all
	case traits.Lister:
		all := []any{}
		for i := v.Iterator(); i.HasNext() == types.True; {
			all = append(all, plain(i.Next()))
		}
		return all
	}
	return nil
}

// seconds and fraction are protobuf's JSON: none, three, six or nine digits.
func seconds(d time.Duration) string {
	sign := ""
	if d < 0 {
		sign, d = "-", -d
	}
	return sign + strconv.FormatInt(int64(d/time.Second), 10) + fraction(int(d%time.Second)) + "s"
}

func fraction(nanoseconds int) string {
	if nanoseconds == 0 {
		return ""
	}
	digits := strconv.Itoa(1_000_000_000 + nanoseconds)[1:]
	for strings.HasSuffix(digits, "000") {
		digits = digits[:len(digits)-3]
	}
	return "." + digits
}
