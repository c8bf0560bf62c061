package bootstrap

import (
	"errors"
	"fmt"
	"os"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/xds/resource"
	"github.com/sluice-proxy/sluice/xds/transport"
)

// errNode is Envoy's.
var errNode = errors.New("node: ads: node 'id' and 'cluster' are required. Set it either in 'node' config or via --service-node and --service-cluster options.")

// dynamic reads dynamic_resources, which resource.Walk has been through.
func (c *Config) dynamic() (err error) {
	d := c.Proto.GetDynamicResources()
	if a := d.GetAdsConfig(); a != nil {
		if c.ADS, err = c.ads("dynamic_resources.ads_config", a); err != nil {
			return err
		}
	}
	if c.LoadReports, err = c.loadReports(c.Proto.GetClusterManager().GetLoadStatsConfig()); err != nil {
		return err
	}
	if c.LDS, err = c.source("dynamic_resources.lds_config", d.GetLdsConfig()); err != nil {
		return err
	}
	if c.CDS, err = c.source("dynamic_resources.cds_config", d.GetCdsConfig()); err != nil {
		return err
	}
	for i, s := range c.Clusters {
		if s.Value.Discovery != api.EDS {
			continue
		}
		path := place("clusters", i, s.Value.Name) + ": eds_cluster_config.eds_config"
		if err := c.reachable(path, s.Value.Source); err != nil {
			return err
		}
	}
	return nil
}

var errNoADS = errors.New("dynamic_resources.ads_config is not set")

func (c *Config) source(path string, p *corev3.ConfigSource) (*Source, error) {
	if p == nil {
		return nil, nil
	}
	src, err := resource.Source(path, p)
	if err != nil {
		return nil, err
	}
	s := &Source{ConfigSource: src}
	switch src.Kind {
	case api.FromSelf: // there is nothing above the bootstrap
		return nil, fmt.Errorf("%s.self: not supported yet", path)
	case api.FromGRPC:
		s.Service, err = c.service(path+".api_config_source.grpc_services[0]", p.GetApiConfigSource().GetGrpcServices()[0])
		if err == nil && (c.Node.GetId() == "" || c.Node.GetCluster() == "") {
			err = errNode
		}
	default:
		if src.Kind == api.FromADS {
			path += ".ads"
		}
		err = c.reachable(path, src)
	}
	return s, err
}

// reachable refuses a source that has nobody to ask.
func (c *Config) reachable(path string, s api.ConfigSource) error {
	switch s.Kind {
	case api.FromADS, api.FromSelf:
		if c.ADS == nil {
			return fmt.Errorf("%s: %w", path, errNoADS)
		}
	case api.FromPath:
		if _, err := os.Stat(s.Path); err != nil { // Envoy's words
			return fmt.Errorf("%s.path_config_source.path: paths must refer to an existing path in the system: '%s' does not exist", path, resource.Short(s.Path))
		}
	case api.FromGRPC, api.FromREST:
		if c.ControlPlanes[s.Cluster] == nil {
			return fmt.Errorf("%s.api_config_source: %w", path, c.unknownCluster(s.Cluster))
		}
	}
	return nil
}

func (c *Config) unknownCluster(name string) error {
	for i, p := range c.Proto.GetStaticResources().GetClusters() {
		if p.GetName() == name {
			return fmt.Errorf("Unknown gRPC client cluster '%s': %s.%w", name, place("clusters", i, name), c.unfit[name])
		}
	}
	return fmt.Errorf("Unknown gRPC client cluster '%s'", resource.Short(name))
}

func (c *Config) ads(path string, p *corev3.ApiConfigSource) (*ADS, error) {
	if p.GetApiType() == corev3.ApiConfigSource_REST {
		return nil, fmt.Errorf("%s.api_type: there is no aggregated REST (REST)", path)
	}
	src, err := resource.API(path, p)
	if err != nil {
		return nil, err
	}
	service, err := c.service(path+".grpc_services[0]", p.GetGrpcServices()[0])
	if err != nil {
		return nil, err
	}
	if c.Node.GetId() == "" || c.Node.GetCluster() == "" {
		return nil, errNode
	}
	return &ADS{Delta: src.Delta, Service: service, SetNodeOnFirstMessageOnly: src.NodeOnce, MaxTokens: src.MaxTokens, FillRate: src.FillRate}, nil
}

// loadReports reads load_stats_config.
func (c *Config) loadReports(p *corev3.ApiConfigSource) (*transport.Service, error) {
	const path = "cluster_manager.load_stats_config"
	if p == nil {
		return nil, nil
	}
	if p.GetApiType() == corev3.ApiConfigSource_REST {
		return nil, fmt.Errorf("%s.api_type: envoy.config.core.v3.ApiConfigSource type must be of non-aggregated gRPC (REST)", path)
	}
	if _, err := resource.API(path, p); err != nil {
		return nil, err
	}
	s, err := c.service(path+".grpc_services[0]", p.GetGrpcServices()[0])
	return &s, err
}

// service reads where a gRPC service is, which must be a place that can be
// connected to.
func (c *Config) service(path string, g *corev3.GrpcService) (transport.Service, error) {
	s := transport.Service{Cluster: g.GetEnvoyGrpc().GetClusterName(), Authority: g.GetEnvoyGrpc().GetAuthority()}
	if p := g.GetGoogleGrpc(); p != nil {
		own, service, err := transport.ReadGoogle(p)
		if err != nil {
			return s, fmt.Errorf("%s.google_grpc.%w", path, err)
		}
		s = service
		s.Cluster = path + ".google_grpc" // no cluster of the file is called so
		c.ControlPlanes[s.Cluster] = own
	}
	for _, h := range g.GetInitialMetadata() {
		v := h.GetValue()
		if v == "" {
			v = string(h.GetRawValue())
		}
		s.Metadata = append(s.Metadata, [2]string{h.GetKey(), v})
	}
	if s.Authority == "" {
		s.Authority = s.Cluster // as Envoy has it
	}
	if c.ControlPlanes[s.Cluster] != nil {
		return s, nil
	}
	return s, fmt.Errorf("%s.envoy_grpc.cluster_name: %w", path, c.unknownCluster(s.Cluster))
}
