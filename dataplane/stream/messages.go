package stream

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// metadataMessage is metadata as envoy.config.core.v3.Metadata is in an expression.
type metadataMessage Metadata

func (m metadataMessage) Field(name string) (any, bool) {
	switch name {
	case "filter_metadata":
		all := make(map[string]any, len(m))
		for k, v := range m {
			all[k] = v
		}
		return all, true
	case "typed_filter_metadata":
		return map[string]any{}, true
	}
	return nil, false
}

// Has tells which field is set.
func (m metadataMessage) Has(name string) bool { return name == "filter_metadata" && len(m) > 0 }

// JSON is the message in proto3's JSON.
func (m metadataMessage) JSON() any {
	if len(m) == 0 {
		return map[string]any{}
	}
	return map[string]any{"filter_metadata": map[string]map[string]any(m)}
}

// Text is the message on one line of protobuf's text format.
func (m metadataMessage) Text() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(m)) {
		fmt.Fprintf(&b, "filter_metadata { key: %s value { ", quoted(name))
		writeStruct(&b, m[name])
		b.WriteString("} } ")
	}
	return b.String()
}

func writeStruct(b *strings.Builder, fields map[string]any) {
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		fmt.Fprintf(b, "fields { key: %s value { ", quoted(k))
		writeValue(b, fields[k])
		b.WriteString("} } ")
	}
}

func writeValue(b *strings.Builder, v any) {
	switch v := v.(type) {
	case nil:
		b.WriteString("null_value: NULL_VALUE ")
	case float64:
		fmt.Fprintf(b, "number_value: %s ", strconv.FormatFloat(v, 'g', -1, 64))
	case string:
		fmt.Fprintf(b, "string_value: %s ", quoted(v))
	case bool:
		fmt.Fprintf(b, "bool_value: %t ", v)
	case map[string]any:
		b.WriteString("struct_value { ")
		writeStruct(b, v)
		b.WriteString("} ")
	case []any:
		b.WriteString("list_value { ")
		for _, e := range v {
			b.WriteString("values { ")
			writeValue(b, e)
			b.WriteString("} ")
		}
		b.WriteString("} ")
	}
}

func quoted(s string) string { return strconv.QuoteToASCII(s) }

// addressFields is an address in filter state.
type addressFields string

func (a addressFields) Field(name string) (any, bool) {
	addr, err := netip.ParseAddrPort(string(a))
	switch {
	case err != nil:
	case name == "ip":
		return addr.Addr().String(), true
	case name == "port":
		return int64(addr.Port()), true
	}
	return nil, false
}
