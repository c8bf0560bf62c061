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
		"%":                                     "Incorrect configuration: %. Couldn't find valid command at position 0",
		"a%b":                                   "Incorrect configuration: a%b. Couldn't find valid command at position 1",
		"%START_TIME":                           "Couldn't find valid command at position 0",
		"%BYTES_RECEIVED %":                     "Couldn't find valid command at position 0",
		"%REQ(":                                 "Couldn't find valid command at position 0",
		"%REQ()%":                               "REQ requires parameters",
		"%REQ(A?B?C)%":                          "More than 1 alternative header specified in token: A?B?C",
		"%NOPE%":                                "Not supported field in StreamInfo: NOPE",
		"%BYTES_SENT:3%":                        "BYTES_SENT does not take any parameters or length",
		"%BYTES_SENT(x)%":                       "BYTES_SENT does not take any parameters or length",
		"%START_TIME:4%":                        "START_TIME does not allow length to be specified.",
		"%UPSTREAM_METADATA(a):3%":              "UPSTREAM_METADATA does not allow length to be specified.",
		"%FILTER_STATE%":                        "Invalid filter state configuration, key cannot be empty.",
		"%FILTER_STATE(a:FOO)%":                 "Invalid filter state serialize type, only support PLAIN/TYPED/FIELD.",
		"%METADATA(FOO:a)%":                     "FOO is not supported type of metadata",
		"%COMMON_DURATION(a:b:c)%":              "Invalid common duration precision: c.",
		"%PATH(a)%":                             "Invalid PATH option: 'a', only 'WQ'/'NQ' are allowed",
		"%REQUESTED_SERVER_NAME(a)%":            "Invalid REQUESTED_SERVER_NAME option: 'a'",
		"%GRPC_STATUS(a)%":                      "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER.",
		"%FILTER_STATE(a:FIELD)%":               "Invalid filter state serialize type, FIELD should be used with the field name.",
		"%FILTER_STATE(a:PLAIN:b)%":             "Invalid filter state serialize type, FIELD should be used with the field name.",
		"%COMMON_DURATION(a)%":                  "Invalid common duration configuration: a.",
		"%START_TIME(%Y%n)%":                    "Invalid header configuration. Format string contains newline.",
		"%UPSTREAM_PEER_CERT_V_END(%n)%":        "Invalid header configuration. Format string contains newline.",
		"%QUERY_PARAMS(X)%":                     "Invalid QUERY_PARAMS option: 'X', only 'ORIG'/'DECODED' are allowed",
		"%PATH(NQ:X)%":                          "Invalid PATH option: 'X', only 'ORIG'/'PATH'/'ORIG_OR_PATH' are allowed",
		"%REQUESTED_SERVER_NAME(HOST_FIRST:X)%": "Invalid REQUESTED_SERVER_NAME option: 'X', only 'ORIG_OR_HOST'/'HOST'/'ORIG' are allowed",
		`%COALESCE(x)%`:                         "COALESCE: failed to parse JSON configuration: ",
		`%COALESCE([])%`:                        "COALESCE: failed to parse JSON configuration: ",
		`%COALESCE({})%`:                        "COALESCE: JSON configuration must contain 'operators' array",
		`%COALESCE({"operators":"a"})%`:         "COALESCE: 'operators' must be an array",
		`%COALESCE({"operators":[]})%`:          "COALESCE: 'operators' array must not be empty",
		`%COALESCE({"operators":[5]})%`:         "COALESCE: failed to parse operator at index 0: operator entry must be either a string (command name) or an object with 'command' field",
		`%COALESCE({"operators":["DURATION","NOPE"]})%`:                              "COALESCE: failed to parse operator at index 1: unknown command: 'NOPE'",
		`%COALESCE({"operators":["REQ"]})%`:                                          "COALESCE: failed to parse operator at index 0: REQ requires parameters",
		`%COALESCE({"operators":[{"param":"x"}]})%`:                                  "operator object must have 'command' field",
		`%COALESCE({"operators":[{"command":"REQ","param":5}]})%`:                    "'param' field must be a string",
		`%COALESCE({"operators":[{"command":"REQ","param":"a","max_length":"x"}]})%`: "'max_length' field must be an integer",
		`%COALESCE({"operators":[{"command":"REQ","param":"a","max_length":-1}]})%`:  "'max_length' must be a positive integer",
		"%PROTOCOL:99999999999999999%":                                               "",
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
