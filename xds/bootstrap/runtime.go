package bootstrap

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sluice-proxy/sluice/api/runtime"
)

// runtime reads layered_runtime: static layers and the admin server's. Layers
// from disk and from a control plane stay empty.
func (c *Config) runtime() error {
	var layers []runtime.Layer
	for i, p := range c.Proto.GetLayeredRuntime().GetLayers() {
		l := runtime.Layer{Name: p.GetName(), Values: map[string]string{}}
		switch k := p.GetLayerSpecifier().(type) {
		case *bootstrapv3.RuntimeLayer_AdminLayer_:
			l.Admin = true
		case *bootstrapv3.RuntimeLayer_StaticLayer:
			if err := flatten(l.Values, "", k.StaticLayer); err != nil {
				return fmt.Errorf("layered_runtime.layers[%d].static_layer: %w", i, err)
			}
		default:
			c.Unbuilt = append(c.Unbuilt, fmt.Sprintf("layered_runtime.layers[%d] (%s)", i, p.GetName()))
		}
		layers = append(layers, l)
	}
	r, err := runtime.New(layers)
	if err != nil {
		return fmt.Errorf("layered_runtime: %w", err)
	}
	c.Runtime = r
	return nil
}

// flatten reads a layer as Envoy does (SnapshotImpl::walkProtoValue): keys may be
// written with dots or nested, and a fraction is one value.
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
