package resource

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/sluice-proxy/sluice/api"
)

// metadata is filter_metadata, nil if there is none.
func metadata(m *corev3.Metadata) api.Metadata {
	var out api.Metadata
	for name, fields := range m.GetFilterMetadata() {
		if out == nil {
			out = api.Metadata{}
		}
		out[name] = fields.AsMap()
	}
	return out
}
