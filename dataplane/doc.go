// Package dataplane carries out snapshots: it keeps what listens, what is
// connected and where connections go in line with the newest one, and never
// touches a connection that is there.
package dataplane
