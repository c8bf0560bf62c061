package resource

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// maxAnyDepth bounds an Any in an Any: every level reads the rest again, so an
// unbounded nest costs quadratic time. Real configuration stays under 10.
const maxAnyDepth = 32

// open reads an Any. A TypedStruct is read as the type that it names, as Envoy
// does; dropped says that it held fields which that type has not. The type is
// returned without its prefix. A type that is not linked gives a nil message and
// no error.
func open(a *anypb.Any) (m proto.Message, name string, dropped bool, err error) {
	mt, name := find(a.GetTypeUrl())
	if mt == nil {
		return nil, name, false, nil
	}
	m = mt.New().Interface()
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return nil, name, false, fmt.Errorf("unable to unpack as %s: %d bytes are no such message", name, len(a.GetValue()))
	}
	url, value, ok := typedStruct(m)
	if !ok {
		return m, name, false, nil
	}
	mt, name = find(url)
	if mt == nil {
		return nil, name, false, nil
	}
	b, err := protojson.Marshal(value)
	if err != nil {
		return nil, name, false, fmt.Errorf("unable to read TypedStruct of %s: %w", name, steady(err))
	}
	for _, drop := range []bool{false, true} {
		m = mt.New().Interface()
		if err = (protojson.UnmarshalOptions{Resolver: NewResolver(), DiscardUnknown: drop}).Unmarshal(b, m); err == nil {
			return m, name, drop, nil
		}
	}
	return nil, name, false, fmt.Errorf("unable to read TypedStruct of %s: %w", name, steady(err))
}

// Unpack reads an Any as Envoy does, a TypedStruct too; of a type that is not
// known it gives nil.
func Unpack(a *anypb.Any) (proto.Message, error) {
	m, _, _, err := open(a)
	return m, err
}

// InnerType is the name of the message in a, or of that in a TypedStruct.
func InnerType(a *anypb.Any) string { return innerURL(a) }

// innerURL is the type that the Any holds, inside a TypedStruct too.
func innerURL(a *anypb.Any) string {
	mt, name := find(a.GetTypeUrl())
	if mt == nil {
		return name
	}
	if n := mt.Descriptor().FullName(); n != "udpa.type.v1.TypedStruct" && n != "xds.type.v3.TypedStruct" {
		return name
	}
	m := mt.New().Interface()
	if proto.Unmarshal(a.GetValue(), m) != nil {
		return name
	}
	url, _, _ := typedStruct(m)
	return url[strings.LastIndexByte(url, '/')+1:]
}

func typedStruct(m proto.Message) (url string, value *structpb.Struct, ok bool) {
	switch t := m.(type) {
	case *udpav1.TypedStruct:
		url, value = t.GetTypeUrl(), t.GetValue()
	case *xdsv3.TypedStruct:
		url, value = t.GetTypeUrl(), t.GetValue()
	default:
		return "", nil, false
	}
	if value == nil {
		value = &structpb.Struct{}
	}
	return url, value, true
}

func find(url string) (protoreflect.MessageType, string) {
	name := url[strings.LastIndexByte(url, '/')+1:]
	mt, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
	if err != nil {
		return nil, name
	}
	return mt, name
}

// label is the last part of a type's name in the way of a field's:
// envoy.….v3.TcpProxy is tcp_proxy.
func label(name string) string {
	name = name[strings.LastIndexByte(name, '.')+1:]
	r := []rune(name)
	var b strings.Builder
	for i, c := range r {
		up := unicode.IsUpper(c)
		if up && i > 0 && (!unicode.IsUpper(r[i-1]) || i+1 < len(r) && unicode.IsLower(r[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}

// anyPath is the path of what an Any holds: `filters[0] tcp_proxy` for the
// typed_config of filters[0].
func anyPath(path, name string) string {
	path = strings.TrimSuffix(path, ".typed_config")
	if l := label(short(name)); l != "" {
		return strings.TrimSpace(path + " " + l)
	}
	return path
}

// steady removes what the protobuf library puts into its messages at random (a
// no-break space for a space), so that an error reads the same every time.
func steady(err error) error {
	s := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	s = strings.TrimPrefix(s, "proto: ")
	return errors.New(strings.Join(strings.Fields(s), " "))
}
