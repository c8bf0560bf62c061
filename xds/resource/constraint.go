package resource

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// broken is what protoc-gen-validate's errors offer.
type broken interface {
	Field() string
	Reason() string
	Cause() error
	ErrorName() string
}

// Constraint checks the constraints of m, not of what an Any in it holds.
func Constraint(m proto.Message) error { return constraint("", m) }

// constraint runs m's generated ValidateAll and reports the first violation,
// as Envoy does, in Envoy's words and with the path and the value.
func constraint(path string, m proto.Message) error {
	v, ok := m.(interface{ ValidateAll() error })
	if !ok {
		return nil
	}
	err := first(v.ValidateAll())
	if err == nil {
		return nil
	}
	place := cursor{path: path, m: m.ProtoReflect()}
	b, ok := err.(broken)
	for ok {
		place.step(b.Field())
		inner, more := first(b.Cause()).(broken)
		if !more {
			// C++ counts characters where Go counts runes.
			reason := strings.ReplaceAll(b.Reason(), " runes", " characters")
			name := b.ErrorName()[strings.LastIndexByte(b.ErrorName(), '_')+1:]
			return at(place.path, fmt.Errorf("Proto constraint validation failed (%s.%s: %s)%s",
				name, short(b.Field()), reason, place.value()))
		}
		b = inner
	}
	return at(path, err)
}

// first is the first error of a MultiError, else err.
func first(err error) error {
	if l, ok := err.(interface{ AllErrors() []error }); ok {
		for _, e := range l.AllErrors() {
			return e
		}
		return nil
	}
	return err
}

// cursor follows the fields that protoc-gen-validate names.
type cursor struct {
	path string
	m    protoreflect.Message         // nil once the way is lost
	fd   protoreflect.FieldDescriptor // of the last step, nil for a oneof
	v    protoreflect.Value
}

// step goes to a field that is named as Go does, perhaps with an index:
// `FilterChains[0]`.
func (c *cursor) step(field string) {
	name, index, _ := strings.Cut(field, "[")
	index = strings.TrimSuffix(index, "]")
	c.fd, c.v = nil, protoreflect.Value{}
	if c.m == nil {
		c.path = join(c.path, field)
		return
	}
	m := c.m
	c.m = nil
	d := m.Descriptor()
	for i := range d.Oneofs().Len() {
		if o := d.Oneofs().Get(i); goName(o.Name()) == name {
			c.path = join(c.path, string(o.Name()))
			return
		}
	}
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		if goName(fd.Name()) != name {
			continue
		}
		c.path = join(c.path, string(fd.Name()))
		if index != "" {
			c.path += "[" + short(index) + "]"
		}
		if fd.IsMap() {
			return
		}
		c.fd, c.v = fd, m.Get(fd)
		var n int
		if l, ok := c.v.Interface().(protoreflect.List); ok && index != "" {
			if _, err := fmt.Sscan(index, &n); err != nil || n >= l.Len() {
				c.fd = nil
				return
			}
			c.v = l.Get(n)
		}
		if one, ok := c.v.Interface().(protoreflect.Message); ok {
			c.m = one
		}
		return
	}
	c.path = join(c.path, field)
}

// value is the value at the cursor in brackets, or nothing if it is not set.
func (c *cursor) value() string {
	if c.fd == nil {
		return ""
	}
	if m, ok := c.v.Interface().(protoreflect.Message); ok && !m.IsValid() {
		return ""
	}
	if s := show(c.fd, c.v); s != "" {
		return " (" + s + ")"
	}
	return ""
}

// goName is protoc-gen-go's name for a field, as far as Envoy's protos go.
func goName(n protoreflect.Name) string {
	var b strings.Builder
	for part := range strings.SplitSeq(string(n), "_") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}
