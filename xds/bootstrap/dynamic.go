package bootstrap

import (
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/xds/resource"
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
		return nil, fmt.Errorf("%s: Missing config source specifier in envoy.config.core.v3.ConfigSource", path)
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
	g := p.GetGrpcServices()[0]
	a := &ADS{
		// The only other type that is let through is GRPC.
		Delta:                     p.GetApiType() == corev3.ApiConfigSource_DELTA_GRPC,
		Cluster:                   g.GetEnvoyGrpc().GetClusterName(),
		Authority:                 g.GetEnvoyGrpc().GetAuthority(),
		SetNodeOnFirstMessageOnly: p.GetSetNodeOnFirstMessageOnly(),
	}
	for _, h := range g.GetInitialMetadata() {
		v := h.GetValue()
		if v == "" {
			v = string(h.GetRawValue())
		}
		a.InitialMetadata = append(a.InitialMetadata, [2]string{h.GetKey(), v})
	}
	if a.Authority == "" {
		a.Authority = a.Cluster
	}
	path += "[0].envoy_grpc.cluster_name"
	for i, s := range c.Clusters {
		if s.Value.Name != a.Cluster {
			continue
		}
		if s.Value.Discovery != api.Static {
			return nil, fmt.Errorf("%s: Unknown gRPC client cluster '%s': %s is not STATIC", path, a.Cluster, place("clusters", i, a.Cluster))
		}
		for _, l := range s.Value.Assignment.Localities {
			for _, e := range l.Endpoints {
				a.Endpoints = append(a.Endpoints, e.Addr)
			}
		}
		if len(a.Endpoints) == 0 {
			return nil, fmt.Errorf("%s: %s has no endpoints", path, place("clusters", i, a.Cluster))
		}
		if c.Node.GetId() == "" || c.Node.GetCluster() == "" {
			return nil, errNode
		}
		a.ConnectTimeout = s.Value.ConnectTimeout
		return a, nil
	}
	return nil, fmt.Errorf("%s: Unknown gRPC client cluster '%s'", path, resource.Short(a.Cluster))
}
