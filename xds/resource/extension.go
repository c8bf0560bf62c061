package resource

import (
	"errors"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
)

func extensionPolicies() policies {
	return policies{
		"envoy.config.core.v3.ExtensionConfigSource": policy{}.
			fields(inside, "config_source").
			fields(built, "default_config", "apply_default_config_without_warming", "type_urls"),
	}
}

// Extension decodes an envoy.config.core.v3.TypedExtensionConfig that holds the
// configuration of a network filter or a listener filter. Who wants it says which types may come.
func Extension(a *anypb.Any) (name string, e *api.Extension, n Notes, err error) {
	var p corev3.TypedExtensionConfig
	n, err = decode(a, &p)
	name = p.GetName()
	if err != nil {
		return name, nil, n, err
	}
	w := walker{policies: table()}
	e = w.extension("typed_config", p.GetTypedConfig())
	n.Unbuilt = w.unbuilt
	if err := w.err(); err != nil {
		return name, nil, n, err
	}
	return name, e, n, nil
}

func (w *walker) extension(path string, a *anypb.Any) *api.Extension {
	m, kind, _, err := open(a)
	e := &api.Extension{Type: kind}
	built, known := networkFilters()[kind]
	listener := listenerFilterDecoders()[kind]
	switch {
	case err != nil:
		w.fail(path, err)
	case listener != nil:
		one := listener(w, anyPath(path, kind), m)
		e.Listener = &one
	case known:
		e.Terminal, e.Filter = built.terminal, built.decode(w, anyPath(path, kind), m)
	case noEffect(kind):
		w.unbuilt = append(w.unbuilt, anyPath(path, kind))
		e.Empty = true
	default:
		cause := unregistered("", a)
		if cause == "" {
			cause = "not supported yet (" + kind + ")"
		}
		w.fail(anyPath(path, kind), errors.New(cause))
	}
	return e
}

// discovered reads a filter whose configuration comes by itself; its fields were
// walked.
func (w *walker) discovered(path string, f *listenerv3.Filter, last bool) api.Filter {
	path += ".config_discovery"
	p := f.GetConfigDiscovery()
	d := &api.FilterDiscovery{WithoutWarming: p.GetApplyDefaultConfigWithoutWarming(), Terminal: last}
	known := networkFilters()
	w.discoverySource(path, p, d, func(kind string) bool { _, ok := known[kind]; return ok || noEffect(kind) })
	switch {
	case p.GetDefaultConfig() != nil:
		e := w.extension(path+".default_config", p.GetDefaultConfig())
		if cause := d.Fits(f.GetName(), e); cause != nil && len(w.errs) == 0 {
			w.fail(path+".default_config", cause)
		}
		if !e.Empty {
			e.Filter.Name = f.GetName()
		}
		d.Default = &e.Filter
	case d.WithoutWarming:
		w.fail(path, fmt.Errorf("Error: filter config %s applied without warming but has no default config.", short(f.GetName())))
	}
	return api.Filter{Name: f.GetName(), Discovery: d}
}

// discoverySource reads where a filter's configuration comes from, and of which types
// it may be.
func (w *walker) discoverySource(path string, p *corev3.ExtensionConfigSource, d *api.FilterDiscovery, known func(string) bool) {
	src, err := Source(path+".config_source", p.GetConfigSource())
	if err != nil {
		w.fail("", err)
	}
	d.Source, d.Timeout = src, src.InitialFetchTimeout
	for i, url := range p.GetTypeUrls() {
		kind := url[strings.LastIndexByte(url, '/')+1:]
		if !known(kind) {
			w.fail(fmt.Sprintf("%s.type_urls[%d]", path, i), fmt.Errorf("Error: no factory found for a required type URL %s.", short(kind)))
		}
		d.TypeURLs = append(d.TypeURLs, kind)
	}
}

// discoveredListener is discovered for a listener filter.
func (w *walker) discoveredListener(path string, f *listenerv3.ListenerFilter) api.ListenerFilter {
	path += ".config_discovery"
	p := f.GetConfigDiscovery()
	d := &api.FilterDiscovery{WithoutWarming: p.GetApplyDefaultConfigWithoutWarming(), Listener: true}
	known := listenerFilterDecoders()
	w.discoverySource(path, p, d, func(kind string) bool { return known[kind] != nil })
	switch {
	case p.GetDefaultConfig() != nil:
		e := w.extension(path+".default_config", p.GetDefaultConfig())
		if cause := d.Fits(f.GetName(), e); cause != nil && len(w.errs) == 0 {
			w.fail(path+".default_config", cause)
		}
		d.DefaultListener = e.Listener
	case d.WithoutWarming:
		w.fail(path, fmt.Errorf("Error: filter config %s applied without warming but has no default config.", short(f.GetName())))
	}
	return api.ListenerFilter{Name: f.GetName(), Discovery: d}
}
