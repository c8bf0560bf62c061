package xds

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/xds/ads"
	"github.com/sluice-proxy/sluice/xds/assemble"
	"github.com/sluice-proxy/sluice/xds/bootstrap"
	"github.com/sluice-proxy/sluice/xds/file"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// layers are the layers of the runtime that a control plane fills, or a directory.
// As in Envoy nothing else is asked for before the former were answered, or did not
// come in time; they share their figures.
type layers struct {
	all     []*layer
	figures *subscription
	// moves is told which directory something was moved into.
	moves chan string
	watch *file.Watcher
}

type layer struct {
	bootstrap.RuntimeLayer
	from ads.Source
	done bool // answered, or given up
}

// openLayers makes the sources that the bootstrap names.
func (c *Client) openLayers() error {
	for _, l := range c.o.Bootstrap.RTDS {
		s, err := c.source(l.Source.ConfigSource, l.Source.Service, runtimeURL, "runtime", "control_plane")
		if err != nil {
			return fmt.Errorf("layered_runtime: layer %s: %w", l.Layer, err)
		}
		c.layers.all = append(c.layers.all, &layer{RuntimeLayer: l, from: s})
	}
	if len(c.layers.all) > 0 {
		c.layers.figures = newSubscription(c.o.Stats.Scope("runtime"))
		c.layers.figures.file = isFile(c.layers.all[0].from)
	}
	return nil
}

func (l *layers) sources() []ads.Source {
	var out []ads.Source
	for _, one := range l.all {
		out = append(out, one.from)
	}
	return out
}

// layersOf calls f for the layers that from fills.
func (c *Client) layersOf(from ads.Source, f func(*layer)) {
	for _, l := range c.layers.all {
		if l.from == from {
			f(l)
		}
	}
}

// wantLayers asks for all; false says that there are none.
func (c *Client) wantLayers() bool {
	names := map[ads.Source][]string{}
	for _, l := range c.layers.all {
		c.layers.figures.started()
		if names[l.from] = append(names[l.from], l.Resource); len(names[l.from]) == 1 {
			l.from.Subscribe(runtimeURL, names[l.from])
		}
		c.fetches.start(fetch{runtimeURL, l.Layer}, l.Source.InitialFetchTimeout)
	}
	return len(c.layers.all) > 0
}

// layersOpened asks for the rest: as in Envoy the first request names the first
// layer alone.
func (c *Client) layersOpened(from ads.Source) {
	var names []string
	c.layersOf(from, func(l *layer) {
		if names = append(names, l.Resource); len(names) > 1 {
			from.Subscribe(runtimeURL, names)
		}
	})
}

func (c *Client) takeLayers(r *ads.Response) {
	err := r.Err
	if err == nil {
		err = c.updateLayers(r)
	} else {
		c.layersOf(r.From, func(l *layer) {
			c.settleLayer(l)
			c.layers.figures.rejection()
		})
	}
	if err != nil {
		c.o.Log.Warn("runtime rejected", "version", r.Version, "nonce", r.Nonce, "err", err)
	}
	c.layersDone()
	c.answer(r, err)
}

// updateLayers gives each layer of the source what is for it.
func (c *Client) updateLayers(r *ads.Response) error {
	alone := isFile(r.From)
	var want []string
	c.layersOf(r.From, func(l *layer) { want = append(want, l.Resource) })
	never := func(string, *anypb.Any) bool { return false }
	u, notes, err := decode(r, resource.Runtime, never, func(name string) bool { return alone || slices.Contains(want, name) })
	c.figures.noted(notes, true)
	var problems []assemble.Problem
	c.layersOf(r.From, func(l *layer) {
		var mine []assemble.Resource[runtime.Layer]
		for _, one := range u.Resources {
			if one.Raw != nil && (alone || one.Name == l.Resource) {
				mine = append(mine, one)
			}
		}
		if !alone && len(mine) > 1 {
			mine = mine[:1] // of duplicates the first counts (state of the world)
		}
		gone := slices.Contains(r.Removed, l.Resource)
		if err == nil && !alone && len(mine) == 0 && !gone {
			return // it is of others
		}
		bad := err
		if bad == nil {
			bad = c.updateLayer(l, mine, gone)
		}
		c.settleLayer(l)
		if bad == nil {
			c.layers.figures.accepted(r.Version, time.Since(u.Now))
			return
		}
		c.layers.figures.rejection()
		if err == nil && r.Delta {
			c.layers.figures.attempt.Inc() // see count
		}
		problems = append(problems, assemble.Problem{Err: bad})
	})
	if err != nil || len(problems) == 0 {
		return err
	}
	return badResources(problems[0].Err.Error())
}

// updateLayer puts in force what a layer is given; its errors are Envoy's
// (runtime_impl.cc).
func (c *Client) updateLayer(l *layer, given []assemble.Resource[runtime.Layer], gone bool) error {
	switch {
	case gone:
		c.o.Bootstrap.Runtime.Replace(runtime.Layer{Name: l.Layer})
		return nil
	case len(given) != 1:
		return fmt.Errorf("Unexpected RTDS resource length, number of added resources %d, number of removed resources 0", len(given))
	case given[0].Name != l.Resource:
		return fmt.Errorf("Unexpected RTDS runtime (expecting %s): %s", resource.Short(l.Resource), resource.Short(given[0].Name))
	case given[0].Err != nil:
		return given[0].Err
	}
	now := *given[0].Value
	now.Name = l.Layer
	c.o.Bootstrap.Runtime.Replace(now)
	return nil
}

func (c *Client) settleLayer(l *layer) {
	l.done = true
	c.fetches.cancel(fetch{runtimeURL, l.Layer})
}

// layersDone goes on with the start once every layer was answered.
func (c *Client) layersDone() {
	waits := slices.ContainsFunc(c.layers.all, func(l *layer) bool { return !l.done })
	if !c.begun && !waits {
		c.beginResources()
	}
}

func (c *Client) layersLate(name string) {
	c.layers.figures.timedOut()
	c.o.Log.Warn("no layer of the runtime within initial_fetch_timeout", "layer", name)
	for _, l := range c.layers.all {
		l.done = l.done || l.Layer == name
	}
	c.layersDone()
}

// layersUnread gives up on the layer whose file could not be read.
func (c *Client) layersUnread(from ads.Source) bool {
	found := false
	c.layersOf(from, func(l *layer) {
		found = true
		c.layers.figures.disconnected()
		c.settleLayer(l)
	})
	if found {
		c.layersDone()
	}
	return found
}

// watchDisks watches for moves onto the links that lead to layers.
func (c *Client) watchDisks() {
	var dirs []string
	for _, d := range c.o.Bootstrap.Disks {
		dirs = append(dirs, d.Directory())
	}
	if len(dirs) == 0 {
		return
	}
	ctx := c.ctx
	w, err := file.Watch(func(dir string) {
		select {
		case c.layers.moves <- dir:
		case <-ctx.Done():
		}
	})
	if err != nil {
		c.o.Log.Error("watch layers of the runtime", "err", err)
		return
	}
	c.layers.watch = w
	if err := w.Set(dirs); err != nil {
		c.o.Log.Warn("watch layers of the runtime", "err", err)
	}
}

func (c *Client) readDisks(dir string) {
	for _, d := range c.o.Bootstrap.Disks {
		if d.Directory() == dir {
			c.o.Bootstrap.Runtime.Replace(d.Read())
		}
	}
}

func (l *layers) close() {
	if l.watch != nil {
		l.watch.Close()
	}
}
