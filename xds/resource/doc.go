// Package resource turns one xDS resource into one api value: pure, without
// I/O and without memory of other resources.
//
// Every field of every message that it reads has a decision (policy.go): built,
// noted (accepted, without effect yet, listed in Notes) or refused by name. A
// field is refused only if ignoring it would change who may connect, where
// bytes go or whether they are encrypted.
//
// Errors read `field.path: cause (value)`. Where Envoy refuses the same thing
// the cause is in Envoy's words (taken from Envoy 1.40's --mode validate), so
// some begin with a capital. The caller names the resource.
package resource

import "errors"

//go:generate go run ./gentypes

// Notes says what a resource holds beyond what has an effect.
type Notes struct {
	// Unbuilt are the paths of fields that are set, accepted, and without effect
	// yet, in the order of the fields.
	Unbuilt []string
	// Unknown counts the messages that hold fields which the linked protos do not
	// know, also inside every Any of a linked type. Envoy counts messages too, in
	// server.dynamic_unknown_fields.
	Unknown int
}

var (
	// ErrConstraint says that a constraint of the resource's own proto is broken.
	// Envoy then refuses the whole response that brought the resource. A broken
	// constraint inside an Any costs only the resource that holds the Any, and is
	// not wrapped in this error.
	ErrConstraint = errors.New("constraint of the resource's proto broken")
	// ErrType says that the Any is not of the type that was asked for.
	ErrType = errors.New("unexpected resource type")
)
