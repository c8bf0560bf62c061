package resource

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/api"
)

// balancing reads how hosts are picked; load_balancing_policy beats lb_policy.
func (w *walker) balancing(p *clusterv3.Cluster) api.Balancing {
	if provider := providesBalancer(p); provider != "" {
		w.provided(p, provider)
		return defaultBalancing()
	}
	typed := p.GetLbPolicy() == clusterv3.Cluster_LOAD_BALANCING_POLICY_CONFIG
	if p.GetLoadBalancingPolicy() == nil && !typed {
		return w.legacyBalancing(p)
	}
	b := defaultBalancing()
	common := p.GetCommonLbConfig()
	switch {
	case p.GetLoadBalancingPolicy() == nil:
		w.fail("", errors.New("cluster: field load_balancing_policy need to be set"))
	case p.GetLbSubsetConfig() != nil:
		w.fail("", errors.New("cluster: load_balancing_policy cannot be combined with lb_subset_config"))
	case common.GetZoneAwareLbConfig() != nil || common.GetLocalityWeightedLbConfig() != nil || common.GetConsistentHashingLbConfig() != nil:
		w.fail("", errors.New("cluster: load_balancing_policy cannot be combined with partial fields (zone_aware_lb_config, locality_weighted_lb_config, consistent_hashing_lb_config) of common_lb_config"))
	default:
		w.policyList("load_balancing_policy", &b, p.GetLoadBalancingPolicy(), p, func(missing string) string {
			return fmt.Sprintf("cluster: didn't find a registered load balancer factory implementation for cluster: '%s' with names from [%s]", p.GetName(), missing)
		})
	}
	return b
}

// defaultBalancing is what stands where nothing is said.
func defaultBalancing() api.Balancing {
	return api.Balancing{
		ChoiceCount: api.DefaultChoiceCount, ActiveRequestBias: 1,
		MinRingSize: api.DefaultMinRingSize, MaxRingSize: api.DefaultMaxRingSize, TableSize: api.DefaultMaglevTableSize,
		Zone:      api.ZoneAware{Enabled: 100, MinClusterSize: api.DefaultZoneMinClusterSize},
		SlowStart: api.SlowStart{Aggression: 1, MinWeight: api.DefaultSlowStartMinWeight},
	}
}

func (w *walker) legacyBalancing(p *clusterv3.Cluster) api.Balancing {
	b := defaultBalancing()
	common := p.GetCommonLbConfig()
	b.LocalityWeighted = common.GetLocalityWeightedLbConfig() != nil
	if z := common.GetZoneAwareLbConfig(); z != nil {
		b.Zone = zoneAware(z)
	}
	if h := common.GetConsistentHashingLbConfig(); h != nil {
		b.HashByName, b.BalanceFactor = h.GetUseHostnameForHashing(), h.GetHashBalanceFactor().GetValue()
		if b.HashByName && p.GetType() != clusterv3.Cluster_STRICT_DNS {
			w.fail("common_lb_config.consistent_hashing_lb_config.use_hostname_for_hashing",
				fmt.Errorf("Cannot use hostname for consistent hashing loadbalancing for cluster of type: 'envoy.cluster.%s'", strings.ToLower(p.GetType().String())))
		}
	}
	switch p.GetLbPolicy() {
	case clusterv3.Cluster_ROUND_ROBIN:
		w.slowStart("round_robin_lb_config.slow_start_config", &b, p.GetRoundRobinLbConfig().GetSlowStartConfig())
	case clusterv3.Cluster_LEAST_REQUEST:
		b.Policy = api.LeastRequest
		l := p.GetLeastRequestLbConfig()
		b.ChoiceCount = uint32Or(l.GetChoiceCount(), api.DefaultChoiceCount)
		b.ActiveRequestBias = bias(l.GetActiveRequestBias())
		w.slowStart("least_request_lb_config.slow_start_config", &b, l.GetSlowStartConfig())
	case clusterv3.Cluster_RANDOM:
		b.Policy = api.Random
	case clusterv3.Cluster_RING_HASH:
		r := p.GetRingHashLbConfig()
		w.ring("ring_hash_lb_config", &b, r.GetMinimumRingSize(), r.GetMaximumRingSize(), r.GetHashFunction() == clusterv3.Cluster_RingHashLbConfig_MURMUR_HASH_2)
	case clusterv3.Cluster_MAGLEV:
		w.maglev("maglev_lb_config", &b, p.GetMaglevLbConfig().GetTableSize())
	case clusterv3.Cluster_CLUSTER_PROVIDED:
		w.clusterProvided(p)
	}
	if s := p.GetLbSubsetConfig(); len(s.GetSubsetSelectors()) > 0 {
		b.Subsets = w.subsets("lb_subset_config", s, int32(s.GetFallbackPolicy()), int32(s.GetMetadataFallbackPolicy()))
		for i, sel := range s.GetSubsetSelectors() {
			w.selector(fmt.Sprintf("lb_subset_config.subset_selectors[%d]", i), b.Subsets, sel, int32(sel.GetFallbackPolicy()))
		}
		if s.GetLocalityWeightAware() && !b.LocalityWeighted {
			w.fail("", fmt.Errorf("Locality weight aware subset LB requires that a locality_weighted_lb_config be set in %s", p.GetName()))
		}
	}
	return b
}

// clusterProvided fails unless the kind of cluster brings its own balancer.
func (w *walker) clusterProvided(p *clusterv3.Cluster) {
	switch {
	case p.GetLbSubsetConfig() != nil:
		w.fail("lb_policy", errors.New("cluster: LB policy CLUSTER_PROVIDED cannot be combined with lb_subset_config"))
	default:
		w.fail("lb_policy", fmt.Errorf("cluster manager: cluster provided LB specified but cluster '%s' did not provide one. Check cluster documentation.", p.GetName()))
	}
}

// zoneSettings are the two messages that say the same.
type zoneSettings interface {
	GetRoutingEnabled() *typev3.Percent
	GetMinClusterSize() *wrapperspb.UInt64Value
	GetFailTrafficOnPanic() bool
}

func zoneAware(z zoneSettings) api.ZoneAware {
	out := api.ZoneAware{Enabled: 100, MinClusterSize: uint64Or(z.GetMinClusterSize(), api.DefaultZoneMinClusterSize), FailOnPanic: z.GetFailTrafficOnPanic()}
	if e := z.GetRoutingEnabled(); e != nil {
		out.Enabled = uint32(math.Round(min(100, max(0, e.GetValue()))))
	}
	return out
}

// slowStartSettings are the two messages that say the same.
type slowStartSettings interface {
	GetSlowStartWindow() *durationpb.Duration
	GetAggression() *corev3.RuntimeDouble
	GetMinWeightPercent() *typev3.Percent
}

func (w *walker) slowStart(path string, b *api.Balancing, s slowStartSettings) {
	b.SlowStart.Window = w.duration(path+".slow_start_window", s.GetSlowStartWindow(), 0)
	if a := s.GetAggression().GetDefaultValue(); a > 0 {
		b.SlowStart.Aggression = a
	}
	if m := s.GetMinWeightPercent(); m != nil {
		b.SlowStart.MinWeight = m.GetValue() / 100
	}
}

// bias is a power; one that Envoy does not take counts as 1.
func bias(d *corev3.RuntimeDouble) float64 {
	if d == nil || !(d.GetDefaultValue() >= 0) {
		return 1
	}
	return d.GetDefaultValue()
}

func (w *walker) ring(path string, b *api.Balancing, least, most *wrapperspb.UInt64Value, murmur bool) {
	b.Policy, b.Murmur = api.RingHash, murmur
	b.MinRingSize, b.MaxRingSize = uint64Or(least, api.DefaultMinRingSize), uint64Or(most, api.DefaultMaxRingSize)
	switch {
	case b.MinRingSize > b.MaxRingSize:
		w.fail(path, fmt.Errorf("ring hash: minimum_ring_size (%d) > maximum_ring_size (%d)", b.MinRingSize, b.MaxRingSize))
	case b.MaxRingSize > api.DefaultMaxRingSize: // only legacy fields have the constraint in Envoy
		w.fail(path, fmt.Errorf("value must be less than or equal to %d (%d)", api.DefaultMaxRingSize, b.MaxRingSize))
	}
}

func (w *walker) maglev(path string, b *api.Balancing, size *wrapperspb.UInt64Value) {
	b.Policy, b.TableSize = api.Maglev, uint64Or(size, api.DefaultMaglevTableSize)
	if !new(big.Int).SetUint64(b.TableSize).ProbablyPrime(0) {
		w.fail(path, errors.New("The table size of maglev must be prime number"))
	}
}

// subsetSettings are the two messages that say the same, but for their enums.
type subsetSettings interface {
	GetDefaultSubset() *structpb.Struct
	GetLocalityWeightAware() bool
	GetScaleLocalityWeight() bool
	GetPanicModeAny() bool
	GetListAsAny() bool
}

func (w *walker) subsets(path string, s subsetSettings, fallback, metadataFallback int32) *api.Subsets {
	out := &api.Subsets{
		Default: s.GetDefaultSubset().AsMap(), LocalityWeightAware: s.GetLocalityWeightAware(), ScaleLocalityWeight: s.GetScaleLocalityWeight(),
		PanicModeAny: s.GetPanicModeAny(), ListAsAny: s.GetListAsAny(), FallbackList: metadataFallback == int32(clusterv3.Cluster_LbSubsetConfig_FALLBACK_LIST),
	}
	if fallback < 0 || fallback > int32(api.FallbackDefault) {
		w.fail(path+".fallback_policy", fmt.Errorf("unknown enum value (%d)", fallback))
		return out
	}
	out.Fallback = api.Fallback(fallback) // the same numbers
	return out
}

type selectorSettings interface {
	GetKeys() []string
	GetFallbackKeysSubset() []string
	GetSingleHostPerSubset() bool
}

func (w *walker) selector(path string, to *api.Subsets, s selectorSettings, fallback int32) {
	sel := api.Selector{Keys: sorted(s.GetKeys()), KeysSubset: sorted(s.GetFallbackKeysSubset()), SingleHost: s.GetSingleHostPerSubset(), Fallback: api.FallbackUnset}
	if fallback > 0 && fallback <= int32(api.FallbackKeys)+1 {
		sel.Fallback = api.Fallback(fallback - 1) // 0 is "not defined"
	}
	missing := func(k string) bool { return !slices.Contains(sel.Keys, k) }
	switch {
	case sel.Fallback != api.FallbackKeys && len(sel.KeysSubset) > 0:
		w.fail(path, errors.New("fallback_keys_subset can be set only for KEYS_SUBSET fallback_policy"))
	case sel.Fallback != api.FallbackKeys:
	case len(sel.KeysSubset) == 0:
		w.fail(path, errors.New("fallback_keys_subset cannot be empty"))
	case slices.ContainsFunc(sel.KeysSubset, missing):
		w.fail(path, errors.New("fallback_keys_subset must be a subset of selector keys"))
	case len(sel.KeysSubset) == len(sel.Keys):
		w.fail(path, errors.New("fallback_keys_subset cannot be equal to keys"))
	}
	to.Selectors = append(to.Selectors, sel)
}

func sorted(keys []string) []string {
	out := slices.Clone(keys)
	slices.Sort(out)
	return slices.Compact(out)
}

func uint64Or(v *wrapperspb.UInt64Value, or uint64) uint64 {
	if v == nil {
		return or
	}
	return v.GetValue()
}

// weights fails where weights overflow what a hashing balancer can add up
// (TypedHashLbConfigBase::validateEndpoints).
func (w *walker) weights(a *api.Assignment) {
	hosts, localities := map[uint32]uint64{}, map[uint32]uint64{}
	for _, l := range a.Localities {
		localities[l.Priority] += uint64(l.Weight)
		for _, e := range l.Endpoints {
			hosts[l.Priority] += uint64(e.Weight)
		}
	}
	for priority := range localities {
		if hosts[priority] > math.MaxUint32 {
			w.fail("load_assignment", fmt.Errorf("The sum of weights of all upstream hosts in a locality exceeds %d", uint32(math.MaxUint32)))
		}
		if localities[priority] > math.MaxUint32 {
			w.fail("load_assignment", fmt.Errorf("The sum of weights of all localities at the same priority exceeds %d", uint32(math.MaxUint32)))
		}
	}
}
