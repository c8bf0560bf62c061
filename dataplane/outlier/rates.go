package outlier

import "math"

// rates are what a cluster's hosts come to together, in percent; -1 is nothing
// to tell.
type rates struct{ average, threshold float64 }

func noRates() (r [origins]rates) {
	for o := range r {
		r[o] = rates{-1, -1}
	}
	return r
}

type rated[H Host] struct {
	host    H
	monitor *Monitor
}

// judgeLocked ejects hosts whose share of successes in the last interval is far
// below the others' or too low, and returns them.
func (d *Detector[H]) judgeLocked(o int) (moved []H) {
	c := d.config
	minHosts, minFailing := d.number("success_rate_minimum_hosts", c.SuccessRateMinimumHosts), d.number("failure_percentage_minimum_hosts", c.FailurePercentageMinimumHosts)
	volume, failing := d.number("success_rate_request_volume", c.SuccessRateRequestVolume), d.number("failure_percentage_request_volume", c.FailurePercentageRequestVolume)
	d.rates[o] = rates{-1, -1}
	if n := uint64(len(d.monitors)); n < minHosts && n < minFailing {
		return nil
	}
	var forRate, forFailures []rated[H]
	sum := 0.0
	for h, m := range d.monitors {
		last := m.last[o]
		if m.Ejected() || last.total == 0 {
			continue
		}
		rate := 100 * float64(last.good) / float64(last.total)
		if last.total >= min(volume, failing) {
			m.rate[o] = rate
		}
		if last.total >= volume {
			forRate = append(forRate, rated[H]{h, m})
			sum += rate
		}
		if last.total >= failing {
			forFailures = append(forFailures, rated[H]{h, m})
		}
	}
	if n := len(forRate); n > 0 && uint64(n) >= minHosts {
		mean, variance := sum/float64(n), 0.0
		for _, r := range forRate {
			variance += (r.monitor.rate[o] - mean) * (r.monitor.rate[o] - mean)
		}
		factor := float64(d.number("success_rate_stdev_factor", c.SuccessRateStdevFactor)) / 1000
		d.rates[o] = rates{mean, mean - factor*math.Sqrt(variance/float64(n))}
		for _, r := range forRate {
			if r.monitor.rate[o] < d.rates[o].threshold {
				d.stats.successRate.Inc()
				moved = append(moved, d.foundLocked(r, successRate+kind(o))...)
			}
		}
	}
	if n := len(forFailures); n > 0 && uint64(n) >= minFailing {
		threshold := float64(d.number("failure_percentage_threshold", c.FailurePercentageThreshold))
		for _, r := range forFailures {
			// The rate before may have ejected it already.
			if 100-r.monitor.rate[o] >= threshold && !r.monitor.Ejected() {
				moved = append(moved, d.foundLocked(r, failurePercentage+kind(o))...)
			}
		}
	}
	return moved
}

func (d *Detector[H]) foundLocked(r rated[H], k kind) []H {
	d.stats.detected[k].Inc()
	if d.ejectLocked(r.host, r.monitor, k) {
		return []H{r.host}
	}
	return nil
}

// Rates are the averages and thresholds of the last interval: external, then
// local origin.
func (d *Detector[H]) Rates() (average, threshold [origins]float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for o, r := range d.rates {
		average[o], threshold[o] = r.average, r.threshold
	}
	return average, threshold
}

// Rate is a host's share of successes in the last interval: external, then local
// origin.
func (d *Detector[H]) Rate(h H) [origins]float64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if m := d.monitors[h]; m != nil {
		return m.rate
	}
	return [origins]float64{-1, -1}
}
