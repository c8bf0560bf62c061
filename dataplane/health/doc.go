// Package health checks the hosts of clusters actively: over TCP, HTTP and gRPC,
// at the intervals and by the thresholds of Envoy's health checkers
// (source/extensions/health_checkers; what moves when was measured on Envoy
// 1.40).
//
// Nothing here runs on a worker. A host that waits for its next check costs a
// timer; while it is checked, and while its connection is kept for the next
// check, it costs goroutines too. How many checks run at once is bounded over
// all clusters.
package health
