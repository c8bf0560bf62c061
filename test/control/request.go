package control

import (
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	statusv3 "google.golang.org/genproto/googleapis/rpc/status"
)

// Request is one discovery request as a server saw it, in a form that both
// variants of the protocol share.
type Request struct {
	// Stream counts the streams of the server, from 1.
	Stream  int
	Delta   bool
	TypeURL string
	Nonce   string
	// Version and Names are state-of-the-world's.
	Version string
	Names   []string
	// Subscribe, Unsubscribe and Initial are delta's.
	Subscribe, Unsubscribe []string
	Initial                map[string]string
	// Error is set on a NACK.
	Error *statusv3.Status
	Node  *corev3.Node
}

// IsACK tells whether r accepts the response that carried nonce.
func (r Request) IsACK(typeURL, nonce string) bool {
	return r.TypeURL == typeURL && r.Nonce == nonce && nonce != "" && r.Error == nil
}

// IsNACK tells whether r rejects a response of typeURL.
func (r Request) IsNACK(typeURL string) bool { return r.TypeURL == typeURL && r.Error != nil }

var shortNames = map[string]string{
	resourcev3.ListenerType:        "LDS",
	resourcev3.ClusterType:         "CDS",
	resourcev3.EndpointType:        "EDS",
	resourcev3.SecretType:          "SDS",
	resourcev3.ExtensionConfigType: "ECDS",
	resourcev3.RuntimeType:         "RTDS",
}

// String has every field that is set, names sorted, in one line:
//
//	CDS v=1 n=a [] node          state of the world
//	EDS n= +[a b] -[c] have[a=1] delta
//
// A NACK ends in `!code message`.
func (r Request) String() string {
	var b strings.Builder
	name := shortNames[r.TypeURL]
	if name == "" {
		name = r.TypeURL
	}
	b.WriteString(name)
	if r.Delta {
		fmt.Fprintf(&b, " n=%s", r.Nonce)
		if len(r.Subscribe) > 0 {
			fmt.Fprintf(&b, " +%v", sorted(r.Subscribe))
		}
		if len(r.Unsubscribe) > 0 {
			fmt.Fprintf(&b, " -%v", sorted(r.Unsubscribe))
		}
		if len(r.Initial) > 0 {
			var have []string
			for n, v := range r.Initial {
				have = append(have, n+"="+v)
			}
			fmt.Fprintf(&b, " have%v", sorted(have))
		}
	} else {
		fmt.Fprintf(&b, " v=%s n=%s %v", r.Version, r.Nonce, sorted(r.Names))
	}
	if r.Node != nil {
		b.WriteString(" node")
	}
	if r.Error != nil {
		fmt.Fprintf(&b, " !%d %s", r.Error.GetCode(), r.Error.GetMessage())
	}
	return b.String()
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}

func fromSotW(stream int, r *discoveryv3.DiscoveryRequest) Request {
	return Request{
		Stream: stream, TypeURL: r.GetTypeUrl(), Nonce: r.GetResponseNonce(), Version: r.GetVersionInfo(),
		Names: r.GetResourceNames(), Error: r.GetErrorDetail(), Node: r.GetNode(),
	}
}

func fromDelta(stream int, r *discoveryv3.DeltaDiscoveryRequest) Request {
	return Request{
		Stream: stream, Delta: true, TypeURL: r.GetTypeUrl(), Nonce: r.GetResponseNonce(),
		Subscribe: r.GetResourceNamesSubscribe(), Unsubscribe: r.GetResourceNamesUnsubscribe(),
		Initial: r.GetInitialResourceVersions(), Error: r.GetErrorDetail(), Node: r.GetNode(),
	}
}
