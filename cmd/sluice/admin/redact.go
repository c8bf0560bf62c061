package admin

import (
	"github.com/cncf/xds/go/udpa/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const redacted = "[redacted]"

// sensitive says that the proto marks the field as holding a secret, such as
// TlsCertificate.private_key.
func sensitive(fd protoreflect.FieldDescriptor) bool {
	marked, _ := proto.GetExtension(fd.Options(), annotations.E_Sensitive).(bool)
	return marked
}

// redact replaces every string and bytes under the field, as Envoy's
// MessageUtil::redact does, and clears what it cannot replace.
func redact(m protoreflect.Message, fd protoreflect.FieldDescriptor) {
	switch {
	case fd.IsMap():
		m.Clear(fd)
	case fd.IsList():
		l := m.Mutable(fd).List()
		for i := range l.Len() {
			switch fd.Kind() {
			case protoreflect.StringKind:
				l.Set(i, protoreflect.ValueOfString(redacted))
			case protoreflect.BytesKind:
				l.Set(i, protoreflect.ValueOfBytes([]byte(redacted)))
			case protoreflect.MessageKind:
				redactAll(l.Get(i).Message())
			}
		}
	case fd.Kind() == protoreflect.StringKind:
		m.Set(fd, protoreflect.ValueOfString(redacted))
	case fd.Kind() == protoreflect.BytesKind:
		m.Set(fd, protoreflect.ValueOfBytes([]byte(redacted)))
	case fd.Message() != nil:
		redactAll(m.Mutable(fd).Message())
	default:
		m.Clear(fd)
	}
}

func redactAll(m protoreflect.Message) {
	m.Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		redact(m, fd)
		return true
	})
}
