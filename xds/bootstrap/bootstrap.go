// Package bootstrap reads Envoy's bootstrap file, strictly: what it cannot carry
// out is refused with the path of the field.
package bootstrap

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/xds/resource"
	"github.com/sluice-proxy/sluice/xds/transport"
)

// Options say where the bootstrap is, as Envoy's flags of the same names do.
type Options struct {
	// Path is --config-path; empty if only YAML is given. It is read once.
	Path string
	// YAML is --config-yaml, merged over Path's content: scalars and messages
	// replace or merge, lists append (protobuf's MergeFrom, as Envoy has it).
	YAML string
	// AllowUnknownStatic is --allow-unknown-static-fields: unknown fields are
	// dropped and counted instead of refused.
	AllowUnknownStatic bool
	// ServiceNode, ServiceCluster and ServiceZone override the node if not empty.
	ServiceNode, ServiceCluster, ServiceZone string
	// BuildVersion is sent to the control plane as major.minor.patch; empty is 0.0.0.
	BuildVersion string
}

// Config is a bootstrap that can be carried out.
type Config struct {
	// Proto is the whole file for /config_dump.
	Proto *bootstrapv3.Bootstrap
	// Node is what the control plane is told.
	Node *corev3.Node
	// Admin is where the admin server listens, nil for none.
	Admin *Admin

	Listeners []StaticListener
	Clusters  []StaticCluster
	Secrets   []StaticSecret
	// Reserved are the static clusters that ask for what traffic cannot have yet:
	// they may be ControlPlanes, or what Envoy's helpers use (Envoy Gateway's
	// local_cluster). No static listener names any; a connection that a later
	// listener sends there ends as it does without that cluster. The owner of the
	// log warns once for all.
	Reserved []Idle
	// DNSCaches are those that static resources use, by name.
	DNSCaches api.DNSCaches

	// Resolver resolves the names of clusters that ask for no other; nil for the
	// default.
	Resolver *api.Resolver

	// Bind is for clusters that have no upstream_bind_config; nil for none.
	Bind *api.BindConfig

	// LDS and CDS are nil if the file does not ask for them.
	LDS, CDS *Source
	// ADS is nil if the file has no ads_config.
	ADS *ADS
	// LoadReports is where load is reported to; nil for nowhere.
	LoadReports *transport.Service
	// ControlPlanes are the static clusters that connections of Sluice's own can be
	// made to, by name.
	ControlPlanes map[string]*transport.Cluster

	// StatsSinks are those of stats_sinks that have an effect.
	StatsSinks []StatsSink

	// Overload is overload_manager; nil if the file has none.
	Overload *api.Overload

	// Runtime is layered_runtime; it has no layers if the file has none. Those of a
	// control plane (RTDS) and of directories (Disks) change.
	Runtime *runtime.Runtime
	RTDS    []RuntimeLayer
	Disks   []DiskLayer

	// Unbuilt are the paths of fields of the file outside of listeners and
	// clusters that are accepted without effect.
	Unbuilt []string
	// Unknown counts the fields that AllowUnknownStatic let pass (Envoy:
	// server.static_unknown_fields).
	Unknown int

	unfit map[string]error // why a static cluster is not among ControlPlanes
}

// StaticListener is a listener of static_resources.
type StaticListener struct {
	Value *api.Listener
	Any   *anypb.Any
	Notes resource.Notes
}

// StaticSecret is a secret of static_resources. Value is nil if it is no good, and
// Err says why; it does no harm unless somebody uses it, as in Envoy.
type StaticSecret struct {
	Name  string
	Value *api.Secret
	Any   *anypb.Any
	Err   error
}

// StaticCluster is a cluster of static_resources.
type StaticCluster struct {
	Value *api.Cluster
	Any   *anypb.Any
	Notes resource.Notes
}

// Idle is a static resource that no traffic goes through.
type Idle struct {
	Name string
	Any  *anypb.Any
	Why  error
}

// Source is where a kind of resource comes from. Service is set if it is gRPC.
type Source struct {
	api.ConfigSource
	Service transport.Service
}

// ADS is the aggregated stream.
type ADS struct {
	// Delta says DELTA_GRPC, else GRPC (state of the world).
	Delta bool
	// Service is where the stream goes to.
	Service transport.Service
	// SetNodeOnFirstMessageOnly is set_node_on_first_message_only.
	SetNodeOnFirstMessageOnly bool
	// MaxTokens and FillRate are rate_limit_settings, 0 without.
	MaxTokens uint32
	FillRate  float64
}

// Load reads, merges, checks and decodes the bootstrap. Its errors are one line:
// `FILE: field.path: cause (value)`.
func Load(o Options) (*Config, error) { return load(o, os.ReadFile) }

func load(o Options, open func(string) ([]byte, error)) (*Config, error) {
	p, unknown, err := read(o, open)
	if err != nil {
		return nil, err
	}
	c := &Config{Proto: p, Unknown: unknown}
	if err := c.decode(o); err != nil {
		from := o.Path
		if from == "" {
			from = flagYAML
		}
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	return c, nil
}

// decode fills c from c.Proto.
func (c *Config) decode(o Options) error {
	// The static resources first: their errors name them.
	if err := c.static(o); err != nil {
		return err
	}
	if err := resource.Constraint(c.Proto); err != nil {
		return err
	}
	var err error
	if c.Resolver, err = resource.DNSResolver(c.Proto.GetTypedDnsResolverConfig(), c.Proto.GetDnsResolutionConfig(), c.Proto.GetUseTcpForDnsLookups()); err != nil {
		return err
	}
	if c.Bind, err = resource.Bind("cluster_manager.upstream_bind_config", c.Proto.GetClusterManager().GetUpstreamBindConfig()); err != nil {
		return err
	}
	n, err := resource.Unknown(c.Proto)
	if err == nil {
		err = tolerate(n, o)
	}
	if err != nil {
		return err
	}
	c.Unknown += n
	unbuilt, err := resource.Walk("", c.Proto)
	c.Unbuilt = unbuilt
	if err != nil {
		return err
	}
	c.node(o)
	if err := c.refusals(); err != nil {
		return err
	}
	if err := c.sinks(); err != nil {
		return err
	}
	if err := c.runtime(); err != nil {
		return err
	}
	if err := c.overload(); err != nil {
		return fmt.Errorf("overload_manager: %w", err)
	}
	if err := c.admin(); err != nil {
		return err
	}
	if err := c.dynamic(); err != nil {
		return err
	}
	return c.rtds()
}

// tolerate refuses unknown fields that have no name: in a binary file, and in a
// TypedStruct.
func tolerate(messages int, o Options) error {
	if messages == 0 || o.AllowUnknownStatic {
		return nil
	}
	return fmt.Errorf("unknown fields in %d of the messages", messages)
}

// Admin is an address, or a unix socket if Path is set.
type Admin struct {
	Addr netip.AddrPort
	// Path is relative to the working directory unless it begins with a slash; one
	// that begins with @ is in the abstract namespace.
	Path string
	// Mode is the socket's; 0 leaves it to the umask.
	Mode fs.FileMode
}

func (c *Config) admin() error {
	a := c.Proto.GetAdmin().GetAddress()
	if a == nil {
		return nil
	}
	if p := a.GetPipe(); p != nil {
		if strings.HasPrefix(p.GetPath(), "@") && p.GetMode() != 0 {
			return fmt.Errorf("admin.address.pipe.mode: Cannot set mode for Abstract AF_UNIX sockets (%#o)", p.GetMode())
		}
		if len(p.GetPath()) > maxPath {
			return fmt.Errorf("admin.address.pipe.path: exceeds maximum UNIX domain socket path size of %d. (%s)", maxPath, resource.Short(p.GetPath()))
		}
		c.Admin = &Admin{Path: p.GetPath(), Mode: fs.FileMode(p.GetMode())}
		return nil
	}
	addr, _, err := resource.Addr("admin.address", a)
	if err != nil {
		return err
	}
	c.Admin = &Admin{Addr: addr}
	return nil
}

// maxPath is what sockaddr_un takes, with its final zero.
const maxPath = 107
