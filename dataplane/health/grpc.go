package health

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/url"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/api"
)

// grpcCheck is a grpc_health_check: one unary call of grpc.health.v1.Health,
// framed by hand over HTTP/2. A grpc.ClientConn would decide by itself when to
// connect again.
type grpcCheck struct {
	config    *api.GRPCCheck
	target    Target
	opener    // of the transport's connections
	transport *http.Transport
	request   []byte
}

func newGRPC(_ *session, t Target, dial func(context.Context) (net.Conn, error)) *grpcCheck {
	m, err := proto.Marshal(&grpc_health_v1.HealthCheckRequest{Service: t.Check.GRPC.Service})
	if err != nil { // a name that is not UTF-8, which no proto holds
		m = nil
	}
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m)))
	p := &grpcCheck{config: t.Check.GRPC, target: t, opener: opener{open: dial}, request: append(frame, m...)}
	p.transport = newTransport(p.dial, true)
	return p
}

func (p *grpcCheck) check(ctx context.Context) outcome {
	if !p.target.Check.ReuseConnection {
		defer p.hangUp()
	}
	r := (&http.Request{Method: http.MethodPost, Host: authority(p.target, p.config.Authority), ContentLength: int64(len(p.request)),
		URL:    &url.URL{Scheme: "http", Host: p.target.Endpoint.CheckAddr().String(), Path: grpc_health_v1.Health_Check_FullMethodName},
		Header: http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {"Envoy/HC"}},
		Body:   io.NopCloser(bytes.NewReader(p.request)),
		GetBody: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(p.request)), nil
		}}).WithContext(ctx)
	addHeaders(r, p.config.Metadata)
	rsp, err := p.transport.RoundTrip(r)
	if err != nil {
		return failed(err)
	}
	defer rsp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(rsp.Body, received))
	if err != nil {
		return failed(err)
	}
	if rsp.StatusCode != http.StatusOK || !serving(rsp, body) {
		return outcome{failure: active}
	}
	return outcome{}
}

// serving tells whether the call went well and the answer is SERVING.
func serving(rsp *http.Response, body []byte) bool {
	status := rsp.Trailer.Get("Grpc-Status")
	if status == "" {
		status = rsp.Header.Get("Grpc-Status")
	}
	if status != "0" || len(body) < 5 || body[0] != 0 || uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-5) {
		return false
	}
	m := &grpc_health_v1.HealthCheckResponse{}
	return proto.Unmarshal(body[5:], m) == nil && m.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING
}

func (p *grpcCheck) close() { p.transport.CloseIdleConnections() }
