package bootstrap

import (
	"errors"
	"fmt"

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
	if c.LDS, err = c.source("dynamic_resources.lds_config", d.GetLdsConfig()); err != nil {
		return err
	}
	if c.CDS, err = c.source("dynamic_resources.cds_config", d.GetCdsConfig()); err != nil {
		return err
	}
	for i, s := range c.Clusters {
		if s.Value.Discovery == api.EDS && c.ADS == nil {
			return fmt.Errorf("%s: eds_cluster_config.eds_config: %w", place("clusters", i, s.Value.Name), errNoADS)
		}
	}
	return nil
}

var errNoADS = errors.New("dynamic_resources.ads_config is not set")

func (c *Config) source(path string, p *corev3.ConfigSource) (*Source, error) {
	if p == nil {
		return nil, nil
	}
	switch p.GetConfigSourceSpecifier().(type) {
	case *corev3.ConfigSource_Ads:
	case nil:
		return nil, fmt.Errorf("%s: Missing config source specifier in envoy::config::core::v3::ConfigSource", path)
	default: // self: there is nothing above the bootstrap
		return nil, fmt.Errorf("%s.self: not supported yet", path)
	}
	if c.ADS == nil {
		return nil, fmt.Errorf("%s.ads: %w", path, errNoADS)
	}
	wait, err := resource.Duration(path+".initial_fetch_timeout", p.GetInitialFetchTimeout(), api.DefaultInitialFetchTimeout)
	if err != nil {
		return nil, err
	}
	return &Source{ADS: true, InitialFetchTimeout: wait}, nil
}

func (c *Config) ads(path string, p *corev3.ApiConfigSource) (*ADS, error) {
	path += ".grpc_services"
	switch n := len(p.GetGrpcServices()); {
	case n == 0:
		return nil, fmt.Errorf("%s: API configs must have either a gRPC service or a cluster name defined", path)
	case n > 1:
		return nil, fmt.Errorf("%s: envoy.config.core.v3.ApiConfigSource::(AGGREGATED_)(DELTA_)GRPC must have no more than 1 gRPC services specified (%d)", path, n)
	}
	service, err := c.service(path+"[0]", p.GetGrpcServices()[0])
	if err != nil {
		return nil, err
	}
	if c.Node.GetId() == "" || c.Node.GetCluster() == "" {
		return nil, errNode
	}
	return &ADS{
		// The only other type that is let through is GRPC.
		Delta:                     p.GetApiType() == corev3.ApiConfigSource_DELTA_GRPC,
		Service:                   service,
		SetNodeOnFirstMessageOnly: p.GetSetNodeOnFirstMessageOnly(),
	}, nil
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
	path += ".envoy_grpc.cluster_name"
	for i, p := range c.Proto.GetStaticResources().GetClusters() {
		if p.GetName() == s.Cluster {
			return s, fmt.Errorf("%s: Unknown gRPC client cluster '%s': %s.%w", path, s.Cluster, place("clusters", i, s.Cluster), c.unfit[s.Cluster])
		}
	}
	return s, fmt.Errorf("%s: Unknown gRPC client cluster '%s'", path, resource.Short(s.Cluster))
}
