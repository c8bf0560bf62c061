package xds

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/xds/ads"
	"github.com/sluice-proxy/sluice/xds/assemble"
	"github.com/sluice-proxy/sluice/xds/resource"
)

// The types that are asked for.
const (
	listenerURL = "type.googleapis.com/envoy.config.listener.v3.Listener"
	clusterURL  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	endpointURL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	// extensionURL's resources have their name in field 1 too.
	extensionURL = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
	secretURL    = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	runtimeURL   = "type.googleapis.com/envoy.service.runtime.v3.Runtime"
)

// chunk is how many resources are decoded before other goroutines get a turn.
const chunk = 64

// decoder is one of resource's functions.
type decoder[T any] func(*anypb.Any) (name string, v *T, n resource.Notes, err error)

// decode turns a response into an update. has tells what the model holds already
// (not decoded again), wants which names matter. The error, if any, rejects the
// whole response (resource.ErrConstraint, as Envoy does).
func decode[T any](r *ads.Response, one decoder[T], has func(string, *anypb.Any) bool, wants func(string) bool) (assemble.Update[T], resource.Notes, error) {
	u := assemble.Update[T]{Removed: r.Removed, Now: time.Now()}
	var notes resource.Notes
	for i, res := range r.Resources {
		if i%chunk == chunk-1 {
			runtime.Gosched()
		}
		out := assemble.Resource[T]{Name: res.Name, Version: r.ResourceVersion(res), Raw: res.Body}
		if res.Body == nil { // heartbeat
			// In state of the world it does not count as present where presence
			// counts: Envoy 1.40 deletes the listener.
			if r.Delta || r.TypeURL == endpointURL {
				u.Resources = append(u.Resources, out)
			}
			continue
		}
		if name, ok := firstString(res.Body.GetValue()); ok {
			if !wants(name) {
				continue
			}
			if has(name, res.Body) {
				out.Name, out.Same = name, true
				u.Resources = append(u.Resources, out)
				continue
			}
		}
		name, v, n, err := one(res.Body)
		if name == "" {
			name = res.Name
		}
		// Without a name nothing could be kept in its place either.
		if errors.Is(err, resource.ErrConstraint) || err != nil && name == "" {
			return u, notes, wholeResponse{name, err}
		}
		notes.Unbuilt = append(notes.Unbuilt, n.Unbuilt...)
		notes.Unknown += n.Unknown
		out.Name, out.Value, out.Err = name, v, err
		u.Resources = append(u.Resources, out)
	}
	return u, notes, nil
}

// wholeResponse is why nothing of a response is taken. Envoy prints the whole
// resource in place of the name.
type wholeResponse struct {
	name  string
	cause error
}

func (e wholeResponse) Error() string { return fmt.Sprintf("%q: %s", e.name, e.cause) }
func (e wholeResponse) Unwrap() error { return e.cause }

// dialling is what of a cluster says how its endpoints are dialled: the bytes of
// transport_socket and transport_socket_matches.
func dialling(b []byte) string {
	var out []byte
	for len(b) > 0 {
		num, typ, tag := protowire.ConsumeTag(b)
		if tag < 0 {
			return string(out)
		}
		n := protowire.ConsumeFieldValue(num, typ, b[tag:])
		if n < 0 {
			return string(out)
		}
		if num == 24 || num == 43 {
			out = append(out, b[:tag+n]...)
		}
		b = b[tag+n:]
	}
	return string(out)
}

// firstString reads field 1, which is the name in all three types, without
// decoding the rest. Of several the last one counts, as in any proto decoder.
func firstString(b []byte) (s string, ok bool) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return "", false
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return "", false
		}
		if num == 1 && typ == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(b)
			s = string(v)
		}
		b = b[n:]
	}
	return s, true
}

// rejection is the NACK's text for resources of a response, in Envoy's words
// (lds_api.cc, cds_api_impl.cc); nil if there are no problems.
func rejection(typeURL string, problems []assemble.Problem) error {
	if len(problems) == 0 {
		return nil
	}
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = fmt.Sprintf("%s: %s", shown(p.Name), p.Err)
	}
	switch typeURL {
	case listenerURL:
		return badResources("Error adding/updating listener(s) " + strings.Join(lines, "\n") + "\n")
	case clusterURL:
		return badResources("Error adding/updating cluster(s) " + strings.Join(lines, ", "))
	case extensionURL: // Envoy does not name them
		for i, p := range problems {
			lines[i] = p.Err.Error()
		}
	}
	return badResources(strings.Join(lines, ", "))
}

// badResources is why some resources of a response are not taken.
type badResources string

func (b badResources) Error() string { return string(b) }
