package rbac

import (
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/match"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// engine is an api.RBACEngine made ready. It is immutable; nil decides nothing.
type engine struct {
	tree     *match.Tree
	logs     bool // some action of the tree is LOG
	action   api.RBACAction
	policies []policy
}

type policy struct {
	name                    string
	permissions, principals []rule
	condition               *stream.Condition // may be nil
}

func newPolicy(p *api.RBACPolicy) (policy, error) {
	out := policy{name: p.Name, permissions: newRules(p.Permissions), principals: newRules(p.Principals)}
	var err error
	if p.Condition.Given() {
		out.condition, err = stream.NewCondition(p.Condition)
	}
	return out, err
}

func (p *policy) matches(i *stream.Info) bool {
	return oneOf(p.permissions, i) && oneOf(p.principals, i) && (p.condition == nil || p.condition.Holds(i))
}

// verdict is what an engine says of a connection. policy is empty if none
// matched.
type verdict struct {
	allowed bool
	policy  string
}

func newEngine(e *api.RBACEngine) *engine {
	if e == nil {
		return nil
	}
	out := &engine{action: e.Action}
	if e.Matcher != nil {
		out.tree, out.logs = match.NewTree(e.Matcher), hasLog(e.Matcher)
		return out
	}
	for i := range e.Policies {
		p, err := newPolicy(&e.Policies[i])
		if err != nil {
			// xds has seen that it can be run; else nobody is let in.
			return &engine{action: api.RBACAllow}
		}
		out.policies = append(out.policies, p)
	}
	return out
}

func (e *engine) ask(i *stream.Info) verdict {
	if e.tree != nil {
		return e.askTree(i)
	}
	v := verdict{}
	matched := false
	for j := range e.policies {
		if p := &e.policies[j]; p.matches(i) {
			v.policy, matched = p.name, true
			break
		}
	}
	switch e.action {
	case api.RBACAllow:
		v.allowed = matched
	case api.RBACDeny:
		v.allowed = !matched
	case api.RBACLog:
		v.allowed = true
		hint(i, matched)
	}
	return v
}

// askTree: what no action is found for is denied.
func (e *engine) askTree(i *stream.Info) verdict {
	hello := i.Hello()
	c := match.Connection{
		Local: i.Local(), Remote: i.Remote(), Direct: i.DirectRemote(), ServerName: hello.ServerName,
		TransportProtocol: hello.TransportProtocol, ApplicationProtocols: hello.ApplicationProtocols,
		FilterState: func(key, field string) (string, bool) {
			o, ok := i.State()[key]
			return o.Value, ok && field == ""
		},
	}
	if t, _ := i.TLS(); t != nil {
		c.Peer = t
	}
	text, ok := e.tree.Match(&c)
	if !ok {
		return verdict{}
	}
	action, name := api.ReadRBACVerdict(text)
	if e.logs {
		hint(i, action == api.RBACLog)
	}
	return verdict{allowed: action != api.RBACDeny, policy: name}
}

// hint tells access log filters whether a LOG rule matched.
func hint(i *stream.Info, log bool) { i.SetMetadata("envoy.common", "access_log_hint", log) }

func hasLog(m *api.Matcher) bool {
	for i := range m.List {
		if leadsToLog(&m.List[i].OnMatch) {
			return true
		}
	}
	if t := m.Tree; t != nil {
		for _, all := range []map[string]*api.OnMatch{t.Exact, t.Prefix} {
			for _, o := range all {
				if leadsToLog(o) {
					return true
				}
			}
		}
		for i := range t.Ranges {
			if leadsToLog(&t.Ranges[i].OnMatch) {
				return true
			}
		}
		for i := range t.Domains {
			if leadsToLog(&t.Domains[i].OnMatch) {
				return true
			}
		}
	}
	return m.OnNoMatch != nil && leadsToLog(m.OnNoMatch)
}

func leadsToLog(o *api.OnMatch) bool {
	if o.Matcher != nil {
		return hasLog(o.Matcher)
	}
	a, _ := api.ReadRBACVerdict(o.Action)
	return a == api.RBACLog
}
