package tcpproxy

import (
	"slices"

	"github.com/sluice-proxy/sluice/dataplane/balance"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// lbFilter is the filter name whose dynamic metadata narrow the choice of hosts.
const lbFilter = "envoy.lb"

// asked is what the connection brings to its pick.
func (s *Session) asked() balance.Asked {
	a := balance.Asked{Match: s.match(), Metadata: s.conn.Info.Metadata(), Named: s.opening.named}
	for i := range s.factory.config.HashPolicy {
		if p := &s.factory.config.HashPolicy[i]; p.SourceIP {
			if addr := s.conn.Info.Remote(); addr.IsValid() {
				a.Hash, a.Hashed = balance.XXHash(addr.Addr().String(), 0), true
			}
		} else if o, ok := s.conn.Info.State()[p.FilterState]; ok && o.Hashable {
			a.Hash, a.Hashed = balance.XXHash(o.Value, 0), true
		}
	}
	return a
}

// selected notes which host was picked, where the cluster asks for that.
func (s *Session) selected(h *upstream.Host) {
	o := h.Cluster().Config().Balancing.Override
	if o == nil || o.Selected == nil || len(o.Selected.Path) == 0 {
		return
	}
	var value any = h.Address()
	for _, key := range slices.Backward(o.Selected.Path[1:]) {
		value = map[string]any{key: value}
	}
	s.conn.Info.SetMetadata(o.Selected.Filter, o.Selected.Path[0], value)
}

// match lays what filters said of this connection over the route's criteria.
func (s *Session) match() balance.Criteria {
	over, ok := s.conn.Info.Metadata()[lbFilter]
	if !ok {
		return s.opening.match
	}
	return balance.NewCriteria(balance.MergeMatch(s.opening.match.Values(), over), true)
}
