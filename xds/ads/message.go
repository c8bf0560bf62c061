package ads

import (
	"fmt"
	"maps"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// maxDetail bounds the text of a NACK, in bytes: some servers limit messages.
const maxDetail = 64 << 10

// wrapperURL is the type of a state-of-the-world resource that comes with a name,
// a version or a TTL of its own (client feature xds.config.resource-in-sotw).
const wrapperURL = "type.googleapis.com/envoy.service.discovery.v3.Resource"

// sotwRequest names all that is wanted. The version is that of the last accepted
// response, on any stream; the nonce that of the last response on this one.
func sotwRequest(s *subscription) *discoveryv3.DiscoveryRequest {
	return &discoveryv3.DiscoveryRequest{
		TypeUrl: s.url, VersionInfo: s.version, ResponseNonce: s.nonce, ResourceNames: s.names,
	}
}

// deltaFirst is the first request of a type on a stream: all subscriptions, and
// what we hold already. The wildcard is an empty list, not "*", unless there are
// names beside it, seen.
func deltaFirst(s *subscription) *discoveryv3.DeltaDiscoveryRequest {
	names := s.names
	if len(s.demanded) > 0 {
		names = slices.Concat(names, s.demanded)
		if s.wildcard {
			names = slices.Insert(names, 0, "*")
		}
	}
	return &discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: s.url, ResourceNamesSubscribe: names, InitialResourceVersions: maps.Clone(s.versions),
	}
}

// deltaChange is spontaneous and so carries no nonce (xds_protocol.rst).
func deltaChange(s *subscription, added, gone []string) *discoveryv3.DeltaDiscoveryRequest {
	return &discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: s.url, ResourceNamesSubscribe: added, ResourceNamesUnsubscribe: gone,
	}
}

func deltaAnswer(r *Response, err error) *discoveryv3.DeltaDiscoveryRequest {
	return &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeURL, ResponseNonce: r.Nonce, ErrorDetail: detail(err)}
}

func detail(err error) *statusv3.Status {
	if err == nil {
		return nil
	}
	text := err.Error()
	if len(text) > maxDetail {
		text = text[:maxDetail] + "…"
	}
	return &statusv3.Status{Code: int32(nackCode), Message: validUTF8(text)}
}

func setNode(m proto.Message, n *corev3.Node) {
	switch m := m.(type) {
	case *discoveryv3.DiscoveryRequest:
		m.Node = n
	case *discoveryv3.DeltaDiscoveryRequest:
		m.Node = n
	}
}

func fromSotW(m *discoveryv3.DiscoveryResponse) *Response {
	r := &Response{
		TypeURL: m.GetTypeUrl(), Version: m.GetVersionInfo(), Nonce: m.GetNonce(),
		ControlPlane: m.GetControlPlane().GetIdentifier(), Resources: make([]Resource, 0, len(m.GetResources())),
	}
	for _, a := range m.GetResources() {
		res := Resource{Body: a}
		if a.GetTypeUrl() == wrapperURL {
			var w discoveryv3.Resource
			if err := proto.Unmarshal(a.GetValue(), &w); err != nil {
				r.Err = fmt.Errorf("%w: decode resource wrapper: %w", ErrResponse, err)
				return r
			}
			res = Resource{Name: w.GetName(), Version: w.GetVersion(), TTL: w.GetTtl().AsDuration(), Body: w.GetResource()}
		}
		if r.Err = checkType(r, res.Body); r.Err != nil {
			return r
		}
		r.Resources = append(r.Resources, res)
	}
	return r
}

func fromDelta(m *discoveryv3.DeltaDiscoveryResponse) *Response {
	r := &Response{
		Delta: true, TypeURL: m.GetTypeUrl(), Version: m.GetSystemVersionInfo(), Nonce: m.GetNonce(),
		ControlPlane: m.GetControlPlane().GetIdentifier(), Removed: m.GetRemovedResources(),
		Resources: make([]Resource, 0, len(m.GetResources())),
	}
	seen := make(map[string]bool, len(m.GetResources()))
	for _, d := range m.GetResources() {
		res := Resource{Name: d.GetName(), Version: d.GetVersion(), TTL: d.GetTtl().AsDuration(), Body: d.GetResource()}
		if seen[res.Name] {
			r.Err = broken{fmt.Sprintf("duplicate name %s found among added/updated resources", res.Name)}
			return r
		}
		seen[res.Name] = true
		if r.Err = checkType(r, res.Body); r.Err != nil {
			return r
		}
		r.Resources = append(r.Resources, res)
	}
	for _, n := range r.Removed {
		if seen[n] {
			r.Err = broken{fmt.Sprintf("duplicate name %s found in the union of added+removed resources", n)}
			return r
		}
		seen[n] = true
	}
	return r
}

// broken has Envoy's words for itself, without a prefix of ours (seen).
type broken struct{ text string }

func (b broken) Error() string { return b.text }
func (b broken) Unwrap() error { return ErrResponse }

func checkType(r *Response, body *anypb.Any) error {
	if body == nil || body.GetTypeUrl() == r.TypeURL {
		return nil
	}
	text := "%s does not match the message-wide type URL %s in DiscoveryResponse"
	if r.Delta {
		text = "type URL %s embedded in an individual Any does not match the message-wide type URL %s in DeltaDiscoveryResponse"
	}
	return broken{fmt.Sprintf(text, body.GetTypeUrl(), r.TypeURL)}
}
