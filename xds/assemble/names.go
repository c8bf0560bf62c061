package assemble

import (
	"net/netip"
	"slices"

	"github.com/sluice-proxy/sluice/api"
)

// Names lists the versions of clusters whose names are to be resolved, warming
// ones too. A version is the very value that came with the update.
func (m *Model) Names() map[*api.Cluster]bool {
	out := make(map[*api.Cluster]bool, len(m.named))
	for v := range m.named {
		out[v] = true
	}
	return out
}

// NamesEpoch changes whenever Names does.
func (m *Model) NamesEpoch() uint64 { return m.namesEpoch }

// Targets are the names of a version, in the order of its endpoints.
func Targets(v *api.Cluster) []string {
	var out []string
	for _, l := range v.Assignment.Localities {
		for _, e := range l.Endpoints {
			out = append(out, e.Name)
		}
	}
	return out
}

// follow notes that the names of h are to be resolved, and tells whether it has to
// wait for the first answer.
func (m *Model) follow(c *cluster, h *held[api.Cluster]) (wait bool) {
	n := h.value.Assignment.Hosts()
	if h.answers == nil && n > 0 {
		h.answers = make([][]netip.Addr, n)
		m.named[h.value] = c
		m.namesEpoch++
		return !h.value.DNS.WithoutWarming
	}
	return false
}

func (m *Model) unfollow(h *held[api.Cluster]) {
	if m.named[h.value] != nil {
		delete(m.named, h.value)
		m.namesEpoch++
	}
}

// Answer takes over what a name of a version was resolved to: addresses, or
// nothing if that failed, which leaves those of before. Either way the version
// does not wait any longer. It tells whether the hosts are others now.
func (m *Model) Answer(v *api.Cluster, target int, addrs []netip.Addr, failed bool) (changed bool) {
	c := m.named[v]
	if c == nil {
		return false
	}
	h := c.active
	if w := c.warming; w != nil && w.value == v {
		h = w
	}
	if !failed {
		old := h.answers[target]
		changed = !slices.Equal(old, addrs)
		// A reordered answer is the same hosts, unless only the first one counts.
		if changed && !v.DNS.One && len(old) == len(addrs) {
			changed = slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !slices.Contains(old, a) })
		}
		if changed {
			h.answers[target] = addrs
		}
	}
	switch {
	case c.warming == h:
		m.settle(c, h)
	case changed:
		m.join(c)
	}
	return changed
}

// resolved is an assignment with addresses in the places of its names.
func resolved(v *api.Cluster, answers [][]netip.Addr) *api.Assignment {
	out := &api.Assignment{OverprovisioningFactor: v.Assignment.OverprovisioningFactor}
	target := 0
	for _, l := range v.Assignment.Localities {
		names := l.Endpoints
		l.Endpoints = nil
		for _, e := range names {
			var addrs []netip.Addr
			if target < len(answers) {
				addrs = answers[target]
			}
			target++
			e.Name, e.Target = "", uint32(target)
			port := e.Addr.Port()
			for i, a := range addrs {
				e.Addr = netip.AddrPortFrom(a, port)
				if v.DNS.One {
					for _, more := range addrs[i+1:] {
						e.Additional = append(e.Additional, netip.AddrPortFrom(more, port))
					}
				}
				l.Endpoints = append(l.Endpoints, e)
				if v.DNS.One {
					break
				}
			}
		}
		out.Localities = append(out.Localities, l)
	}
	return out
}
