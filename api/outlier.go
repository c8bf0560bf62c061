package api

import "time"

// OutlierDetection is envoy.config.cluster.v3.OutlierDetection with its defaults
// filled in. The runtime's keys `outlier_detection.…` count before it.
type OutlierDetection struct {
	Consecutive5xx, ConsecutiveGatewayFailure, ConsecutiveLocalOriginFailure uint32
	Interval, BaseEjectionTime, MaxEjectionTime, MaxEjectionTimeJitter       time.Duration
	// In percent from here to the next comment.
	MaxEjectionPercent, EnforcingConsecutive5xx, EnforcingConsecutiveGatewayFailure uint32
	EnforcingConsecutiveLocalOriginFailure, EnforcingSuccessRate                    uint32
	EnforcingLocalOriginSuccessRate, EnforcingFailurePercentage                     uint32
	EnforcingFailurePercentageLocalOrigin, FailurePercentageThreshold               uint32

	SuccessRateMinimumHosts, SuccessRateRequestVolume             uint32
	FailurePercentageMinimumHosts, FailurePercentageRequestVolume uint32
	// SuccessRateStdevFactor is in thousandths.
	SuccessRateStdevFactor uint32

	SplitExternalLocalOriginErrors bool
	AlwaysEjectOneHost             bool
	// UnejectOnHealthCheck is successful_active_health_check_uneject_host.
	UnejectOnHealthCheck bool
}
