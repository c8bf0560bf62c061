package resource

import (
	"errors"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/api"
)

// outlier decodes outlier_detection; the defaults are Envoy's
// (outlier_detection.proto).
func (w *walker) outlier(p *clusterv3.OutlierDetection) *api.OutlierDetection {
	if p == nil {
		return nil
	}
	const at = "outlier_detection."
	n := func(v *wrapperspb.UInt32Value, or uint32) uint32 { return uint32Or(v, or) }
	v := &api.OutlierDetection{
		Consecutive5xx:                         n(p.GetConsecutive_5Xx(), 5),
		ConsecutiveGatewayFailure:              n(p.GetConsecutiveGatewayFailure(), 5),
		ConsecutiveLocalOriginFailure:          n(p.GetConsecutiveLocalOriginFailure(), 5),
		Interval:                               w.duration(at+"interval", p.GetInterval(), 10*time.Second),
		BaseEjectionTime:                       w.duration(at+"base_ejection_time", p.GetBaseEjectionTime(), 30*time.Second),
		MaxEjectionTimeJitter:                  w.duration(at+"max_ejection_time_jitter", p.GetMaxEjectionTimeJitter(), 0),
		MaxEjectionPercent:                     n(p.GetMaxEjectionPercent(), 10),
		EnforcingConsecutive5xx:                n(p.GetEnforcingConsecutive_5Xx(), 100),
		EnforcingConsecutiveGatewayFailure:     n(p.GetEnforcingConsecutiveGatewayFailure(), 0),
		EnforcingConsecutiveLocalOriginFailure: n(p.GetEnforcingConsecutiveLocalOriginFailure(), 100),
		EnforcingSuccessRate:                   n(p.GetEnforcingSuccessRate(), 100),
		EnforcingLocalOriginSuccessRate:        n(p.GetEnforcingLocalOriginSuccessRate(), 100),
		EnforcingFailurePercentage:             n(p.GetEnforcingFailurePercentage(), 0),
		EnforcingFailurePercentageLocalOrigin:  n(p.GetEnforcingFailurePercentageLocalOrigin(), 0),
		FailurePercentageThreshold:             n(p.GetFailurePercentageThreshold(), 85),
		FailurePercentageMinimumHosts:          n(p.GetFailurePercentageMinimumHosts(), 5),
		FailurePercentageRequestVolume:         n(p.GetFailurePercentageRequestVolume(), 50),
		SuccessRateMinimumHosts:                n(p.GetSuccessRateMinimumHosts(), 5),
		SuccessRateRequestVolume:               n(p.GetSuccessRateRequestVolume(), 100),
		SuccessRateStdevFactor:                 n(p.GetSuccessRateStdevFactor(), 1900),
		SplitExternalLocalOriginErrors:         p.GetSplitExternalLocalOriginErrors(),
		AlwaysEjectOneHost:                     p.GetAlwaysEjectOneHost().GetValue(),
		UnejectOnHealthCheck:                   p.GetSuccessfulActiveHealthCheckUnejectHost() == nil || p.GetSuccessfulActiveHealthCheckUnejectHost().GetValue(),
	}
	// The default of the longest time is 300 s, or the base if that is longer.
	v.MaxEjectionTime = w.duration(at+"max_ejection_time", p.GetMaxEjectionTime(), max(300*time.Second, v.BaseEjectionTime))
	if v.MaxEjectionTime < v.BaseEjectionTime {
		w.fail(at+"max_ejection_time", errors.New("outlier detector's max_ejection_time cannot be smaller than base_ejection_time"))
	}
	if len(p.GetMonitors()) > 0 { // of HTTP responses
		w.unbuilt = append(w.unbuilt, at+"monitors")
	}
	if p.GetDetectDegradedHosts().GetValue() { // by a header of HTTP responses
		w.unbuilt = append(w.unbuilt, at+"detect_degraded_hosts")
	}
	return v
}
