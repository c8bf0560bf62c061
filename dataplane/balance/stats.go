package balance

import "github.com/sluice-proxy/sluice/api/stats"

// Stats are what picks and updates count, under Envoy's names.
type Stats struct {
	HealthyPanic, LocalClusterNotOK, Recalculate, TooSmall, NoCapacity, NumberDiffers      *stats.Counter
	AllDirectly, CrossZone, Sampled                                                        *stats.Counter
	SubsetsCreated, SubsetsRemoved, SubsetsSelected, SubsetsFallback, SubsetsFallbackPanic *stats.Counter
	SubsetsActive                                                                          *stats.Gauge

	scope *stats.Scope
}

// NewStats are those in a cluster's scope, which they do not hold.
func NewStats(sc *stats.Scope) *Stats {
	return &Stats{
		scope:                sc,
		HealthyPanic:         sc.Counter("lb_healthy_panic"),
		LocalClusterNotOK:    sc.Counter("lb_local_cluster_not_ok"),
		Recalculate:          sc.Counter("lb_recalculate_zone_structures"),
		TooSmall:             sc.Counter("lb_zone_cluster_too_small"),
		NoCapacity:           sc.Counter("lb_zone_no_capacity_left"),
		NumberDiffers:        sc.Counter("lb_zone_number_differs"),
		AllDirectly:          sc.Counter("lb_zone_routing_all_directly"),
		CrossZone:            sc.Counter("lb_zone_routing_cross_zone"),
		Sampled:              sc.Counter("lb_zone_routing_sampled"),
		SubsetsCreated:       sc.Counter("lb_subsets_created"),
		SubsetsRemoved:       sc.Counter("lb_subsets_removed"),
		SubsetsSelected:      sc.Counter("lb_subsets_selected"),
		SubsetsFallback:      sc.Counter("lb_subsets_fallback"),
		SubsetsFallbackPanic: sc.Counter("lb_subsets_fallback_panic"),
		SubsetsActive:        sc.Gauge("lb_subsets_active"),
	}
}
