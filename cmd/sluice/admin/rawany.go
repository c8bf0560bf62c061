package admin

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
)

// A dump must not fail because of one message that cannot be read: such an Any
// is shown as {"@type": its URL, "value": its bytes in base64}. protojson cannot
// do that, so readable() packs the bytes into a raw message under the same URL,
// and rawResolver makes protojson take it for the message of that URL.
var rawType = func() protoreflect.MessageType {
	f, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name:    proto.String("sluice/admin/raw.proto"),
		Package: proto.String("sluice.admin"),
		Syntax:  proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: proto.String("Raw"),
			Field: []*descriptorpb.FieldDescriptorProto{{
				Name:   proto.String("value"),
				Number: proto.Int32(1),
				Label:  descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
				Type:   descriptorpb.FieldDescriptorProto_TYPE_BYTES.Enum(),
			}},
		}},
	}, nil)
	if err != nil {
		panic(err) // the descriptor above is a constant
	}
	return dynamicpb.NewMessageType(f.Messages().Get(0))
}()

// rawMark is put behind the URL of an Any that holds a raw message although its
// type is known: its bytes are not a message of that type. A space cannot stand
// in a URL.
const rawMark = " (unreadable)"

type rawResolver struct {
	protoregistry.ExtensionTypeResolver
}

func (rawResolver) FindMessageByName(n protoreflect.FullName) (protoreflect.MessageType, error) {
	return protoregistry.GlobalTypes.FindMessageByName(n)
}

func (rawResolver) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	if t, err := protoregistry.GlobalTypes.FindMessageByURL(url); err == nil {
		return t, nil
	}
	return rawType, nil
}

// readable returns m with every Any in it made fit for protojson, and without
// secrets. Nothing that m shares with the caller is changed.
func readable(m proto.Message) proto.Message {
	m = proto.Clone(m)
	fixMessage(m.ProtoReflect())
	return m
}

func fixMessage(m protoreflect.Message) {
	if a, ok := m.Interface().(*anypb.Any); ok {
		fixAny(a)
		return
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case sensitive(fd):
			redact(m, fd)
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					fixMessage(v.Message())
					return true
				})
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				fixMessage(v.List().Get(i).Message())
			}
		default:
			fixMessage(v.Message())
		}
		return true
	})
}

func fixAny(a *anypb.Any) {
	if a.TypeUrl == "" && len(a.Value) == 0 {
		return
	}
	inner, err := a.UnmarshalNew()
	if err == nil {
		fixMessage(inner.ProtoReflect())
		var b []byte
		if b, err = (proto.MarshalOptions{AllowPartial: true}).Marshal(inner); err == nil {
			// What the types cannot rule out: a duration out of range, say.
			fixed := &anypb.Any{TypeUrl: a.TypeUrl, Value: b}
			if _, err = marshaller(false).Marshal(fixed); err == nil {
				a.Value = b
				return
			}
		}
	}
	if _, known := protoregistry.GlobalTypes.FindMessageByURL(a.TypeUrl); known == nil {
		a.TypeUrl += rawMark
	}
	if a.TypeUrl == "" {
		a.TypeUrl = "type.googleapis.com/"
	}
	raw := rawType.New()
	raw.Set(rawType.Descriptor().Fields().Get(0), protoreflect.ValueOfBytes(a.Value))
	b, err := proto.Marshal(raw.Interface())
	if err != nil {
		a.Reset()
		return
	}
	a.Value = b
}
