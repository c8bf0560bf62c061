package bootstrap

import (
	"fmt"
	"os"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"

	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// RuntimeLayer is a layer of the runtime that a control plane fills (RTDS).
type RuntimeLayer struct {
	// Layer is the layer's name, Resource that of what is asked for.
	Layer, Resource string
	Source          *Source
}

// runtime reads layered_runtime. Layers of a control plane are empty until it has
// answered; see rtds.
func (c *Config) runtime() error {
	var layers []runtime.Layer
	for i, p := range c.Proto.GetLayeredRuntime().GetLayers() {
		l := runtime.Layer{Name: p.GetName(), Values: map[string]string{}}
		switch k := p.GetLayerSpecifier().(type) {
		case *bootstrapv3.RuntimeLayer_AdminLayer_:
			l.Admin = true
		case *bootstrapv3.RuntimeLayer_StaticLayer:
			values, err := resource.RuntimeValues(k.StaticLayer)
			if err != nil {
				return fmt.Errorf("layered_runtime.layers[%d].static_layer: %w", i, err)
			}
			l.Values = values
		case *bootstrapv3.RuntimeLayer_DiskLayer_:
			d := diskLayer(p.GetName(), k.DiskLayer, c.Node.GetCluster())
			if _, err := os.Stat(d.Directory()); err != nil { // Envoy's words
				return fmt.Errorf("layered_runtime.layers[%d].disk_layer.symlink_root: unable to add filesystem watch for file %s: No such file or directory", i, d.Root)
			}
			c.Disks = append(c.Disks, d)
			l = d.Read()
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

// rtds reads where layers come from that a control plane fills. The connections to
// control planes were read.
func (c *Config) rtds() error {
	for i, p := range c.Proto.GetLayeredRuntime().GetLayers() {
		l := p.GetRtdsLayer()
		if l == nil {
			continue
		}
		path := fmt.Sprintf("layered_runtime.layers[%d].rtds_layer.rtds_config", i)
		if l.GetRtdsConfig() == nil {
			return fmt.Errorf("%s: Missing config source specifier in envoy::config::core::v3::ConfigSource", path)
		}
		if _, err := resource.Walk(path, l.GetRtdsConfig()); err != nil {
			return err
		}
		s, err := c.source(path, l.GetRtdsConfig())
		if err != nil {
			return err
		}
		c.RTDS = append(c.RTDS, RuntimeLayer{Layer: p.GetName(), Resource: l.GetName(), Source: s})
	}
	return nil
}
