package resource

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	sinkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/health_check/event_sinks/file/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/substitution"
)

// healthChecks decodes a cluster's active checks. One of a kind that is not
// built is noted: without it a connection to a bad host fails, as it would until
// the check had found out.
func (w *walker) healthChecks(c *api.Cluster, p *clusterv3.Cluster) {
	names := map[string]bool{}
	for i, hc := range p.GetHealthChecks() {
		at := fmt.Sprintf("health_checks[%d]", i)
		if len(p.GetHealthChecks()) > 1 {
			switch {
			case hc.GetName() == "":
				w.fail(at+".name", fmt.Errorf("health check at index %d is missing a name; all health checks must have a name when multiple health checks are configured", i))
			case names[hc.GetName()]:
				w.fail(at+".name", fmt.Errorf("duplicate health check name '%s'", short(hc.GetName())))
			}
			names[hc.GetName()] = true
		}
		v := api.HealthCheck{
			Name:                  hc.GetName(),
			Timeout:               w.duration(at+".timeout", hc.GetTimeout(), 0),
			Interval:              w.duration(at+".interval", hc.GetInterval(), 0),
			InitialJitter:         w.duration(at+".initial_jitter", hc.GetInitialJitter(), 0),
			IntervalJitter:        w.duration(at+".interval_jitter", hc.GetIntervalJitter(), 0),
			IntervalJitterPercent: hc.GetIntervalJitterPercent(),
			NoTrafficInterval:     w.duration(at+".no_traffic_interval", hc.GetNoTrafficInterval(), api.DefaultNoTrafficInterval),
			UnhealthyThreshold:    hc.GetUnhealthyThreshold().GetValue(),
			HealthyThreshold:      hc.GetHealthyThreshold().GetValue(),
			ReuseConnection:       hc.GetReuseConnection() == nil || hc.GetReuseConnection().GetValue(),
			AlwaysLogFailures:     hc.GetAlwaysLogHealthCheckFailures(),
			AlwaysLogSuccess:      hc.GetAlwaysLogHealthCheckSuccess(),
			ALPN:                  hc.GetTlsOptions().GetAlpnProtocols(),
		}
		v.NoTrafficHealthyInterval = w.duration(at+".no_traffic_healthy_interval", hc.GetNoTrafficHealthyInterval(), v.NoTrafficInterval)
		v.UnhealthyInterval = w.duration(at+".unhealthy_interval", hc.GetUnhealthyInterval(), v.Interval)
		v.UnhealthyEdgeInterval = w.duration(at+".unhealthy_edge_interval", hc.GetUnhealthyEdgeInterval(), v.UnhealthyInterval)
		v.HealthyEdgeInterval = w.duration(at+".healthy_edge_interval", hc.GetHealthyEdgeInterval(), v.Interval)
		if m := hc.GetTransportSocketMatchCriteria(); m != nil {
			v.SocketMatch = m.AsMap()
		}
		w.eventLogs(at, &v, hc)
		switch k := hc.GetHealthChecker().(type) {
		case *corev3.HealthCheck_TcpHealthCheck_:
			v.TCP = w.tcpCheck(at+".tcp_health_check", k.TcpHealthCheck)
		case *corev3.HealthCheck_HttpHealthCheck_:
			v.HTTP = w.httpCheck(at+".http_health_check", k.HttpHealthCheck)
			if v.HTTP == nil {
				continue
			}
		case *corev3.HealthCheck_GrpcHealthCheck_:
			if httpOptions(p).http2 == nil {
				w.fail(at+".grpc_health_check", fmt.Errorf("%s cluster must support HTTP/2 for gRPC healthchecking", short(p.GetName())))
			}
			v.GRPC = w.grpcCheck(at+".grpc_health_check", k.GrpcHealthCheck)
		case *corev3.HealthCheck_CustomHealthCheck_:
			if cause := unregistered(k.CustomHealthCheck.GetName(), k.CustomHealthCheck.GetTypedConfig()); cause != "" {
				w.fail(at+".custom_health_check", errors.New(cause))
			}
			w.unbuilt = append(w.unbuilt, at+".custom_health_check")
			continue
		}
		c.HealthChecks = append(c.HealthChecks, v)
	}
}

func (w *walker) eventLogs(at string, v *api.HealthCheck, hc *corev3.HealthCheck) {
	if path := hc.GetEventLogPath(); path != "" { //nolint:staticcheck // deprecated, and in use
		v.EventLogs = append(v.EventLogs, path)
	}
	for i, l := range hc.GetEventLogger() {
		at := fmt.Sprintf("%s.event_logger[%d]", at, i)
		m, name, _, err := open(l.GetTypedConfig())
		switch sink, ok := m.(*sinkv3.HealthCheckEventFileSink); {
		case err != nil:
			w.fail(at, err)
		case ok:
			v.EventLogs = append(v.EventLogs, sink.GetEventLogPath())
		default:
			if cause := unregistered(l.GetName(), l.GetTypedConfig()); cause != "" {
				w.fail(at, errors.New(cause))
				continue
			}
			w.unbuilt = append(w.unbuilt, anyPath(at, name))
		}
	}
}

func (w *walker) tcpCheck(at string, p *corev3.HealthCheck_TcpHealthCheck) *api.TCPCheck {
	v := &api.TCPCheck{Receive: w.payloads(at+".receive", p.GetReceive())}
	if p.GetSend() != nil {
		v.Send = w.payload(at+".send", p.GetSend())
	}
	if pp := p.GetProxyProtocolConfig(); pp != nil {
		v.ProxyProtocol = 1
		if pp.GetVersion() == corev3.ProxyProtocolConfig_V2 {
			v.ProxyProtocol = 2
		}
		if pp.GetPassThroughTlvs() != nil || len(pp.GetAddedTlvs()) > 0 {
			w.unbuilt = append(w.unbuilt, at+".proxy_protocol_config")
		}
	}
	return v
}

func (w *walker) payloads(at string, in []*corev3.HealthCheck_Payload) [][]byte {
	var out [][]byte
	for i, p := range in {
		out = append(out, w.payload(fmt.Sprintf("%s[%d]", at, i), p))
	}
	return out
}

func (w *walker) payload(at string, p *corev3.HealthCheck_Payload) []byte {
	if b := p.GetBinary(); b != nil {
		return b
	}
	b, err := hex.DecodeString(p.GetText())
	if err != nil {
		w.fail(at+".text", fmt.Errorf("invalid hex string '%s'", short(p.GetText())))
	}
	return b
}

func (w *walker) httpCheck(at string, p *corev3.HealthCheck_HttpHealthCheck) *api.HTTPCheck {
	v := &api.HTTPCheck{
		Host: p.GetHost(), Path: p.GetPath(), Method: http.MethodGet, ResponseBufferSize: api.DefaultResponseBufferSize,
		Receive: w.payloads(at+".receive", p.GetReceive()),
		Add:     w.headersToAdd(at+".request_headers_to_add", p.GetRequestHeadersToAdd()), Remove: p.GetRequestHeadersToRemove(),
		Expected:  w.statuses(at+".expected_statuses", "expected", p.GetExpectedStatuses()),
		Retriable: w.statuses(at+".retriable_statuses", "retriable", p.GetRetriableStatuses()),
	}
	if len(v.Expected) == 0 {
		v.Expected = []api.StatusRange{{Start: 200, End: 201}}
	}
	if m := p.GetMethod(); m != corev3.RequestMethod_METHOD_UNSPECIFIED {
		v.Method = m.String()
	}
	if p.GetSend() != nil {
		v.Send = w.payload(at+".send", p.GetSend())
		if !slices.Contains([]string{"POST", "PUT", "PATCH", "OPTIONS"}, v.Method) {
			w.fail(at+".send", fmt.Errorf("HTTP health check cannot specify a request payload with method '%s'. Only methods that support a request body (POST, PUT, PATCH, OPTIONS) can be used with payload.", v.Method))
		}
	}
	if p.GetResponseBufferSize() != nil {
		v.ResponseBufferSize = p.GetResponseBufferSize().GetValue()
	}
	if m := p.GetServiceNameMatcher(); m != nil {
		v.ServiceName = w.stringMatch(at+".service_name_matcher", m)
	}
	switch p.GetCodecClientType() {
	case typev3.CodecClientType_HTTP2:
		v.HTTP2 = true
	case typev3.CodecClientType_HTTP3:
		w.unbuilt = append(w.unbuilt, at+".codec_client_type")
		return nil
	}
	return v
}

func (w *walker) statuses(at, kind string, in []*typev3.Int64Range) []api.StatusRange {
	var out []api.StatusRange
	for i, r := range in {
		var err error
		switch {
		case r.GetStart() >= r.GetEnd():
			err = fmt.Errorf("Invalid http %s status range: expecting start < end, but found start=%d and end=%d", kind, r.GetStart(), r.GetEnd())
		case r.GetStart() < 100:
			err = fmt.Errorf("Invalid http %s status range: expecting start >= 100, but found start=%d", kind, r.GetStart())
		case r.GetEnd() > 600:
			err = fmt.Errorf("Invalid http %s status range: expecting end <= 600, but found end=%d", kind, r.GetEnd())
		}
		if err != nil {
			w.fail(fmt.Sprintf("%s[%d]", at, i), err)
			continue
		}
		out = append(out, api.StatusRange{Start: int(r.GetStart()), End: int(r.GetEnd())})
	}
	return out
}

func (w *walker) grpcCheck(at string, p *corev3.HealthCheck_GrpcHealthCheck) *api.GRPCCheck {
	return &api.GRPCCheck{Service: p.GetServiceName(), Authority: p.GetAuthority(), Metadata: w.headersToAdd(at+".initial_metadata", p.GetInitialMetadata())}
}

// headersToAdd takes values as they stand: what access logs know of a connection
// does not exist for a check. That they are formats is seen where they are none.
func (w *walker) headersToAdd(path string, in []*corev3.HeaderValueOption) []api.HTTPHeader {
	var out []api.HTTPHeader
	for i, h := range in {
		at := fmt.Sprintf("%s[%d]", path, i)
		if key := h.GetHeader().GetKey(); strings.HasPrefix(key, ":") || strings.EqualFold(key, "host") {
			w.fail(at, errors.New(":-prefixed or host headers may not be modified"))
		}
		if _, err := substitution.Parse(h.GetHeader().GetValue()); err != nil {
			w.fail(at, err)
		}
		value := h.GetHeader().GetValue()
		if raw := h.GetHeader().GetRawValue(); len(raw) > 0 {
			value = string(raw)
		}
		if value == "" && !h.GetKeepEmptyValue() {
			continue
		}
		v := api.HTTPHeader{Key: h.GetHeader().GetKey(), Value: value, Action: api.HTTPAppend(h.GetAppendAction())}
		if a := h.GetAppend(); a != nil && !a.GetValue() { //nolint:staticcheck // deprecated, and in use
			v.Action = api.OverwriteOrAdd
		}
		out = append(out, v)
	}
	return out
}

// endpointCheck decodes an endpoint's health_check_config.
func (w *walker) endpointCheck(path string, e *api.Endpoint, p *endpointv3.Endpoint_HealthCheckConfig) {
	if p == nil {
		return
	}
	// The proto bounds the port.
	v := api.EndpointCheck{Port: uint16(p.GetPortValue()), Hostname: p.GetHostname(), Disabled: p.GetDisableActiveHealthCheck()}
	if a := p.GetAddress(); a != nil {
		v.Addr, _ = w.addr(path+".address", a)
	}
	if v != (api.EndpointCheck{}) {
		e.Check = &v
	}
}
