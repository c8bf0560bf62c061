package bootstrap

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/xds/file"
	"github.com/sluice-proxy/sluice/xds/resource"
	"github.com/sluice-proxy/sluice/xds/transport"
)

// static decodes static_resources by the decoders of the dynamic ones.
func (c *Config) static(o Options) error {
	clusters, routed := map[string]bool{}, routed(c.Proto.GetStaticResources().GetListeners())
	secrets := map[string]*tlsv3.Secret{}
	for i, s := range c.Proto.GetStaticResources().GetSecrets() {
		if err := resource.Constraint(s); err != nil {
			return fmt.Errorf("%s: %w", place("secrets", i, s.GetName()), err)
		}
		if err := c.secret(s, secrets); err != nil {
			return fmt.Errorf("%s: %w", place("secrets", i, s.GetName()), err)
		}
	}
	c.DNSCaches = api.DNSCaches{}
	c.ControlPlanes, c.unfit = map[string]*transport.Cluster{}, map[string]error{}
	for i, p := range c.Proto.GetStaticResources().GetClusters() {
		place := place("clusters", i, p.GetName())
		a, err := anypb.New(p)
		if err != nil {
			return fmt.Errorf("%s: %w", place, file.OneLine(err))
		}
		name, v, notes, err := resource.Cluster(a)
		if clusters[name] {
			return fmt.Errorf("%s: cluster manager: duplicate cluster '%s'", place, name)
		}
		clusters[name] = true
		if err == nil {
			err = tolerate(notes.Unknown, o)
		}
		if errors.Is(err, resource.ErrConstraint) {
			return fmt.Errorf("%s: %w", place, err)
		}
		if plane, planeErr := transport.Read(p, secrets); planeErr == nil {
			c.ControlPlanes[name] = plane
		} else {
			c.unfit[name] = planeErr
		}
		if err != nil {
			if routed[name] || notes.Unknown > 0 {
				return fmt.Errorf("%s: %w", place, err)
			}
			c.Reserved = append(c.Reserved, Idle{Name: name, Any: a, Why: err})
			continue
		}
		if err := c.DNSCaches.AdmitAll(v.DNSCaches()); err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
		v.Static = true
		c.Clusters = append(c.Clusters, StaticCluster{Value: v, Any: a, Notes: notes})
	}
	if local := c.Proto.GetClusterManager().GetLocalClusterName(); local != "" && !clusters[local] {
		return fmt.Errorf("cluster_manager.local_cluster_name: local cluster '%s' must be defined", local)
	}
	b := binder{names: map[string]bool{}, addrs: map[string]bool{}}
	for i, p := range c.Proto.GetStaticResources().GetListeners() {
		place := place("listeners", i, p.GetName())
		a, err := anypb.New(p)
		if err != nil {
			return fmt.Errorf("%s: %w", place, file.OneLine(err))
		}
		_, v, notes, err := resource.Listener(a)
		if err == nil {
			err = tolerate(notes.Unknown, o)
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
		if err := c.DNSCaches.AdmitAll(v.DNSCaches()); err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
		v.Static = true
		c.Listeners = append(c.Listeners, StaticListener{Value: v, Any: a, Notes: notes})
	}
	return nil
}

// secret adds one to secrets and to c.
func (c *Config) secret(p *tlsv3.Secret, secrets map[string]*tlsv3.Secret) error {
	a, err := anypb.New(p)
	if err != nil {
		return file.OneLine(err)
	}
	if p.GetType() == nil {
		return errors.New("type: Secret type not implemented")
	}
	if old := secrets[p.GetName()]; old != nil && reflect.TypeOf(old.GetType()) == reflect.TypeOf(p.GetType()) {
		return fmt.Errorf("name: Duplicate static %s secret name %s", kindOf(p), resource.Short(p.GetName()))
	}
	secrets[p.GetName()] = p
	_, v, _, err := resource.Secret(a)
	c.Secrets = append(c.Secrets, StaticSecret{Name: p.GetName(), Value: v, Any: a, Err: err})
	return nil
}

// kindOf is Envoy's word for what a secret holds.
func kindOf(p *tlsv3.Secret) string {
	switch p.GetType().(type) {
	case *tlsv3.Secret_ValidationContext:
		return "CertificateValidationContext"
	case *tlsv3.Secret_SessionTicketKeys:
		return "TlsSessionTicketKeys"
	case *tlsv3.Secret_GenericSecret:
		return "GenericSecret"
	}
	return "TlsCertificate"
}

// routed are the clusters that listeners send connections to.
func routed(listeners []*listenerv3.Listener) map[string]bool {
	out := map[string]bool{}
	for _, l := range listeners {
		for _, c := range append(slices.Clip(l.GetFilterChains()), l.GetDefaultFilterChain()) {
			for _, f := range c.GetFilters() {
				t := &tcpproxyv3.TcpProxy{}
				if f.GetTypedConfig().UnmarshalTo(t) != nil {
					continue
				}
				out[t.GetCluster()] = true
				for _, w := range t.GetWeightedClusters().GetClusters() {
					out[w.GetName()] = true
				}
			}
		}
	}
	return out
}

func place(kind string, i int, name string) string {
	return fmt.Sprintf("static_resources.%s[%d] (%s)", kind, i, resource.Short(name))
}

// binder knows the names and addresses that are taken.
type binder struct {
	names map[string]bool
	addrs map[string]bool
}

// free makes the name of a nameless listener unique.
func (b *binder) free(name string) string {
	try := name
	for n := 2; b.names[try]; n++ {
		try = fmt.Sprintf("%s#%d", name, n)
	}
	return try
}

// take refuses a name or an address that is taken. Port 0 is not, as the
// kernel chooses, unless nothing is bound. Envoy lets the second of two static listeners of one name replace the
// first without a word; that is refused here.
func (b *binder) take(l *api.Listener) error {
	if b.names[l.Name] {
		return fmt.Errorf("name: duplicate listener (%q)", l.Name)
	}
	b.names[l.Name] = true
	all := make([]string, 0, len(l.Addresses))
	for _, a := range l.Addresses {
		all = append(all, a.String())
	}
	for _, a := range l.Addresses {
		if b.addrs[a.String()] {
			return fmt.Errorf("address: error adding listener: '%s' has duplicate address '%s' as existing listener, "+
				"to check if the listener has duplicated addresses with other listeners or 'enable_reuse_port' is set to 'false' for the listener",
				l.Name, strings.Join(all, ","))
		}
	}
	for _, a := range l.Addresses {
		if a.Path != "" || a.Addr.Port() != 0 || l.HandedOnly {
			b.addrs[a.String()] = true
		}
	}
	return nil
}
