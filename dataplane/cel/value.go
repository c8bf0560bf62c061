package cel

import (
	"fmt"
	"reflect"
	"time"

	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
)

// Fields is an object whose members are found by name. A member is a string, bool,
// int64, uint64, float64, []byte, time.Time or time.Duration, what JSON has for the
// rest, or Fields again.
type Fields interface {
	Field(name string) (any, bool)
}

// Message is a protobuf message: its fields are always there, but has() tells those
// that are set.
type Message interface {
	Fields
	Has(name string) bool
	// Text is how protobuf prints it, JSON what encoding/json is to.
	Text() string
	JSON() any
}

// value is v as cel-go has it.
func value(v any) ref.Val {
	switch v := v.(type) {
	case string:
		return types.String(v)
	case int64:
		return types.Int(v)
	case uint64:
		return types.Uint(v)
	case bool:
		return types.Bool(v)
	case time.Time:
		return types.Timestamp{Time: v}
	case time.Duration:
		return types.Duration{Duration: v}
	case Message:
		return message{v}
	case Fields:
		return object{v}
	}
	return types.DefaultTypeAdapter.NativeToValue(v)
}

// unconvertible is what no object or message becomes.
type unconvertible struct{}

func (unconvertible) ConvertToNative(t reflect.Type) (any, error) {
	return nil, fmt.Errorf("convert attributes to %v: no such conversion", t)
}

func (unconvertible) ConvertToType(t ref.Type) ref.Val {
	if t == types.TypeType {
		return types.MapType
	}
	return types.NewErr("type conversion error to '%s'", t.TypeName())
}

func (unconvertible) Type() ref.Type { return types.MapType }

// object is a map that cannot be listed: it looks empty, as Envoy's does.
type object struct{ fields Fields }

var _ traits.Mapper = object{}

func (o object) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	v, ok := o.fields.Field(string(name))
	if !ok {
		return nil, false
	}
	return value(v), true
}

func (o object) Get(key ref.Val) ref.Val {
	if v, ok := o.Find(key); ok {
		return v
	}
	return types.NewErr("no such key: %v", key)
}

func (o object) Contains(key ref.Val) ref.Val {
	_, ok := o.Find(key)
	return types.Bool(ok)
}

func (o object) Equal(other ref.Val) ref.Val {
	m, ok := other.(traits.Mapper)
	return types.Bool(ok && m.Size() == types.IntZero)
}

func (object) Size() ref.Val                               { return types.IntZero }
func (object) Iterator() traits.Iterator                   { return none{} }
func (o object) Value() any                                { return o.fields }
func (object) ConvertToNative(t reflect.Type) (any, error) { return unconvertible{}.ConvertToNative(t) }
func (object) ConvertToType(t ref.Type) ref.Val            { return unconvertible{}.ConvertToType(t) }
func (object) Type() ref.Type                              { return types.MapType }

// none iterates over nothing.
type none struct{ unconvertible }

func (none) HasNext() ref.Val      { return types.False }
func (none) Next() ref.Val         { return types.NewErr("no more elements") }
func (none) Equal(ref.Val) ref.Val { return types.False }
func (none) Value() any            { return nil }

// message is no map: a field that it has not is an error, one that is not set its
// default.
type message struct{ Message }

var (
	_ traits.Indexer     = message{}
	_ traits.FieldTester = message{}
)

func (m message) Get(key ref.Val) ref.Val {
	name, _ := key.(types.String)
	v, ok := m.Field(string(name))
	if !ok {
		return types.NewErr("no such field: %v", key)
	}
	return value(v)
}

func (m message) IsSet(key ref.Val) ref.Val {
	name, _ := key.(types.String)
	if _, ok := m.Field(string(name)); !ok {
		return types.NewErr("no such field: %v", key)
	}
	return types.Bool(m.Has(string(name)))
}

func (m message) Equal(other ref.Val) ref.Val {
	o, ok := other.(message)
	return types.Bool(ok && reflect.DeepEqual(m.JSON(), o.JSON()))
}

func (m message) Value() any { return m.Message }
func (message) ConvertToNative(t reflect.Type) (any, error) {
	return unconvertible{}.ConvertToNative(t)
}
func (message) ConvertToType(t ref.Type) ref.Val { return unconvertible{}.ConvertToType(t) }
func (message) Type() ref.Type                   { return types.MapType }
