package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// typedStruct is what an Any of a type that is not linked becomes: it keeps
// type and content, and the decoders know that they cannot read it.
const typedStruct = "type.googleapis.com/xds.type.v3.TypedStruct"

// tree goes through a JSON tree by the schema, before protojson sees it. It
// finds unknown fields and values of the wrong type and names their path, which
// protojson does not, and forgives what Envoy's parser forgives: a single value
// for a list, null for an unset field, both ways to write a field's name.
type tree struct {
	dropUnknown bool
	unknown     int
}

// message returns what protojson reads for v as a message of type md.
func (t *tree) message(path string, md protoreflect.MessageDescriptor, v any) (any, error) {
	switch {
	case md.FullName() == "google.protobuf.Any":
		return t.any(path, v)
	case md.ParentFile().Package() == "google.protobuf" && strings.HasPrefix(md.ParentFile().Path(), "google/protobuf/"):
		return v, nil // has a JSON form of its own; the caller tries it as a leaf
	}
	in, ok := v.(map[string]any)
	if !ok {
		return nil, fail(path, "not an object", v)
	}
	out := make(map[string]any, len(in))
	for _, key := range slices.Sorted(maps.Keys(in)) {
		fd := md.Fields().ByName(protoreflect.Name(key))
		if fd == nil {
			fd = md.Fields().ByJSONName(key)
		}
		at := join(path, key)
		switch {
		case fd == nil && t.dropUnknown:
			t.unknown++
			continue
		case fd == nil:
			return nil, fmt.Errorf("%s: no such field in %s", at, md.FullName())
		case in[key] == nil:
			continue
		}
		if _, twice := out[string(fd.Name())]; twice {
			return nil, fmt.Errorf("%s: given twice, as %s and %s", at, fd.Name(), fd.JSONName())
		}
		one, err := t.field(join(path, string(fd.Name())), fd, in[key])
		if err != nil {
			return nil, err
		}
		out[string(fd.Name())] = one
	}
	return out, nil
}

func (t *tree) field(path string, fd protoreflect.FieldDescriptor, v any) (any, error) {
	switch {
	case fd.IsMap():
		in, ok := v.(map[string]any)
		if !ok {
			return nil, fail(path, "not an object", v)
		}
		if fd.MapValue().Kind() != protoreflect.MessageKind || wellKnown(fd.MapValue().Message()) {
			for key, one := range in {
				if w, ok := one.(word); ok && isString(fd.MapValue()) {
					in[key] = string(w)
				}
			}
			return v, leaf(path, fd, v)
		}
		out := make(map[string]any, len(in))
		for _, key := range slices.Sorted(maps.Keys(in)) {
			one, err := t.message(fmt.Sprintf("%s[%s]", path, key), fd.MapValue().Message(), in[key])
			if err != nil {
				return nil, err
			}
			out[key] = one
		}
		return out, nil
	case fd.IsList():
		in, ok := v.([]any)
		if !ok {
			in = []any{v} // as Consul writes grpc_services
		}
		out := make([]any, 0, len(in))
		for i, one := range in {
			got, err := t.value(fmt.Sprintf("%s[%d]", path, i), fd, one)
			if err != nil {
				return nil, err
			}
			out = append(out, got)
		}
		return out, nil
	}
	return t.value(path, fd, v)
}

// value is a field's value, or one element of it.
func (t *tree) value(path string, fd protoreflect.FieldDescriptor, v any) (any, error) {
	if w, ok := v.(word); ok && isString(fd) {
		v = string(w)
	}
	if fd.Kind() == protoreflect.MessageKind && !wellKnown(fd.Message()) {
		return t.message(path, fd.Message(), v)
	}
	if s, ok := v.(string); ok {
		v = loose(fd, s)
	}
	return v, leaf(path, fd, v)
}

// loose is what Envoy's parser makes of a string where none is due: names of values of
// an enum count in any case, and a bool may have quotes.
func loose(fd protoreflect.FieldDescriptor, s string) any {
	isBool := fd.Kind() == protoreflect.BoolKind || fd.Kind() == protoreflect.MessageKind && fd.Message().FullName() == "google.protobuf.BoolValue"
	switch {
	case isBool && s == "true":
		return true
	case isBool && s == "false":
		return false
	case fd.Kind() != protoreflect.EnumKind || fd.Enum().Values().ByName(protoreflect.Name(s)) != nil:
		return s
	}
	for i := range fd.Enum().Values().Len() {
		if name := string(fd.Enum().Values().Get(i).Name()); strings.EqualFold(name, s) {
			return name
		}
	}
	return s
}

func isString(fd protoreflect.FieldDescriptor) bool {
	return fd.Kind() == protoreflect.StringKind ||
		fd.Kind() == protoreflect.MessageKind && fd.Message().FullName() == "google.protobuf.StringValue"
}

// wellKnown says whether a message has a JSON form of its own. Any has too, but
// is looked into.
func wellKnown(md protoreflect.MessageDescriptor) bool {
	return md.ParentFile().Package() == "google.protobuf" && md.FullName() != "google.protobuf.Any" &&
		strings.HasPrefix(md.ParentFile().Path(), "google/protobuf/")
}

// leaf tries one value alone, so that an error can name it.
func leaf(path string, fd protoreflect.FieldDescriptor, v any) error {
	if fd.IsList() {
		v = []any{v}
	}
	b, err := json.Marshal(map[string]any{string(fd.Name()): v})
	if err != nil {
		return fail(path, err.Error(), v)
	}
	if protojson.Unmarshal(b, dynamicpb.NewMessage(fd.ContainingMessage())) == nil {
		return nil
	}
	if l, ok := v.([]any); ok && fd.IsList() {
		v = l[0]
	}
	return fail(path, "not "+kind(fd), v)
}

func kind(fd protoreflect.FieldDescriptor) string {
	switch {
	case fd.IsMap():
		return "a map of the right type"
	case fd.Kind() == protoreflect.MessageKind:
		return "a " + strings.TrimPrefix(string(fd.Message().FullName()), "google.protobuf.")
	case fd.Kind() == protoreflect.EnumKind:
		return "a value of enum " + string(fd.Enum().FullName())
	}
	return "a " + fd.Kind().String()
}

func (t *tree) any(path string, v any) (any, error) {
	in, ok := v.(map[string]any)
	if !ok {
		return nil, fail(path, "not an object", v)
	}
	if len(in) == 0 {
		return in, nil
	}
	url, ok := in["@type"].(string)
	if !ok || url == "" {
		return nil, fmt.Errorf("%s: no @type", path)
	}
	rest := maps.Clone(in)
	delete(rest, "@type")
	mt, err := protoregistry.GlobalTypes.FindMessageByURL(url)
	if err != nil {
		return map[string]any{"@type": typedStruct, "type_url": url, "value": rest}, nil
	}
	md := mt.Descriptor()
	if wellKnown(md) && md.FullName() != "google.protobuf.Empty" || md.FullName() == "google.protobuf.Any" {
		return in, nil // {"@type": …, "value": …}
	}
	out, err := t.message(path, md, rest)
	if err != nil {
		return nil, err
	}
	fields, ok := out.(map[string]any)
	if !ok {
		return nil, fail(path, "not an object", v)
	}
	fields["@type"] = url
	return fields, nil
}

// bytes is the tree as protojson reads it.
func (t *tree) bytes(md protoreflect.MessageDescriptor, v any) ([]byte, error) {
	out, err := t.message("", md, v)
	if err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

// errTrailing matters apart from syntax errors: the YAML parser overlooks it.
var errTrailing = errors.New("more than one value")

// numbers decodes JSON and keeps numbers as they are written.
func numbers(b []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, fmt.Errorf("%w at byte %d", errTrailing, d.InputOffset())
	}
	return v, nil
}

// fail names path, cause and value.
func fail(path, cause string, v any) error {
	if path == "" {
		path = "bootstrap"
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("%s: %s", path, cause)
	}
	return fmt.Errorf("%s: %s (%s)", path, cause, resource.Short(string(b)))
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
