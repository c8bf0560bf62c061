package bootstrap

import (
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
)

// userAgent is what control planes see. It is not Envoy's: some refuse an envoy
// whose version they take for too old.
const userAgent = "sluice"

// node is the file's node, word for word, with the flags over it and our own
// name and version in it. /config_dump's bootstrap shows it without the flags, and
// /server_info with them, as Envoy's do.
func (c *Config) node(o Options) {
	shown := &corev3.Node{}
	if c.Proto.GetNode() != nil {
		shown = proto.CloneOf(c.Proto.GetNode())
	}
	shown.UserAgentName = userAgent
	shown.UserAgentVersionType = &corev3.Node_UserAgentBuildVersion{
		UserAgentBuildVersion: &corev3.BuildVersion{Version: version(o.BuildVersion)},
	}
	shown.Extensions = extensions()
	n := proto.CloneOf(shown)
	if o.ServiceNode != "" {
		n.Id = o.ServiceNode
	}
	if o.ServiceCluster != "" {
		n.Cluster = o.ServiceCluster
	}
	if o.ServiceZone != "" {
		if n.Locality == nil {
			n.Locality = &corev3.Locality{}
		}
		n.Locality.Zone = o.ServiceZone
	}
	c.Proto.Node, c.Node = shown, n
}

// Home is the node's locality.
func (c *Config) Home() api.Place {
	l := c.Node.GetLocality()
	return api.Place{Region: l.GetRegion(), Zone: l.GetZone(), SubZone: l.GetSubZone()}
}

// version reads major.minor.patch; what is no number is 0.
func version(s string) *typev3.SemanticVersion {
	part := func() uint32 {
		var one string
		one, s, _ = strings.Cut(s, ".")
		n, err := strconv.ParseUint(one, 10, 32)
		if err != nil {
			return 0
		}
		return uint32(n)
	}
	s = strings.TrimPrefix(s, "v")
	s, _, _ = strings.Cut(s, "-")
	return &typev3.SemanticVersion{MajorNumber: part(), MinorNumber: part(), Patch: part()}
}

// extensions are those that have an effect here, under Envoy's names.
func extensions() []*corev3.Extension {
	return []*corev3.Extension{
		{
			Name: "envoy.filters.network.tcp_proxy", Category: "envoy.filters.network",
			TypeUrls: []string{"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"},
		},
		{
			Name: "envoy.transport_sockets.raw_buffer", Category: "envoy.transport_sockets.upstream",
			TypeUrls: []string{"envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
		},
		{
			Name: "envoy.transport_sockets.raw_buffer", Category: "envoy.transport_sockets.downstream",
			TypeUrls: []string{"envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
		},
	}
}
