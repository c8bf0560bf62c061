package admin

import (
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

type dumpError struct {
	code int
	text string
}

// maskTree is a FieldMask: the fields to keep, and of each what to keep of it;
// nil keeps all.
type maskTree map[string]maskTree

// parseMask returns nil for an empty mask.
func parseMask(s string) maskTree {
	if s == "" {
		return nil
	}
	root := maskTree{}
paths:
	for path := range strings.SplitSeq(s, ",") {
		at, segments := root, strings.Split(path, ".")
		for i, seg := range segments {
			next, seen := at[seg]
			switch last := i == len(segments)-1; {
			case seen && next == nil:
				continue paths // a shorter path keeps all of it
			case last:
				at[seg] = nil
			case !seen:
				next = maskTree{}
				at[seg] = next
			}
			at = next
		}
	}
	return root
}

// trim returns m with only what the mask keeps, or an error if the mask names
// something that m's type does not have. Like Envoy's, a mask may pass through an
// Any, and may not pass through a repeated field.
func (t maskTree) trim(m protoreflect.Message) (protoreflect.Message, error) {
	if a, ok := m.Interface().(*anypb.Any); ok {
		inner, err := a.UnmarshalNew()
		if err != nil {
			return nil, fmt.Errorf("look into %s: %w", a.TypeUrl, err)
		}
		kept, err := t.trim(inner.ProtoReflect())
		if err != nil {
			return nil, err
		}
		out := &anypb.Any{}
		err = anypb.MarshalFrom(out, kept.Interface(), proto.MarshalOptions{AllowPartial: true})
		return out.ProtoReflect(), err
	}
	out := m.Type().New()
	for name, sub := range t {
		fd := m.Descriptor().Fields().ByName(protoreflect.Name(name))
		switch {
		case fd == nil:
			return nil, fmt.Errorf("%s has no field %q", m.Descriptor().FullName(), name)
		case sub != nil && (fd.Message() == nil || fd.IsList() || fd.IsMap()):
			return nil, fmt.Errorf("%s is not a single message", fd.FullName())
		case !m.Has(fd):
		case sub == nil:
			out.Set(fd, m.Get(fd))
		default:
			v, err := sub.trim(m.Get(fd).Message())
			if err != nil {
				return nil, err
			}
			out.Set(fd, protoreflect.ValueOfMessage(v))
		}
	}
	return out, nil
}

// maskConfigs keeps the parts that the mask fits.
func maskConfigs(configs []proto.Message, mask maskTree, text string) ([]proto.Message, *dumpError) {
	var out []proto.Message
	for _, c := range configs {
		if m, err := mask.trim(c.ProtoReflect()); err == nil {
			out = append(out, m.Interface())
		}
	}
	if out == nil {
		return nil, &dumpError{http.StatusBadRequest, fmt.Sprintf("FieldMask %s could not be successfully applied to any configs.", text)}
	}
	return out, nil
}

// pickResource returns the elements of the one repeated field called resource.
func pickResource(configs []proto.Message, resource string, mask maskTree) ([]proto.Message, *dumpError) {
	for _, c := range configs {
		m := c.ProtoReflect()
		fd := m.Descriptor().Fields().ByName(protoreflect.Name(resource))
		if fd == nil {
			continue
		}
		if !fd.IsList() {
			return nil, &dumpError{http.StatusBadRequest, fmt.Sprintf("%[1]s is not a repeated field. Use ?mask=%[1]s to get only this field", resource)}
		}
		var out []proto.Message
		l := m.Get(fd).List()
		for i := range l.Len() {
			e := l.Get(i).Message()
			if mask != nil {
				var err error
				if e, err = mask.trim(e); err != nil {
					return nil, &dumpError{http.StatusBadRequest, fmt.Sprintf("FieldMask could not be successfully used: %v.", err)}
				}
			}
			out = append(out, e.Interface())
		}
		return out, nil
	}
	return nil, &dumpError{http.StatusNotFound, resource + " not found in config dump"}
}
