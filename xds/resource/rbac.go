package resource

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	mtlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/rbac/principals/mtls_authenticated/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/xds/cel"
)

func rbacFilters() map[string]networkFilter {
	return map[string]networkFilter{
		"envoy.extensions.filters.network.rbac.v3.RBAC": {decode: func(w *walker, path string, m proto.Message) api.Filter {
			return api.Filter{RBAC: w.rbac(path, m.(*rbacv3.RBAC))}
		}},
	}
}

func rbacPolicies() policies {
	return policies{
		"envoy.extensions.filters.network.rbac.v3.RBAC": policy{}.
			fields(built, "rules", "matcher", "shadow_rules", "shadow_matcher", "shadow_rules_stat_prefix", "stat_prefix", "enforcement_type", "delay_deny"),
		"envoy.config.rbac.v3.RBAC": policy{}.
			fields(built, "action", "policies").
			// Who is logged changes nothing for anybody.
			fields(noted, "audit_logging_options"),
		"envoy.config.rbac.v3.Policy": policy{}.
			fields(built, "permissions", "principals", "condition", "cel_config").
			// Envoy does not look at it either.
			fields(noted, "checked_condition"),
	}
}

func (w *walker) rbac(path string, p *rbacv3.RBAC) *api.RBAC {
	w.message(path, p.ProtoReflect())
	return &api.RBAC{
		StatPrefix:           strings.TrimSuffix(p.GetStatPrefix(), "."),
		ShadowStatPrefix:     strings.TrimSuffix(p.GetShadowRulesStatPrefix(), "."),
		ShadowMetadataPrefix: p.GetShadowRulesStatPrefix(),
		Enforced:             w.rbacEngine(path, "rules", p.GetRules(), "matcher", p.GetMatcher()),
		Shadow:               w.rbacEngine(path, "shadow_rules", p.GetShadowRules(), "shadow_matcher", p.GetShadowMatcher()),
		Continuous:           p.GetEnforcementType() == rbacv3.RBAC_CONTINUOUS,
		DelayDeny:            w.duration(path+".delay_deny", p.GetDelayDeny(), 0).Truncate(time.Millisecond),
	}
}

// rbacEngine: a matcher beats rules, as in Envoy.
func (w *walker) rbacEngine(path, rulesName string, rules *rbacconfigv3.RBAC, matcherName string, m *xdsmatcherv3.Matcher) *api.RBACEngine {
	if m != nil {
		if rules != nil {
			w.unbuilt = append(w.unbuilt, path+"."+rulesName)
		}
		return &api.RBACEngine{Matcher: w.rbacMatcher(path+"."+matcherName, m)}
	}
	if rules == nil {
		return nil
	}
	path += "." + rulesName
	w.message(path, rules.ProtoReflect())
	e := &api.RBACEngine{Action: api.RBACAction(rules.GetAction())}
	for _, name := range slices.Sorted(maps.Keys(rules.GetPolicies())) {
		p, at := rules.GetPolicies()[name], fmt.Sprintf("%s.policies[%s]", path, short(name))
		w.message(at, p.ProtoReflect())
		one := api.RBACPolicy{Name: name}
		for i, r := range p.GetPermissions() {
			one.Permissions = append(one.Permissions, w.permission(fmt.Sprintf("%s.permissions[%d]", at, i), r))
		}
		for i, r := range p.GetPrincipals() {
			one.Principals = append(one.Principals, w.principal(fmt.Sprintf("%s.principals[%d]", at, i), r))
		}
		if p.GetCondition() != nil {
			var err error
			if one.Condition, err = cel.Tree(p.GetCondition(), cel.Options(p.GetCelConfig())); err != nil {
				w.fail(at+".condition", err)
			}
		}
		e.Policies = append(e.Policies, one)
	}
	return e
}

// rbacMatcher decodes a match tree whose actions are those of RBAC.
func (w *walker) rbacMatcher(path string, p *xdsmatcherv3.Matcher) *api.Matcher {
	m := matching{walker: w, action: rbacAction, admits: rbacInput}
	return m.matcher(path, p)
}

func rbacAction(_ string, c *xdscorev3.TypedExtensionConfig) (string, error) {
	m, _, _, err := open(c.GetTypedConfig())
	if err != nil {
		return "", err
	}
	if a, ok := m.(*rbacconfigv3.Action); ok {
		return api.RBACVerdict(api.RBACAction(a.GetAction()), a.GetName()), nil
	}
	return "", unregisteredExtension(c)
}

// rbacInput says which inputs RBAC may look at.
func rbacInput(c *xdscorev3.TypedExtensionConfig, in api.MatchInput) error {
	switch in.Kind {
	case api.InputTransportProtocol, api.InputApplicationProtocol:
		return unregisteredExtension(c)
	case api.InputSourceType:
		return fmt.Errorf("requirement violation while creating RBAC match tree: INVALID_ARGUMENT: RBAC network filter cannot match '%s'", short(c.GetTypedConfig().GetTypeUrl()))
	}
	return nil
}

// constRule always answers the same.
func constRule(v bool) api.RBACRule { return api.RBACRule{Const: &v} }

func (w *walker) permission(path string, p *rbacconfigv3.Permission) (out api.RBACRule) {
	set := func(path string, s *rbacconfigv3.Permission_Set) (out []api.RBACRule) {
		for i, r := range s.GetRules() {
			out = append(out, w.permission(fmt.Sprintf("%s.rules[%d]", path, i), r))
		}
		return out
	}
	switch r := p.GetRule().(type) {
	case *rbacconfigv3.Permission_AndRules:
		out.And = set(path+".and_rules", r.AndRules)
	case *rbacconfigv3.Permission_OrRules:
		out.Or = set(path+".or_rules", r.OrRules)
	case *rbacconfigv3.Permission_NotRule:
		inner := w.permission(path+".not_rule", r.NotRule)
		out.Not = &inner
	case *rbacconfigv3.Permission_Any:
		return constRule(true)
	case *rbacconfigv3.Permission_Header:
		w.headerRule(path, r.Header.GetName())
	case *rbacconfigv3.Permission_UrlPath, *rbacconfigv3.Permission_UriTemplate:
		return constRule(false)
	case *rbacconfigv3.Permission_DestinationIp:
		return api.RBACRule{Local: w.rbacRange(path+".destination_ip", r.DestinationIp)}
	case *rbacconfigv3.Permission_DestinationPort:
		port := uint16(r.DestinationPort) // bounded by the proto
		return api.RBACRule{LocalPorts: &api.PortRange{First: port, Last: port}}
	case *rbacconfigv3.Permission_DestinationPortRange:
		out.LocalPorts = w.portRange(path+".destination_port_range", r.DestinationPortRange.GetStart(), r.DestinationPortRange.GetEnd())
	case *rbacconfigv3.Permission_RequestedServerName:
		out.ServerName = w.stringMatch(path+".requested_server_name", r.RequestedServerName)
	case *rbacconfigv3.Permission_Metadata:
		out.Metadata = w.metadataMatch(path+".metadata", r.Metadata)
	case *rbacconfigv3.Permission_SourcedMetadata:
		return w.sourcedMetadata(path, r.SourcedMetadata)
	case *rbacconfigv3.Permission_Matcher:
		w.fail(path+".matcher", notSupported(r.Matcher))
	default:
		w.fail(path, errors.New("not supported yet"))
	}
	return out
}

func (w *walker) principal(path string, p *rbacconfigv3.Principal) (out api.RBACRule) {
	set := func(path string, s *rbacconfigv3.Principal_Set) (out []api.RBACRule) {
		for i, r := range s.GetIds() {
			out = append(out, w.principal(fmt.Sprintf("%s.ids[%d]", path, i), r))
		}
		return out
	}
	switch r := p.GetIdentifier().(type) {
	case *rbacconfigv3.Principal_AndIds:
		out.And = set(path+".and_ids", r.AndIds)
	case *rbacconfigv3.Principal_OrIds:
		out.Or = set(path+".or_ids", r.OrIds)
	case *rbacconfigv3.Principal_NotId:
		inner := w.principal(path+".not_id", r.NotId)
		out.Not = &inner
	case *rbacconfigv3.Principal_Any:
		return constRule(true)
	case *rbacconfigv3.Principal_Authenticated_:
		out.Authenticated = &api.Authenticated{}
		if n := r.Authenticated.GetPrincipalName(); n != nil {
			out.Authenticated.Name = w.stringMatch(path+".authenticated.principal_name", n)
		}
	case *rbacconfigv3.Principal_Custom:
		return w.mutualTLS(path+".custom", r.Custom)
	case *rbacconfigv3.Principal_Header:
		w.headerRule(path, r.Header.GetName())
	case *rbacconfigv3.Principal_UrlPath:
		return constRule(false)
	case *rbacconfigv3.Principal_SourceIp:
		return api.RBACRule{Remote: w.rbacRange(path+".source_ip", r.SourceIp)}
	case *rbacconfigv3.Principal_RemoteIp:
		return api.RBACRule{Remote: w.rbacRange(path+".remote_ip", r.RemoteIp)}
	case *rbacconfigv3.Principal_DirectRemoteIp:
		return api.RBACRule{Direct: w.rbacRange(path+".direct_remote_ip", r.DirectRemoteIp)}
	case *rbacconfigv3.Principal_Metadata:
		out.Metadata = w.metadataMatch(path+".metadata", r.Metadata)
	case *rbacconfigv3.Principal_SourcedMetadata:
		return w.sourcedMetadata(path, r.SourcedMetadata)
	case *rbacconfigv3.Principal_FilterState:
		out.FilterState = w.filterStateMatch(path+".filter_state", r.FilterState)
	default:
		w.fail(path, errors.New("not supported yet"))
	}
	return out
}

func (w *walker) mutualTLS(path string, c *corev3.TypedExtensionConfig) (out api.RBACRule) {
	m, _, _, err := open(c.GetTypedConfig())
	p, ok := m.(*mtlsv3.Config)
	switch {
	case err != nil:
		w.fail(path, err)
		return out
	case !ok:
		w.fail(path, notSupported(c))
		return out
	case p.GetSanMatcher() == nil && !p.GetAnyValidatedClientCertificate():
		w.fail(path, errors.New("envoy.rbac.principals.mtls_authenticated did not have any configured validation. At least one configured field is required."))
	}
	out.MutualTLS = &api.MutualTLS{}
	if san := p.GetSanMatcher(); san != nil {
		at := path + ".san_matcher"
		out.MutualTLS.Name = &api.SubjectAltName{Type: api.SANType(san.GetSanType()), Match: w.altName(at+".matcher", san.GetMatcher()), OID: san.GetOid()} // the same numbers
	}
	return out
}

// headerRule: at layer 4 there is no header, and Envoy refuses to look for one.
func (w *walker) headerRule(path, header string) {
	w.fail(path+".header", fmt.Errorf("Found header(%s) rule,not supported by RBAC network filter", short(header)))
}

// notSupported is Envoy's word for an extension that is not linked, else ours.
func notSupported(c *corev3.TypedExtensionConfig) error {
	if cause := unregistered(c.GetName(), c.GetTypedConfig()); cause != "" {
		return errors.New(cause)
	}
	return fmt.Errorf("not supported yet (%s)", short(innerURL(c.GetTypedConfig())))
}

// portRange is half open in the proto.
func (w *walker) portRange(path string, start, end int32) *api.PortRange {
	switch {
	case start < 0 || start > 65536:
		w.fail(path, fmt.Errorf("range start %d is out of bounds", start))
	case end < 0 || end > 65536:
		w.fail(path, fmt.Errorf("range end %d is out of bounds", end))
	case start >= end:
		w.fail(path, fmt.Errorf("range start %d cannot be greater or equal than range end %d", start, end))
	}
	return &api.PortRange{First: uint16(start), Last: uint16(end - 1)}
}
