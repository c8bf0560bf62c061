package upstream

import (
	"cmp"
	"slices"

	"github.com/sluice-proxy/sluice/api"
)

// TakeLoad is what the hosts were given since it was called last. It is for one
// goroutine.
func (u *Cluster) TakeLoad() api.ClusterLoad {
	v := u.view.Load()
	out := api.ClusterLoad{ServiceName: v.config.ServiceName}
	type where struct {
		priority uint32
		place    api.Place
	}
	at := map[where]*api.LocalityLoad{}
	for _, h := range v.hosts {
		l := h.takeLoad()
		// Hosts that connections brought are in no locality (seen).
		if l == (api.Load{}) || v.byAddr != nil {
			continue
		}
		w := where{h.priority, h.Place()}
		of := at[w]
		if of == nil {
			of = &api.LocalityLoad{Place: w.place, Priority: w.priority}
			at[w] = of
		}
		of.Begun += l.Begun
		of.Open += l.Open
		of.Hosts = append(of.Hosts, api.HostLoad{Addr: h.Addr(), Path: h.Endpoint().Path, Load: l})
	}
	for _, l := range at {
		out.Localities = append(out.Localities, *l)
	}
	slices.SortFunc(out.Localities, u.inReports)
	return out
}

// inReports is the order of localities.
func (u *Cluster) inReports(a, b api.LocalityLoad) int {
	home := u.near.Home
	switch {
	case a.Priority != b.Priority:
		return cmp.Compare(a.Priority, b.Priority)
	case a.Place == b.Place:
		return 0
	case a.Place == home || b.Place != home && a.Place.Less(b.Place):
		return -1
	}
	return 1
}

func (h *Host) takeLoad() api.Load {
	total := h.rqTotal.Load()
	return api.Load{Begun: total - h.rqTold.Swap(total), Open: h.rqActive.Load()}
}
