package resource

import (
	"errors"
	"fmt"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	clientsidev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3"
	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	overridehostv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/override_host/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	ringhashv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	subsetv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/subset/v3"
	wrrlocalityv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/wrr_locality/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/api"
)

const policyPackage = "envoy.extensions.load_balancing_policies."

// policyReader reads one policy into b.
type policyReader func(w *walker, path string, b *api.Balancing, m proto.Message, c *clusterv3.Cluster)

// policyReaders are the policies of Envoy 1.40, by the type of their
// configuration; nil is one that it has and that is not built.
func policyReaders() map[string]policyReader {
	return map[string]policyReader{
		policyPackage + "round_robin.v3.RoundRobin": func(w *walker, path string, b *api.Balancing, m proto.Message, _ *clusterv3.Cluster) {
			p, _ := m.(*roundrobinv3.RoundRobin)
			w.slowStart(path+".slow_start_config", b, p.GetSlowStartConfig())
			localityConfig(b, p.GetLocalityLbConfig())
		},
		policyPackage + "least_request.v3.LeastRequest": func(w *walker, path string, b *api.Balancing, m proto.Message, _ *clusterv3.Cluster) {
			p, _ := m.(*leastrequestv3.LeastRequest)
			b.Policy = api.LeastRequest
			b.ChoiceCount = uint32Or(p.GetChoiceCount(), api.DefaultChoiceCount)
			b.ActiveRequestBias = bias(p.GetActiveRequestBias())
			b.FullScan = p.GetSelectionMethod() == leastrequestv3.LeastRequest_FULL_SCAN
			w.slowStart(path+".slow_start_config", b, p.GetSlowStartConfig())
			localityConfig(b, p.GetLocalityLbConfig())
		},
		policyPackage + "random.v3.Random": func(_ *walker, _ string, b *api.Balancing, m proto.Message, _ *clusterv3.Cluster) {
			p, _ := m.(*randomv3.Random)
			b.Policy = api.Random
			localityConfig(b, p.GetLocalityLbConfig())
		},
		policyPackage + "ring_hash.v3.RingHash": func(w *walker, path string, b *api.Balancing, m proto.Message, _ *clusterv3.Cluster) {
			p, _ := m.(*ringhashv3.RingHash)
			b.LocalityWeighted = p.GetLocalityWeightedLbConfig() != nil
			b.HashByName, b.BalanceFactor = p.GetUseHostnameForHashing(), balanceFactor(p.GetHashBalanceFactor())
			consistentHashing(b, p.GetConsistentHashingLbConfig())
			w.ring(path, b, p.GetMinimumRingSize(), p.GetMaximumRingSize(), p.GetHashFunction() == ringhashv3.RingHash_MURMUR_HASH_2)
		},
		policyPackage + "maglev.v3.Maglev": func(w *walker, path string, b *api.Balancing, m proto.Message, _ *clusterv3.Cluster) {
			p, _ := m.(*maglevv3.Maglev)
			b.LocalityWeighted = p.GetLocalityWeightedLbConfig() != nil
			consistentHashing(b, p.GetConsistentHashingLbConfig())
			w.maglev(path, b, p.GetTableSize())
		},
		policyPackage + "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin": func(w *walker, path string, b *api.Balancing, m proto.Message, _ *clusterv3.Cluster) {
			p, _ := m.(*clientsidev3.ClientSideWeightedRoundRobin)
			// Weights come from the load that responses report; TCP has none, so
			// that all hosts weigh the same.
			b.EqualWeights = true
			w.slowStart(path+".slow_start_config", b, p.GetSlowStartConfig())
		},
		policyPackage + "wrr_locality.v3.WrrLocality": wrrLocality,
		policyPackage + "cluster_provided.v3.ClusterProvided": func(w *walker, _ string, _ *api.Balancing, _ proto.Message, c *clusterv3.Cluster) {
			w.clusterProvided(c)
		},
		policyPackage + "subset.v3.Subset":                                    typedSubsets,
		policyPackage + "override_host.v3.OverrideHost":                       overrideHost,
		policyPackage + "load_aware_locality.v3.LoadAwareLocality":            nil,
		policyPackage + "dynamic_modules.v3.DynamicModulesLoadBalancerConfig": nil,
	}
}

// policyList takes the first policy that Envoy 1.40 has. refusal is what is said
// when there is none, given their names.
func (w *walker) policyList(path string, b *api.Balancing, list *clusterv3.LoadBalancingPolicy, c *clusterv3.Cluster, refusal func(missing string) string) {
	readers := policyReaders()
	var missing []string
	for i, one := range list.GetPolicies() {
		ext := one.GetTypedExtensionConfig()
		read, known := readers[innerURL(ext.GetTypedConfig())]
		if !known {
			missing = append(missing, short(ext.GetName()))
			continue
		}
		m, kind, _, err := open(ext.GetTypedConfig())
		at := anyPath(fmt.Sprintf("%s.policies[%d].typed_extension_config", path, i), kind)
		switch {
		case err != nil:
			w.fail(at, err)
		case read == nil:
			w.fail(at, fmt.Errorf("not supported yet (%s)", kind))
		default:
			w.message(at, m.ProtoReflect())
			read(w, at, b, m, c)
		}
		return
	}
	w.fail(path, errors.New(refusal(strings.Join(missing, ", "))))
}

func localityConfig(b *api.Balancing, l *commonv3.LocalityLbConfig) {
	b.LocalityWeighted = l.GetLocalityWeightedLbConfig() != nil
	z := l.GetZoneAwareLbConfig()
	if z == nil {
		return
	}
	b.Zone = zoneAware(z)
	b.Zone.ByWeight = z.GetLocalityBasis() == commonv3.LocalityLbConfig_ZoneAwareLbConfig_HEALTHY_HOSTS_WEIGHT
	if f := z.GetForceLocalZone(); f != nil {
		b.Zone.ForceLocal = max(1, uint32Or(f.GetMinSize(), 1))
	} else if z.GetForceLocalityDirectRouting() {
		b.Zone.ForceLocal = 1
	}
}

// balanceFactor bounds what typed policies may say: below 100 all hosts would be too
// busy.
func balanceFactor(v *wrapperspb.UInt32Value) uint32 {
	if v.GetValue() == 0 {
		return 0
	}
	return max(100, v.GetValue())
}

func consistentHashing(b *api.Balancing, h *commonv3.ConsistentHashingLbConfig) {
	if h != nil {
		b.HashByName, b.BalanceFactor = h.GetUseHostnameForHashing(), balanceFactor(h.GetHashBalanceFactor())
		for _, p := range h.GetHashPolicy() {
			// What requests have comes to nothing.
			b.HashPolicy = append(b.HashPolicy, api.HashPolicy{SourceIP: p.GetConnectionProperties().GetSourceIp(), FilterState: p.GetFilterState().GetKey(), Terminal: p.GetTerminal()})
		}
	}
}

func wrrLocality(w *walker, path string, b *api.Balancing, m proto.Message, c *clusterv3.Cluster) {
	p, _ := m.(*wrrlocalityv3.WrrLocality)
	b.LocalityWeighted = true
	readers := policyReaders()
	const only = policyPackage + "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin"
	for _, one := range p.GetEndpointPickingPolicy().GetPolicies() {
		kind := innerURL(one.GetTypedExtensionConfig().GetTypedConfig())
		if _, known := readers[kind]; known && kind != only {
			w.fail(path, errors.New("Currently WrrLocalityLoadBalancer only supports ClientSideWeightedRoundRobinLoadBalancer as its endpoint picking policy."))
			return
		} else if known {
			break
		}
	}
	w.policyList(path+".endpoint_picking_policy", b, p.GetEndpointPickingPolicy(), c, func(string) string {
		return "No supported endpoint picking policy."
	})
	b.LocalityWeighted = true
}

func typedSubsets(w *walker, path string, b *api.Balancing, m proto.Message, c *clusterv3.Cluster) {
	p, _ := m.(*subsetv3.Subset)
	w.policyList(path+".subset_lb_policy", b, p.GetSubsetLbPolicy(), c, func(missing string) string {
		return fmt.Sprintf("cluster: didn't find a registered load balancer factory implementation for subset lb with names from [%s]", missing)
	})
	if b.Subsets != nil || b.Override != nil {
		w.fail(path+".subset_lb_policy", errors.New("not supported yet (subset and override_host inside subset)"))
	}
	b.Subsets = w.subsets(path, p, int32(p.GetFallbackPolicy()), int32(p.GetMetadataFallbackPolicy()))
	b.Subsets.AllowRedundantKeys = p.GetAllowRedundantKeys()
	for i, sel := range p.GetSubsetSelectors() {
		w.selector(fmt.Sprintf("%s.subset_selectors[%d]", path, i), b.Subsets, sel, int32(sel.GetFallbackPolicy()))
	}
}

func overrideHost(w *walker, path string, b *api.Balancing, m proto.Message, c *clusterv3.Cluster) {
	p, _ := m.(*overridehostv3.OverrideHost)
	w.policyList(path+".fallback_policy", b, p.GetFallbackPolicy(), c, func(missing string) string {
		return "dynamic forwarding LB: didn't find a registered fallback load balancer factory with names from " + missing
	})
	if b.Override != nil {
		w.fail(path+".fallback_policy", errors.New("not supported yet (override_host inside override_host)"))
	}
	b.Override = &api.OverrideHost{}
	if s := p.GetSelectedHostKey(); s != nil {
		key := metadataKey(s)
		b.Override.Selected = &key
	}
	for i, s := range p.GetOverrideHostSources() {
		at := fmt.Sprintf("%s.override_host_sources[%d]", path, i)
		switch {
		case s.GetHeader() == "" && s.GetMetadata() == nil:
			w.fail(at, errors.New("Empty override source"))
		case s.GetHeader() != "" && s.GetMetadata() != nil:
			w.fail(at, errors.New("Only one override source must be set"))
		case s.GetMetadata() != nil: // TCP has no headers
			b.Override.Sources = append(b.Override.Sources, metadataKey(s.GetMetadata()))
		}
	}
}

func metadataKey(k *metadatav3.MetadataKey) api.MetadataKey {
	out := api.MetadataKey{Filter: k.GetKey()}
	for _, s := range k.GetPath() {
		out.Path = append(out.Path, s.GetKey())
	}
	return out
}
