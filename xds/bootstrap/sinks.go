package bootstrap

import (
	"fmt"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	graphitev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/stat_sinks/graphite_statsd/v3"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// StatsSink is one of stats_sinks that has an effect: figures for a statsd.
type StatsSink struct {
	// Addr or Path is where datagrams go, or Cluster a static cluster of streams.
	Addr    netip.AddrPort
	Path    string
	Cluster string
	Prefix  string
	// Dog and Graphite say how tags are written, if at all; Max bounds a datagram,
	// 0: one for each figure.
	Dog, Graphite bool
	Max           int
}

// defaultPrefix is Envoy's.
const defaultPrefix = "envoy"

func (c *Config) sinks() error {
	for _, p := range c.Proto.GetStatsSinks() {
		var s StatsSink
		var at *corev3.Address
		var err error
		m, err := resource.Unpack(p.GetTypedConfig())
		if err != nil {
			return fmt.Errorf("stats_sinks: %w", err)
		}
		switch m := m.(type) {
		case *metricsv3.StatsdSink:
			at, s.Cluster, s.Prefix = m.GetAddress(), m.GetTcpClusterName(), m.GetPrefix()
			if s.Cluster != "" && !c.hasCluster(s.Cluster) {
				return fmt.Errorf("tcp statsd: unknown cluster '%s'", s.Cluster)
			}
		case *metricsv3.DogStatsdSink:
			at, s.Prefix, s.Dog, s.Max = m.GetAddress(), m.GetPrefix(), true, int(m.GetMaxBytesPerDatagram().GetValue())
		case *graphitev3.GraphiteStatsdSink:
			at, s.Prefix, s.Graphite, s.Max = m.GetAddress(), m.GetPrefix(), true, int(m.GetMaxBytesPerDatagram().GetValue())
		case *metricsv3.MetricsServiceConfig:
			if n := m.GetGrpcService().GetEnvoyGrpc().GetClusterName(); n != "" && !c.hasCluster(n) {
				return fmt.Errorf("Unknown gRPC client cluster '%s'", n)
			}
			continue
		default:
			continue
		}
		if s.Prefix == "" {
			s.Prefix = defaultPrefix
		}
		if pipe := at.GetPipe(); pipe != nil {
			s.Path = pipe.GetPath()
		} else if s.Cluster == "" {
			host := at.GetSocketAddress().GetAddress()
			ip, err := netip.ParseAddr(host)
			if err != nil {
				return fmt.Errorf("malformed IP address: %s", resource.Short(host))
			}
			s.Addr = netip.AddrPortFrom(ip, uint16(at.GetSocketAddress().GetPortValue()))
		}
		c.StatsSinks = append(c.StatsSinks, s)
	}
	return nil
}

func (c *Config) hasCluster(name string) bool {
	for _, s := range c.Clusters {
		if s.Value.Name == name {
			return true
		}
	}
	return false
}
