package resource

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sluice-proxy/sluice/api/runtime"
)

// Runtime decodes an envoy.service.runtime.v3.Runtime: the values of a layer. The
// name is returned also with an error, whenever it can be had.
func Runtime(a *anypb.Any) (name string, l *runtime.Layer, n Notes, err error) {
	var p runtimev3.Runtime
	n, err = decode(a, &p)
	if err != nil {
		return p.GetName(), nil, n, err
	}
	values, err := RuntimeValues(p.GetLayer())
	if err != nil {
		return p.GetName(), nil, n, err
	}
	return p.GetName(), &runtime.Layer{Values: values}, n, nil
}

// RuntimeValues reads a layer as Envoy does (SnapshotImpl::walkProtoValue): keys
// may be written with dots or nested, and a fraction is one value.
func RuntimeValues(s *structpb.Struct) (map[string]string, error) {
	values := map[string]string{}
	return values, flatten(values, "", s)
}

func flatten(into map[string]string, prefix string, s *structpb.Struct) error {
	for _, name := range slices.Sorted(maps.Keys(s.GetFields())) {
		key := prefix + name
		switch v := s.GetFields()[name].GetKind().(type) {
		case *structpb.Value_BoolValue:
			into[key] = strconv.FormatBool(v.BoolValue)
		case *structpb.Value_NumberValue:
			into[key] = strconv.FormatFloat(v.NumberValue, 'f', -1, 64)
		case *structpb.Value_StringValue:
			into[key] = v.StringValue
		case *structpb.Value_StructValue:
			fields := v.StructValue.GetFields()
			if fields["numerator"] == nil && fields["denominator"] == nil {
				if err := flatten(into, key+".", v.StructValue); err != nil {
					return err
				}
				continue
			}
			b, err := protojson.Marshal(v.StructValue)
			if err != nil {
				return fmt.Errorf("Invalid runtime entry value for %s", key)
			}
			into[key] = string(b)
		default:
			return fmt.Errorf("Invalid runtime entry value for %s", key)
		}
	}
	return nil
}
