package resource

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// showLimit bounds a value in an error, in bytes.
const showLimit = 120

// show renders a value for an error: scalars and enums as JSON has them, an
// extension by the type of its configuration, other messages as short JSON.
// The content of an Any never shows: it may hold keys.
func show(fd protoreflect.FieldDescriptor, v protoreflect.Value) string {
	if fd.IsMap() {
		return fmt.Sprintf("%d entries", v.Map().Len())
	}
	if l, ok := v.Interface().(protoreflect.List); ok {
		if l.Len() != 1 {
			return fmt.Sprintf("%d elements", l.Len())
		}
		v = l.Get(0)
	}
	switch fd.Kind() {
	case protoreflect.MessageKind:
		return showMessage(v.Message())
	case protoreflect.EnumKind:
		if ev := fd.Enum().Values().ByNumber(v.Enum()); ev != nil {
			return string(ev.Name())
		}
		return fmt.Sprint(v.Enum())
	case protoreflect.StringKind:
		return fmt.Sprintf("%q", short(v.String()))
	case protoreflect.BytesKind:
		return fmt.Sprintf("%d bytes", len(v.Bytes()))
	}
	return v.String()
}

func showMessage(m protoreflect.Message) string {
	if a, ok := m.Interface().(*anypb.Any); ok {
		return short(innerURL(a))
	}
	if tc := m.Descriptor().Fields().ByName("typed_config"); tc != nil && m.Has(tc) {
		return showMessage(m.Get(tc).Message())
	}
	if holdsAny(m) {
		return "" // the path says enough
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m.Interface())
	if err != nil {
		return ""
	}
	// protojson puts in spaces at random, so that nobody compares its output.
	var c bytes.Buffer
	if json.Compact(&c, b) != nil {
		return ""
	}
	return short(c.String())
}

func holdsAny(m protoreflect.Message) bool {
	found := false
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() != protoreflect.MessageKind || fd.IsMap() {
			found = found || fd.IsMap()
			return !found
		}
		if fd.Message().FullName() == "google.protobuf.Any" {
			found = true
		} else {
			each("", fd, v, func(_ string, one protoreflect.Value) { found = found || holdsAny(one.Message()) })
		}
		return !found
	})
	return found
}

// Short makes s fit for an error: printable, and not longer than 120 bytes.
func Short(s string) string { return short(s) }

// short cuts s to showLimit bytes, at a rune, and makes it printable.
func short(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) <= showLimit {
		return s
	}
	n := showLimit
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
