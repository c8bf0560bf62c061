package api

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// FilterDiscovery says that a filter's configuration comes by itself, over ECDS
// (envoy.config.core.v3.ExtensionConfigSource). No published snapshot has one.
type FilterDiscovery struct {
	// TypeURLs are the types that the configuration may have, without prefix.
	TypeURLs []string
	// Default stands in until a configuration came, nil if nothing does.
	Default *Filter
	// WithoutWarming lets the listener serve with Default at once.
	WithoutWarming bool
	// Timeout bounds the listener's wait, 0 is for ever.
	Timeout time.Duration
	// Terminal says that the filter is the last of its chain.
	Terminal bool
}

// Extension is the configuration of a filter as ECDS brought it.
type Extension struct {
	// Type is that of the configuration, without prefix.
	Type string
	// Terminal says that the filter ends its chain.
	Terminal bool
	// Filter has no name; it has no pointer set either if it is one that does
	// nothing.
	Filter Filter
	// Empty says so.
	Empty bool
}

// Fits says why e cannot be the configuration of the filter called name, in Envoy's
// words; nil if it can.
func (d *FilterDiscovery) Fits(name string, e *Extension) error {
	if !slices.Contains(d.TypeURLs, e.Type) {
		return fmt.Errorf("Error: filter config has type URL %s but expect %s.", e.Type, strings.Join(d.TypeURLs, ", "))
	}
	switch {
	case e.Terminal && !d.Terminal:
		return fmt.Errorf("Error: terminal filter named %s of type %s must be the last filter in a network filter chain.", name, e.Type)
	case !e.Terminal && d.Terminal:
		return fmt.Errorf("Error: non-terminal filter named %s of type %s is the last filter in a network filter chain.", name, e.Type)
	}
	return nil
}
