package admin

import (
	"fmt"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/sluice-proxy/sluice/api"
)

// listeners prints `name::address`, a line per address, as Envoy's
// listeners_handler.cc does; istioctl and consul parse it.
func (s *Server) listeners(a *answer, q query) {
	ls := s.o.Plane.Listeners()
	if q.value("format") != "json" {
		for _, l := range ls {
			for _, b := range l.Bound {
				fmt.Fprintf(a, "%s::%s\n", l.Name, b)
			}
		}
		return
	}
	out := &adminv3.Listeners{}
	for _, l := range ls {
		st := &adminv3.ListenerStatus{Name: l.Name}
		for i, b := range l.Bound {
			if i == 0 {
				st.LocalAddress = boundAddress(b)
				continue
			}
			st.AdditionalLocalAddresses = append(st.AdditionalLocalAddresses, boundAddress(b))
		}
		out.ListenerStatuses = append(out.ListenerStatuses, st)
	}
	writeProto(a, out, false)
}

func boundAddress(b api.BoundAddress) *corev3.Address {
	if b.Path != "" {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: b.Path}}}
	}
	return protoAddress(b.Addr)
}
