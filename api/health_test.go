package api

import "testing"

func TestHealthOfFlags(t *testing.T) {
	tests := []struct {
		flags    HealthFlags
		coarse   Health
		excluded bool
		text     string
	}{
		{0, HealthHealthy, false, "healthy"},
		{FailedActiveHC, HealthUnhealthy, false, "/failed_active_hc"},
		{FailedActiveHC | PendingActiveHC, HealthUnhealthy, true, "/failed_active_hc/pending_active_hc"},
		{FailedOutlierCheck | DegradedEDSHealth, HealthUnhealthy, false, "/failed_outlier_check/degraded_eds_health"},
		{DegradedActiveHC, HealthDegraded, false, "/degraded_active_hc"},
		{DegradedOutlierDetection, HealthDegraded, false, "/degraded_outlier_detection"},
		{PendingDynamicRemoval, HealthHealthy, false, "/pending_dynamic_removal"},
		{ExcludedViaImmediateHCFail, HealthHealthy, true, "/excluded_via_immediate_hc_fail"},
		{HealthTimeout.Flags(), HealthUnhealthy, false, "/failed_eds_health"},
		{HealthDraining.Flags(), HealthUnhealthy, true, "/eds_status_draining"},
		{HealthDegraded.Flags(), HealthDegraded, false, "/degraded_eds_health"},
		{HealthUnknown.Flags() | HealthHealthy.Flags(), HealthHealthy, false, "healthy"},
	}
	for _, tt := range tests {
		if c, e, s := tt.flags.Coarse(), tt.flags.Excluded(), tt.flags.String(); c != tt.coarse || e != tt.excluded || s != tt.text {
			t.Errorf("%#x is %v, excluded %t, %q; want %v, %t, %q", uint32(tt.flags), c, e, s, tt.coarse, tt.excluded, tt.text)
		}
	}
}
