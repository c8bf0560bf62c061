package admin

import (
	"fmt"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"

	"github.com/sluice-proxy/sluice/xds"
)

// extensionType is the type URL that xds.Dump has discovered filters under.
const extensionType = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"

// initDump names what is waited for, as Envoy's init_dump_handler.cc does: one
// init manager per listener that is warming.
func (s *Server) initDump(a *answer, _ query) {
	out := &adminv3.UnreadyTargetsDumps{}
	for _, u := range s.o.Configs.Unready() {
		d := &adminv3.UnreadyTargetsDumps_UnreadyTargetsDump{Name: fmt.Sprintf("init manager Listener-local-init-manager %s", u.Listener)}
		for _, f := range u.Targets {
			d.TargetNames = append(d.TargetNames, "shared target "+f)
		}
		out.UnreadyTargetsDumps = append(out.UnreadyTargetsDumps, d)
	}
	writeProto(a, out, false)
}

func ecdsDump(d xds.Dump, match func(string) bool) *adminv3.EcdsConfigDump {
	out := &adminv3.EcdsConfigDump{}
	for _, r := range byName(d.Resources[extensionType], match) {
		out.EcdsFilters = append(out.EcdsFilters, &adminv3.EcdsConfigDump_EcdsFilterConfig{
			VersionInfo: r.Version, EcdsFilter: r.Active, LastUpdated: timestamp(r.Updated), ErrorState: failure(r.Failed)})
	}
	return out
}
