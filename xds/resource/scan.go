package resource

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// decode unpacks a resource of m's type and checks all constraints.
func decode(a *anypb.Any, m proto.Message) (Notes, error) {
	want := m.ProtoReflect().Descriptor().FullName()
	if got := a.GetTypeUrl(); got[strings.LastIndexByte(got, '/')+1:] != string(want) {
		return Notes{}, fmt.Errorf("type_url: %w: want %s (%q)", ErrType, want, short(got))
	}
	if err := proto.Unmarshal(a.GetValue(), m); err != nil {
		return Notes{}, unpackError{string(want), len(a.GetValue())}
	}
	return check(m)
}

// check validates a resource that is unpacked, and everything in it.
func check(m proto.Message) (Notes, error) {
	if err := constraint("", m); err != nil {
		return Notes{}, kindOf{err, ErrConstraint}
	}
	s := scan{}
	s.message("", m.ProtoReflect(), 0)
	return Notes{Unknown: s.unknown}, s.err
}

// Unknown counts the messages in m that hold unknown fields, and checks what
// every Any in m holds, as the decoders do. Like them it reads a bootstrap's
// messages that are no resource.
func Unknown(m proto.Message) (int, error) {
	s := scan{}
	s.message("", m.ProtoReflect(), 0)
	return s.unknown, s.err
}

// kindOf adds a sentinel to an error without changing its text.
type kindOf struct {
	error
	sentinel error
}

func (k kindOf) Unwrap() []error { return []error{k.error, k.sentinel} }

// scan goes through every message, also inside Any: it counts messages with
// unknown fields and keeps the first broken constraint inside an Any.
type scan struct {
	unknown int
	err     error
}

func (s *scan) message(path string, m protoreflect.Message, depth int) {
	if s.err != nil {
		return
	}
	if len(m.GetUnknown()) > 0 {
		s.unknown++
	}
	if a, ok := m.Interface().(*anypb.Any); ok {
		s.any(path, a, depth)
		return
	}
	// By declaration, not by Range, whose order changes.
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if fd.Kind() != protoreflect.MessageKind || !m.Has(fd) {
			continue
		}
		at := join(path, string(fd.Name()))
		if fd.IsMap() {
			if fd.MapValue().Kind() == protoreflect.MessageKind {
				m.Get(fd).Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
					s.message(fmt.Sprintf("%s[%s]", at, short(k.String())), v.Message(), depth)
					return true
				})
			}
			continue
		}
		each(at, fd, m.Get(fd), func(at string, one protoreflect.Value) { s.message(at, one.Message(), depth) })
	}
}

func (s *scan) any(path string, a *anypb.Any, depth int) {
	if depth >= maxAnyDepth {
		s.err = at(path, fmt.Errorf("nested too deep (%d levels)", depth))
		return
	}
	m, name, dropped, err := open(a)
	if err != nil {
		s.err = at(path, err)
		return
	}
	if m == nil {
		return // a type that is not linked stays unread
	}
	if dropped {
		s.unknown++
	}
	path = anyPath(path, name)
	if strings.HasPrefix(name, policyPackage) {
		return // Envoy checks no constraint of a load balancing policy
	}
	if err := constraint(path, m); err != nil {
		s.err = err
		return
	}
	s.message(path, m.ProtoReflect(), depth+1)
}

// unpackError has Envoy's words, and like a broken constraint it takes the whole
// response.
type unpackError struct {
	want  string
	bytes int
}

func (e unpackError) Error() string {
	return fmt.Sprintf("Unable to unpack as %s: %d bytes are no such message", e.want, e.bytes)
}

func (e unpackError) Unwrap() error { return ErrConstraint }
