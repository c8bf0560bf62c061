// Package upstream holds the clusters as they are in force: their hosts, the
// balancer that picks among them, the circuit breakers and the figures. A
// Cluster outlives its configurations, so that whose turn it is, what is open
// and what was counted survive an update.
package upstream
