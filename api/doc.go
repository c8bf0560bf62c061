// Package api is the vocabulary that the two halves of Sluice share: xds writes
// the desired state in it, dataplane carries it out and reports back in it.
//
// It holds plain values only: no protos, no I/O, nothing beyond the standard
// library. Nouns mean what Envoy's documentation means by them.
package api
