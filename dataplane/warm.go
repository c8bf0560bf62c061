package dataplane

import (
	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/clock"
	"github.com/sluice-proxy/sluice/dataplane/health"
	"github.com/sluice-proxy/sluice/dataplane/outlier"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// maxChecks bounds the active checks that run at once, by what they need of
// descriptors. The others wait; their time has not begun.
const maxChecks = 2048

func (p *Plane) watchHealth(o *Options) {
	p.warming = map[string]*health.Checker{}
	p.watch = upstream.Watch{
		Names:   p.names,
		Health:  health.Options{Stats: o.Stats, OpenLog: func(path string) (health.Log, error) { return p.files.Open(path) }, Runtime: o.Runtime, Clock: clock.System{}, Dialer: p.newCheckDialer, Slots: make(chan struct{}, maxChecks), Log: o.Log},
		Warmed:  p.takeWarmLocked,
		Outlier: outlier.Options{Stats: o.Stats, Runtime: o.Runtime, Clock: clock.System{}},
	}
}

// logOutliers opens the event log of outlier detection.
func (p *Plane) logOutliers(path string) error {
	if path == "" {
		return nil
	}
	log, err := p.files.Open(path)
	if err != nil {
		return err
	}
	p.watch.Outlier.Log = log
	return nil
}

// OnWarm says who is told, on any goroutine, that the hosts of a cluster of
// Snapshot.Warming have been checked.
func (p *Plane) OnWarm(f func(*api.Cluster)) { p.warmed.Store(&f) }

// warmLocked checks the hosts of clusters that are not in force yet.
func (p *Plane) warmLocked(s *api.Snapshot) {
	s.Warming.Changes(p.wanted.Warming, func(was, c *api.Cluster) {
		if c == nil {
			if k := p.warming[was.Name]; k != nil {
				k.Close()
				delete(p.warming, was.Name)
			}
			return
		}
		k := p.warming[c.Name]
		if k != nil && k.Fits(c) {
			k.Update(c)
			return
		}
		if k != nil {
			k.Close()
		}
		p.warming[c.Name] = health.New(c, p.watch.Health, func() {
			if f := p.warmed.Load(); f != nil {
				(*f)(c)
			}
		})
	})
}

// takeWarmLocked hands over the checker that c has warmed up with.
func (p *Plane) takeWarmLocked(c *api.Cluster) *health.Checker {
	k := p.warming[c.Name]
	if k == nil || !k.Fits(c) {
		return nil
	}
	delete(p.warming, c.Name)
	return k
}
