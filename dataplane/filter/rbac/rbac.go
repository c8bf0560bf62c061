// Package rbac is envoy.filters.network.rbac: who may use a filter chain, by
// addresses, server name, metadata and filter state. It decides when the client's
// first bytes come (or its end), so that a server that speaks first is connected
// by then; under CONTINUOUS again at every read.
package rbac

import (
	"strings"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/loop"
)

// Envoy's words.
const (
	// name is where the shadow engine's result stands in the dynamic metadata.
	name   = "envoy.filters.network.rbac"
	reason = "rbac_deny_close"
)

// Factory is the RBAC of one filter chain. Read-only after New.
type Factory struct {
	config           *api.RBAC
	enforced, shadow *engine

	scope, shadowScope          *stats.Scope
	allowed, denied             *stats.Counter
	shadowAllowed, shadowDenied *stats.Counter
}

// New makes the RBAC of one chain.
func New(c *api.RBAC, ctx filter.Context) *Factory {
	path := []any{c.StatPrefix, "rbac"}
	if !strings.Contains(c.StatPrefix, ".") {
		path[0] = stats.Tag{Name: "envoy.rbac_prefix", Value: c.StatPrefix}
	}
	sc := ctx.Stats.Scope(path...)
	sh := ctx.Stats.Scope(append(path, c.ShadowStatPrefix)...)
	return &Factory{
		config: c, enforced: newEngine(c.Enforced), shadow: newEngine(c.Shadow),
		scope: sc, shadowScope: sh,
		allowed: sc.Counter("allowed"), denied: sc.Counter("denied"),
		shadowAllowed: sh.Counter("shadow_allowed"), shadowDenied: sh.Counter("shadow_denied"),
	}
}

// New makes the filter of a connection.
func (f *Factory) New(c *filter.Connection) filter.Filter { return &session{factory: f, conn: c} }

// Watch says what of the client's bytes the engines wait for.
func (f *Factory) Watch() filter.Watch {
	if f.config.Continuous {
		return filter.EveryByte
	}
	return filter.FirstByte
}

// Release forgets the statistics.
func (f *Factory) Release() {
	f.scope.Release()
	f.shadowScope.Release()
}

type session struct {
	filter.Base
	factory *Factory
	conn    *filter.Connection
	delay   loop.Timer
}

// Data asks the engines, the shadow one first.
func (s *session) Data(bool) filter.Status {
	f, i := s.factory, s.conn.Info
	if f.shadow != nil {
		v, result := f.shadow.ask(i), "allowed"
		if v.allowed {
			f.shadowAllowed.Inc()
		} else {
			result = "denied"
			f.shadowDenied.Inc()
		}
		if v.policy != "" {
			i.SetMetadata(name, f.config.ShadowMetadataPrefix+"shadow_effective_policy_id", v.policy)
		}
		i.SetMetadata(name, f.config.ShadowMetadataPrefix+"shadow_engine_result", result)
	}
	if f.enforced == nil {
		return filter.Continue
	}
	v := f.enforced.ask(i)
	if v.allowed {
		f.allowed.Inc()
		return filter.Continue
	}
	f.denied.Inc()
	i.Explain().Termination = details(v.policy)
	if f.config.DelayDeny > 0 {
		// What is here has been seen; what comes later stays unread, as in Envoy.
		s.conn.Discard()
		s.delay.F = func() { s.conn.Refuse(reason) }
		s.conn.Core.Worker.After(&s.delay, f.config.DelayDeny)
		return filter.Stop
	}
	s.conn.Deny(reason)
	return filter.Closed
}

// details are for the access log: its fields are told apart by blanks.
func details(policy string) string {
	if policy == "" {
		policy = "none"
	}
	return "rbac_access_denied_matched_policy[" + blanks.Replace(policy) + "]"
}

var blanks = strings.NewReplacer(" ", "_", "\t", "_", "\n", "_", "\v", "_", "\f", "_", "\r", "_")

// Ended forgets a denial that is under way.
func (s *session) Ended() { s.conn.Core.Worker.Stop(&s.delay) }
