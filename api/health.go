package api

// HealthFlags say what is wrong with a host; 0 is a healthy one. The bits and
// their names are Envoy's (envoy/upstream/upstream.h, HEALTH_FLAG_ENUM_VALUES).
type HealthFlags uint32

// The flags. Those of EDS follow the endpoint's health_status; the others change
// while the process runs.
const (
	FailedActiveHC HealthFlags = 1 << iota
	FailedOutlierCheck
	FailedEDSHealth
	DegradedActiveHC
	DegradedEDSHealth
	PendingDynamicRemoval
	PendingActiveHC
	ExcludedViaImmediateHCFail
	ActiveHCTimeout
	EDSStatusDraining
	DegradedOutlierDetection
)

// EDSFlags are all that an endpoint's health_status can set.
const EDSFlags = FailedEDSHealth | DegradedEDSHealth | EDSStatusDraining

var flagNames = [...]string{"failed_active_hc", "failed_outlier_check", "failed_eds_health", "degraded_active_hc",
	"degraded_eds_health", "pending_dynamic_removal", "pending_active_hc", "excluded_via_immediate_hc_fail",
	"active_hc_timeout", "eds_status_draining", "degraded_outlier_detection"}

// Coarse is the health that a balancer goes by: HealthHealthy, HealthDegraded or
// HealthUnhealthy.
func (f HealthFlags) Coarse() Health {
	switch {
	case f&(FailedActiveHC|FailedOutlierCheck|FailedEDSHealth|EDSStatusDraining) != 0:
		return HealthUnhealthy
	case f&(DegradedActiveHC|DegradedEDSHealth|DegradedOutlierDetection) != 0:
		return HealthDegraded
	}
	return HealthHealthy
}

// Excluded says that the host does not count where health is a share of hosts.
func (f HealthFlags) Excluded() bool {
	return f&(PendingActiveHC|ExcludedViaImmediateHCFail|EDSStatusDraining) != 0
}

// String is what /clusters shows.
func (f HealthFlags) String() string {
	s := ""
	for i, name := range flagNames {
		if f&(1<<i) != 0 {
			s += "/" + name
		}
	}
	if s == "" {
		return "healthy"
	}
	return s
}

// Flags are those that a health_status sets.
func (h Health) Flags() HealthFlags {
	switch h {
	case HealthUnhealthy, HealthTimeout:
		return FailedEDSHealth
	case HealthDraining:
		return EDSStatusDraining
	case HealthDegraded:
		return DegradedEDSHealth
	}
	return 0
}
