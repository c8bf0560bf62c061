package tcpproxy

import (
	"math/bits"
	"slices"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/balance"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// lbFilter is the filter name whose dynamic metadata narrow the choice of hosts.
const lbFilter = "envoy.lb"

// asked is what the connection brings to its pick from c, which may say itself what
// is hashed.
func (s *Session) asked(c *upstream.Cluster) balance.Asked {
	a := balance.Asked{Match: s.match(), Metadata: s.conn.Info.Metadata(), Named: s.opening.named}
	policy := c.Config().Balancing.HashPolicy
	if len(policy) == 0 {
		policy = s.factory.config.HashPolicy
	}
	for i := range policy {
		hash, ok := s.hash(&policy[i])
		if !ok {
			continue
		}
		// HashPolicyImpl::generateHash: two that are alike do not cancel each other out.
		a.Hash, a.Hashed = bits.RotateLeft64(a.Hash, 1)^hash, true
		if policy[i].Terminal {
			break
		}
	}
	return a
}

func (s *Session) hash(p *api.HashPolicy) (uint64, bool) {
	if p.SourceIP {
		addr := s.conn.Info.Remote()
		return balance.XXHash(addr.Addr().String(), 0), addr.IsValid()
	}
	o, ok := s.conn.Info.State()[p.FilterState]
	return balance.XXHash(o.Value, 0), ok && o.Hashable
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
