package cel

import (
	"encoding/json"
	"testing"

	"github.com/sluice-proxy/sluice/api/expression"
)

// What Envoy 1.40 prints for %CEL% and %TYPED_CEL%.
func TestPrint(t *testing.T) {
	for _, tt := range []struct{ in, text, typed string }{
		{"true", "true", "true"}, {"-5", "-5", "-5"}, {"5u", "5", "5"}, {"1.5", "1.5", "1.5"}, {"1.23456789", "1.23457", "1.23456789"}, {"1e100", "1e+100", "1e+100"}, {"1.0/0.0", "inf", "null"}, {"-1.0/0.0", "-inf", "null"}, {"0.0/0.0", "nan", "null"},
		{`"a"`, "a", `"a"`}, {`b"abc"`, "abc", `"YWJj"`}, {"null", "NULL", "null"}, {"int", "CelType value", "null"}, {`[1, "a"]`, "CelList value", `[1,"a"]`}, {`{"a": {1: true}}`, "CelMap value", `{"a":{"1":true}}`},
		{`duration("0s")`, "0", `"0s"`}, {`duration("5us")`, "5us", `"0.000005s"`}, {`duration("-1.5s")`, "-1.5s", `"-1.500s"`}, {`duration("3661s")`, "1h1m1s", `"3661s"`}, {`duration("90m")`, "1h30m", `"5400s"`}, {`duration("7ns")`, "7ns", `"0.000000007s"`},
		{`timestamp("2020-01-02T03:04:05Z")`, "2020-01-02T03:04:05+00:00", `"2020-01-02T03:04:05Z"`}, {`timestamp("2020-01-02T03:04:05.123456+01:00")`, "2020-01-02T02:04:05.123456+00:00", `"2020-01-02T02:04:05.123456Z"`},
		{"o", "CelMap value", "{}"}, {"m", `a: "set" `, `{"a":"set"}`}, {"j.l", "CelList value", `["x",null,true]`}, {"google.protobuf.Int64Value{value: 1}", "1", "1"},
	} {
		text, typed, ok := read(t, tt.in, expression.Options{}).Print(known())
		b, err := json.Marshal(typed)
		if !ok || err != nil || text != tt.text || string(b) != tt.typed {
			t.Errorf("%s: %q, %s, %v, %v; want %q, %s", tt.in, text, b, ok, err, tt.text, tt.typed)
		}
	}
	if text, typed, ok := read(t, "nope", expression.Options{}).Print(known()); ok || text != "" || typed != nil {
		t.Errorf("an error prints %q, %v", text, typed)
	}
}
