package admin

import (
	"fmt"
	"strconv"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/sluice-proxy/sluice/api"
)

// writeOutlier is what outlier detection knows of a cluster.
func writeOutlier(a *answer, name string, o *api.OutlierStatus) {
	if o == nil {
		return
	}
	p := name + "::outlier::"
	fmt.Fprintf(a, "%ssuccess_rate_average::%s\n%ssuccess_rate_ejection_threshold::%s\n", p, percentText(o.Average.External), p, percentText(o.Threshold.External))
	fmt.Fprintf(a, "%slocal_origin_success_rate_average::%s\n%slocal_origin_success_rate_ejection_threshold::%s\n", p, percentText(o.Average.Local), p, percentText(o.Threshold.Local))
}

// percentText has no more digits than it takes to read the same number.
func percentText(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

// percent is nil where there is nothing to tell.
func percent(v float64) *typev3.Percent {
	if v < 0 {
		return nil
	}
	return &typev3.Percent{Value: v}
}

func healthStatus(h api.HostStatus) *adminv3.HostHealthStatus {
	has := func(f api.HealthFlags) bool { return h.Flags&f != 0 }
	return &adminv3.HostHealthStatus{
		FailedActiveHealthCheck:    has(api.FailedActiveHC),
		FailedOutlierCheck:         has(api.FailedOutlierCheck),
		FailedActiveDegradedCheck:  has(api.DegradedActiveHC),
		PendingDynamicRemoval:      has(api.PendingDynamicRemoval),
		PendingActiveHc:            has(api.PendingActiveHC),
		ExcludedViaImmediateHcFail: has(api.ExcludedViaImmediateHCFail),
		ActiveHcTimeout:            has(api.ActiveHCTimeout),
		EdsHealthStatus:            edsHealth(h.Endpoint.Health),
	}
}

func edsHealth(h api.Health) corev3.HealthStatus {
	switch h {
	case api.HealthUnhealthy, api.HealthTimeout:
		return corev3.HealthStatus_UNHEALTHY
	case api.HealthDegraded:
		return corev3.HealthStatus_DEGRADED
	case api.HealthDraining:
		return corev3.HealthStatus_DRAINING
	}
	return corev3.HealthStatus_HEALTHY
}
