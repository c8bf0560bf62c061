package health

import (
	"bytes"
	"encoding/json"

	"github.com/sluice-proxy/sluice/api"
)

// event is a HealthCheckEvent (envoy.data.core.v3) as Envoy prints it, in the
// order of the proto's fields.
type event struct {
	Type             string        `json:"health_checker_type"`
	Host             eventAddress  `json:"host"`
	Cluster          string        `json:"cluster_name"`
	Eject            *ejection     `json:"eject_unhealthy_event,omitempty"`
	AddHealthy       *firstCheck   `json:"add_healthy_event,omitempty"`
	Timestamp        string        `json:"timestamp"`
	Failure          *failureEvent `json:"health_check_failure_event,omitempty"`
	Degraded         *struct{}     `json:"degraded_healthy_host,omitempty"`
	NoLongerDegraded *struct{}     `json:"no_longer_degraded_host,omitempty"`
	Metadata         *metadata     `json:"metadata,omitempty"`
	Locality         locality      `json:"locality"`
	Successful       *struct{}     `json:"successful_health_check_event,omitempty"`
}

type eventAddress struct {
	Socket socketAddress `json:"socket_address"`
}

type socketAddress struct {
	Protocol  string `json:"protocol"`
	Address   string `json:"address"`
	Port      uint16 `json:"port_value"`
	Resolver  string `json:"resolver_name"`
	Compat    bool   `json:"ipv4_compat"`
	Namespace string `json:"network_namespace_filepath"`
}

type ejection struct {
	Type   failureType `json:"failure_type"`
	Status int         `json:"http_status_code"`
}

type firstCheck struct {
	First bool `json:"first_check"`
}

type failureEvent struct {
	Type   failureType `json:"failure_type"`
	First  bool        `json:"first_check"`
	Status int         `json:"http_status_code"`
}

type metadata struct {
	Filter api.Metadata `json:"filter_metadata"`
	Typed  struct{}     `json:"typed_filter_metadata"`
}

// log writes an event to the check's logs.
func (s *session) log(e event) {
	if len(s.check.logs) == 0 {
		return
	}
	h := s.host
	e.Type, e.Cluster, e.Locality = s.kind(), s.k.cluster.Name, h.locality
	e.Host.Socket = socketAddress{Protocol: "TCP", Address: h.addr.Addr().String(), Port: h.addr.Port()}
	e.Timestamp = s.k.o.Clock.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	if len(h.endpoint.Metadata) > 0 {
		e.Metadata = &metadata{Filter: h.endpoint.Metadata}
	}
	var line bytes.Buffer
	out := json.NewEncoder(&line)
	out.SetEscapeHTML(false)
	if out.Encode(e) != nil { // metadata is JSON already
		return
	}
	for _, f := range s.check.logs {
		f.Write(line.Bytes())
	}
}

// kind is HealthCheckerType.
func (s *session) kind() string {
	switch {
	case s.check.config.HTTP != nil:
		return "HTTP"
	case s.check.config.GRPC != nil:
		return "GRPC"
	}
	return "TCP"
}
