package substitution

import (
	"reflect"
	"strings"
	"testing"
)

func lit(s string) Piece { return Piece{Literal: s, Max: -1} }

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Format
	}{
		{"", nil},
		{"plain", Format{lit("plain")}},
		{"100%%", Format{lit("100%")}},
		{"%DURATION%", Format{{Command: "DURATION", Max: -1}}},
		{"a %REQ(X?Y):10% b", Format{lit("a "), {Command: "REQ", Arg: "X?Y", Max: 10}, lit(" b")}},
		{"%START_TIME(%s.%3f)%\n", Format{{Command: "START_TIME", Arg: "%s.%3f", Max: -1}, lit("\n")}},
		{"%FILTER_STATE(a:PLAIN):3%", Format{{Command: "FILTER_STATE", Arg: "a:PLAIN", Max: 3}}},
		{"%BYTES_SENT()%", Format{{Command: "BYTES_SENT", Max: -1}}},
		{"%DYNAMIC_METADATA(a:b)%%PROTOCOL%", Format{{Command: "DYNAMIC_METADATA", Arg: "a:b", Max: -1}, {Command: "PROTOCOL", Max: -1}}},
	} {
		got, err := Parse(tt.in)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: got %+v, %v", tt.in, got, err)
		}
	}
}

// The texts are Envoy 1.40's.
func TestParseRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"%":                            "Incorrect configuration: %. Couldn't find valid command at position 0",
		"a%b":                          "Incorrect configuration: a%b. Couldn't find valid command at position 1",
		"%START_TIME":                  "Couldn't find valid command at position 0",
		"%BYTES_RECEIVED %":            "Couldn't find valid command at position 0",
		"%REQ(":                        "Couldn't find valid command at position 0",
		"%REQ()%":                      "REQ requires parameters",
		"%REQ(A?B?C)%":                 "More than 1 alternative header specified in token: A?B?C",
		"%NOPE%":                       "Not supported field in StreamInfo: NOPE",
		"%BYTES_SENT:3%":               "BYTES_SENT does not take any parameters or length",
		"%BYTES_SENT(x)%":              "BYTES_SENT does not take any parameters or length",
		"%START_TIME:4%":               "START_TIME does not allow length to be specified.",
		"%UPSTREAM_METADATA(a):3%":     "UPSTREAM_METADATA does not allow length to be specified.",
		"%FILTER_STATE%":               "Invalid filter state configuration, key cannot be empty.",
		"%FILTER_STATE(a:FOO)%":        "Invalid filter state serialize type, only support PLAIN/TYPED/FIELD.",
		"%METADATA(FOO:a)%":            "FOO is not supported type of metadata",
		"%COMMON_DURATION(a:b:c)%":     "Invalid common duration precision: c.",
		"%PATH(a)%":                    "Invalid PATH option: 'a', only 'WQ'/'NQ' are allowed",
		"%REQUESTED_SERVER_NAME(a)%":   "Invalid REQUESTED_SERVER_NAME option: 'a'",
		"%GRPC_STATUS(a)%":             "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER.",
		"%PROTOCOL:99999999999999999%": "",
	} {
		if f, err := Parse(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %+v, %v", in, f, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "%", "%%", "%DURATION%", "a %REQ(X?Y):10% b", "%START_TIME(%s.%3f)%", "%FILTER_STATE(a:PLAIN):3%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parsed, err := Parse(s)
		if err != nil {
			return
		}
		// What was read, written again, reads the same.
		var again strings.Builder
		for _, p := range parsed {
			again.WriteString(p.String())
		}
		got, err := Parse(again.String())
		if err != nil || !reflect.DeepEqual(got, parsed) {
			t.Fatalf("%q: %+v, then %+v, %v", s, parsed, got, err)
		}
	})
}
