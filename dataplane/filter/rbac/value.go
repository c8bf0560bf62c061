package rbac

import (
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/match"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// NewMetadata makes a metadata matcher ready, for other filters too.
func NewMetadata(m *api.MetadataMatch) func(*stream.Info) bool {
	filter, path, invert, holds := m.Filter, m.Path, m.Invert, match.NewValue(&m.Value)
	return func(i *stream.Info) bool {
		v, there := i.Metadata().At(filter, path)
		return holds(v, there) != invert
	}
}
