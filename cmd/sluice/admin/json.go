package admin

import (
	"bytes"
	"encoding/json"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"net/netip"

	"github.com/sluice-proxy/sluice/api"
)

// marshaller writes protos as Envoy's admin does: snake case, enums by name.
func marshaller(unpopulated bool) protojson.MarshalOptions {
	return protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: unpopulated, AllowPartial: true, Resolver: rawResolver{}}
}

// writeProto answers with m, indented by one space.
func writeProto(a *answer, m proto.Message, unpopulated bool) {
	b, err := marshaller(unpopulated).Marshal(m)
	if err != nil {
		a.fail(500, "write %s as JSON: %v\n", m.ProtoReflect().Descriptor().FullName(), err)
		return
	}
	writeJSON(a, b)
}

// writeJSON indents compact JSON. It also evens out the spaces that protojson
// puts in at random.
func writeJSON(a *answer, b []byte) {
	a.contentType = applicationJSON
	// The input comes from a marshaller: it is valid, Indent cannot fail.
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", " "); err != nil {
		a.fail(500, "indent JSON: %v\n", err)
		return
	}
	a.Write(out.Bytes())
	a.WriteByte('\n')
}

// endpointAddress may be a pipe.
func endpointAddress(e *api.Endpoint) *corev3.Address {
	if e.Path != "" {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: e.Path}}}
	}
	return protoAddress(e.Addr)
}

func protoAddress(ap netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       ap.Addr().String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(ap.Port())},
	}}}
}
