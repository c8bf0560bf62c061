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
	// Source is where it comes from.
	Source ConfigSource
	// Listener says that it is a listener filter's; DefaultListener is its Default.
	Listener        bool
	DefaultListener *ListenerFilter
}

// Key tells the subscriptions to a filter's configuration apart; what stands before a
// zero is its name.
func (d *FilterDiscovery) Key(name string) string {
	if d.Listener {
		name += "\x00listener"
	}
	if d.Source.Kind == FromADS || d.Source.Kind == FromSelf {
		return name
	}
	return fmt.Sprintf("%s\x00%+v", name, d.Source)
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
	// Listener is set in place of Filter if it is a listener filter's.
	Listener *ListenerFilter
}

// Fits says why e cannot be the configuration of the filter called name, in Envoy's
// words; nil if it can.
func (d *FilterDiscovery) Fits(name string, e *Extension) error {
	if !slices.Contains(d.TypeURLs, e.Type) {
		return fmt.Errorf("Error: filter config has type URL %s but expect %s.", e.Type, strings.Join(d.TypeURLs, ", "))
	}
	switch {
	case d.Listener:
	case e.Terminal && !d.Terminal:
		return fmt.Errorf("Error: terminal filter named %s of type %s must be the last filter in a network filter chain.", name, e.Type)
	case !e.Terminal && d.Terminal:
		return fmt.Errorf("Error: non-terminal filter named %s of type %s is the last filter in a network filter chain.", name, e.Type)
	}
	return nil
}
