// Package trust judges the certificates of a TLS peer by the rules of a
// CertificateValidationContext, as Envoy does and in its words. It serves what
// traffic is secured with and the connections to control planes alike.
package trust
