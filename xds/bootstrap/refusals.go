package bootstrap

import "errors"

// refusals are what Envoy refuses, in its words, of what is accepted here without
// effect: a file that Envoy would not start with must not seem good.
func (c *Config) refusals() error {
	if c.Proto.GetStatsFlushInterval() != nil && c.Proto.GetStatsFlushOnAdmin() {
		return errors.New("stats_flush_on_admin: Only one of stats_flush_interval or stats_flush_on_admin should be set!")
	}
	return c.extensions()
}
