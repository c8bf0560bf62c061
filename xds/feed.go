package xds

import (
	"context"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/xds/ads"
	"github.com/sluice-proxy/sluice/xds/transport"
)

// feed is what feeds one resource that is asked for by its name, a secret or a filter:
// the aggregated stream, or a source of its own.
type feed struct {
	*subscription
	scope *stats.Scope
	name  string
	from  ads.Source // nil if there is none
	own   bool
	stop  context.CancelFunc // of its own source, once it runs
}

// place finds the source. One of its own is asked for the name at once, and has its
// figures below path.
func (f *feed) place(c *Client, src api.ConfigSource, url string, path ...any) error {
	if src.Kind == api.FromADS || src.Kind == api.FromSelf {
		if c.ads != nil {
			f.from = c.ads
		}
		return nil
	}
	f.own = true
	s, err := c.source(src, transport.Service{}, url, path...)
	if err != nil {
		return err
	}
	f.from = s
	s.Subscribe(url, []string{f.name})
	if c.run != nil {
		f.stop = c.run(s)
	}
	return nil
}

// start lets a source run that was made before Run.
func (f *feed) start(c *Client) {
	if f.own && f.from != nil && f.stop == nil {
		f.stop = c.run(f.from)
	}
}

// drop ends the source, if it is the resource's own, and its figures.
func (f *feed) drop(c *Client) {
	if f.stop != nil {
		f.stop()
	}
	if f.own {
		delete(c.figures.planes, f.from)
	}
	f.scope.Release()
}

func (f *feed) isAlone(from ads.Source) bool { return f.own && f.from == from }

// alone is the one that from feeds alone, and its key; nil: there is none.
func alone[F interface{ isAlone(ads.Source) bool }](all map[string]F, from ads.Source) (key string, f F) {
	for key, f := range all {
		if f.isAlone(from) {
			return key, f
		}
	}
	return "", f
}
