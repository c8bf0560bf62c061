package bootstrap

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/xds/file"
	"github.com/sluice-proxy/sluice/xds/resource"
	"github.com/sluice-proxy/sluice/xds/transport"
)

// static decodes static_resources by the decoders of the dynamic ones.
func (c *Config) static(o Options) error {
	clusters := map[string]bool{}
	c.ControlPlanes, c.unfit = map[string]*transport.Cluster{}, map[string]error{}
	for i, p := range c.Proto.GetStaticResources().GetClusters() {
		place := place("clusters", i, p.GetName())
		a, err := anypb.New(p)
		if err != nil {
			return fmt.Errorf("%s: %w", place, file.OneLine(err))
		}
		name, v, notes, err := resource.Cluster(a)
		if err == nil {
			err = tolerate(notes.Unknown, o)
		}
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", place, err)
		case clusters[name]:
			return fmt.Errorf("%s: cluster manager: duplicate cluster '%s'", place, name)
		}
		clusters[name] = true
		if p, err := transport.Read(p); err != nil {
			c.unfit[name] = err
		} else {
			c.ControlPlanes[name] = p
		}
		v.Static = true
		c.Clusters = append(c.Clusters, StaticCluster{Value: v, Any: a, Notes: notes})
	}
	b := binder{names: map[string]bool{}, addrs: map[netip.AddrPort]bool{}}
	for i, p := range c.Proto.GetStaticResources().GetListeners() {
		place := place("listeners", i, p.GetName())
		a, err := anypb.New(p)
		if err != nil {
			return fmt.Errorf("%s: %w", place, file.OneLine(err))
		}
		name, v, notes, err := resource.Listener(a)
		if err == nil {
			err = tolerate(notes.Unknown, o)
		}
		if errors.Is(err, resource.ErrHTTP) {
			if name == "" {
				name = fmt.Sprintf("static_resources.listeners[%d]", i)
			}
			c.Skipped = append(c.Skipped, name)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
		if p.GetName() == "" {
			v.Name = b.free(v.Name)
		}
		if err := b.take(v); err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
		v.Static = true
		c.Listeners = append(c.Listeners, StaticListener{Value: v, Any: a, Notes: notes})
	}
	return nil
}

func place(kind string, i int, name string) string {
	return fmt.Sprintf("static_resources.%s[%d] (%s)", kind, i, resource.Short(name))
}

// binder knows the names and addresses that are taken.
type binder struct {
	names map[string]bool
	addrs map[netip.AddrPort]bool
}

// free makes the name of a nameless listener unique.
func (b *binder) free(name string) string {
	try := name
	for n := 2; b.names[try]; n++ {
		try = fmt.Sprintf("%s#%d", name, n)
	}
	return try
}

// take refuses a name or an address that is taken. Port 0 never is: the kernel
// chooses. Envoy lets the second of two static listeners of one name replace the
// first without a word; that is refused here.
func (b *binder) take(l *api.Listener) error {
	if b.names[l.Name] {
		return fmt.Errorf("name: duplicate listener (%q)", l.Name)
	}
	b.names[l.Name] = true
	all := make([]string, 0, len(l.Addresses))
	for _, a := range l.Addresses {
		all = append(all, a.Addr.String())
	}
	for _, a := range l.Addresses {
		if b.addrs[a.Addr] {
			return fmt.Errorf("address: error adding listener: '%s' has duplicate address '%s' as existing listener, "+
				"to check if the listener has duplicated addresses with other listeners or 'enable_reuse_port' is set to 'false' for the listener",
				l.Name, strings.Join(all, ","))
		}
	}
	for _, a := range l.Addresses {
		if a.Addr.Port() != 0 {
			b.addrs[a.Addr] = true
		}
	}
	return nil
}
