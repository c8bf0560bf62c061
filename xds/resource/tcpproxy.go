package resource

import (
	"errors"
	"fmt"
	"math"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/sluice-proxy/sluice/api"
)

// lbFilter is the filter name under which metadata_match is read.
const lbFilter = "envoy.lb"

func (w *walker) tcpProxy(path string, p *tcpproxyv3.TcpProxy) *api.TCPProxy {
	w.message(path, p.ProtoReflect())
	t := &api.TCPProxy{
		StatPrefix:         p.GetStatPrefix(),
		Cluster:            p.GetCluster(),
		MetadataMatch:      metadataMatch(p.GetMetadataMatch()),
		IdleTimeout:        w.duration(path+".idle_timeout", p.GetIdleTimeout(), api.DefaultIdleTimeout),
		MaxConnectAttempts: api.DefaultMaxConnectAttempts,
		AccessLogs:         w.accessLogs(path+".access_log", p.GetAccessLog()),
		LogOptions:         w.logOptions(path, p),
		MaxDuration:        w.duration(path+".max_downstream_connection_duration", p.GetMaxDownstreamConnectionDuration(), 0),
		MaxDurationJitter:  p.GetMaxDownstreamConnectionDurationJitterPercentage().GetValue(),
		MaxEarlyData:       p.GetMaxEarlyDataBytes().GetValue(),
		CheckDrainClose:    p.GetCheckDrainClose().GetValue(),
	}
	if n := p.GetMaxConnectAttempts(); n != nil {
		t.MaxConnectAttempts = n.GetValue()
	}
	switch p.GetUpstreamConnectMode() {
	case tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_DATA:
		t.ConnectMode = api.ConnectOnData
	case tcpproxyv3.UpstreamConnectMode_ON_DOWNSTREAM_TLS_HANDSHAKE:
		t.ConnectMode = api.ConnectOnTLSHandshake
	}
	if t.ConnectMode != api.ConnectImmediately && p.GetMaxEarlyDataBytes() == nil {
		w.fail(path, errors.New("max_early_data_bytes must be set when upstream_connect_mode is not IMMEDIATE"))
	}
	w.weightedClusters(path+".weighted_clusters", t, p.GetWeightedClusters())
	for _, h := range p.GetHashPolicy() {
		t.HashPolicy = append(t.HashPolicy, api.HashPolicy{SourceIP: h.GetSourceIp() != nil, FilterState: h.GetFilterState().GetKey()})
	}
	if b := p.GetBackoffOptions(); b != nil {
		t.Backoff = w.backoff(path+".backoff_options", b)
	}
	t.ProxyProtocolTLVs = w.tlvs(path+".proxy_protocol_tlvs", p.GetProxyProtocolTlvs())
	t.TLVMerge = api.TLVMerge(p.GetProxyProtocolTlvMergePolicy()) // the same numbers
	t.Tunnel = w.tunnel(path+".tunneling_config", p.GetTunnelingConfig())
	t.OnDemand = w.onDemand(path+".on_demand", p.GetOnDemand())
	return t
}

// onDemandTimeout is Envoy's default.
const onDemandTimeout = time.Minute

// onDemand has no effect without a source, as in Envoy. Envoy dies of the answer
// of a source that does not speak delta.
func (w *walker) onDemand(path string, o *tcpproxyv3.TcpProxy_OnDemand) *api.OnDemand {
	if o.GetOdcdsConfig() == nil {
		return nil
	}
	path += ".odcds_config"
	s, err := Source(path, o.GetOdcdsConfig())
	switch {
	case err != nil:
		w.fail(path, err)
	case s.Kind == api.FromGRPC && !s.Delta, s.Kind == api.FromREST:
		w.fail(path, errors.New("on-demand clusters come by DELTA_GRPC only"))
	}
	return &api.OnDemand{Source: s, Timeout: w.duration(path+".timeout", o.GetTimeout(), onDemandTimeout)}
}

func (w *walker) weightedClusters(path string, t *api.TCPProxy, in *tcpproxyv3.TcpProxy_WeightedCluster) {
	var sum uint64
	for _, c := range in.GetClusters() {
		sum += uint64(c.GetWeight())
		t.Clusters = append(t.Clusters, api.WeightedCluster{Name: c.GetName(), Weight: c.GetWeight(), MetadataMatch: merge(t.MetadataMatch, metadataMatch(c.GetMetadataMatch()))})
	}
	if sum > math.MaxUint32 {
		w.fail(path, fmt.Errorf("The sum of weights of all upstream clusters of route  exceeds %d", uint32(math.MaxUint32)))
	}
}

// metadataMatch is what subsets of hosts are chosen by: values as JSON has them.
func metadataMatch(m *corev3.Metadata) map[string]any {
	fields := m.GetFilterMetadata()[lbFilter]
	if fields == nil {
		return nil
	}
	return fields.AsMap()
}

// merge lays a cluster's criteria over the filter's.
func merge(under, over map[string]any) map[string]any {
	if over == nil {
		return under
	}
	out := map[string]any{}
	for k, v := range under {
		out[k] = v
	}
	for k, v := range over {
		out[k] = v
	}
	return out
}

// backoff reads a strategy; without a maximum it is ten times the base.
func (w *walker) backoff(path string, b *corev3.BackoffStrategy) *api.Backoff {
	out := &api.Backoff{Base: w.duration(path+".base_interval", b.GetBaseInterval(), time.Second)}
	out.Max = w.duration(path+".max_interval", b.GetMaxInterval(), 10*out.Base)
	if out.Max < out.Base {
		w.fail(path, errors.New("max_backoff_interval must be greater or equal to base_backoff_interval"))
	}
	return out
}

func (w *walker) logOptions(path string, p *tcpproxyv3.TcpProxy) api.LogOptions {
	o := p.GetAccessLogOptions()
	every, onConnected := p.GetAccessLogFlushInterval(), p.GetFlushAccessLogOnConnected()
	if o == nil {
		return api.LogOptions{OnConnected: onConnected, Interval: w.duration(path+".access_log_flush_interval", every, 0)}
	}
	if every != nil {
		w.fail(path, errors.New("Only one of access_log_flush_interval or access_log_options can be specified."))
	}
	if onConnected {
		w.fail(path, errors.New("Only one of flush_access_log_on_connected or access_log_options can be specified."))
	}
	return api.LogOptions{
		OnStart: o.GetFlushAccessLogOnStart(), OnConnected: o.GetFlushAccessLogOnConnected(),
		Interval: w.duration(path+".access_log_options.access_log_flush_interval", o.GetAccessLogFlushInterval(), 0),
	}
}
