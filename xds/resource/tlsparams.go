package resource

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/tlsname"
)

var tlsVersions = map[tlsv3.TlsParameters_TlsProtocol]uint16{
	tlsv3.TlsParameters_TLSv1_0: tls.VersionTLS10, tlsv3.TlsParameters_TLSv1_1: tls.VersionTLS11,
	tlsv3.TlsParameters_TLSv1_2: tls.VersionTLS12, tlsv3.TlsParameters_TLSv1_3: tls.VersionTLS13,
}

// serverParams and clientParams are Envoy's defaults.
func serverParams() api.TLSParams {
	ciphers, _, _ := tlsname.CipherList(tlsname.DefaultCiphers)
	return api.TLSParams{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13, Ciphers: ciphers,
		Curves: []uint16{uint16(tls.X25519), uint16(tls.CurveP256)}}
}

func clientParams() api.TLSParams {
	p := serverParams()
	p.MaxVersion = tls.VersionTLS12
	return p
}

// ClientParams reads the TlsParameters of a client.
func ClientParams(path string, p *tlsv3.TlsParameters) (api.TLSParams, error) {
	w := walker{policies: table()}
	out := w.tlsParams(path, p, clientParams())
	return out, w.err()
}

// tlsParams puts what p sets over the defaults.
func (w *walker) tlsParams(path string, p *tlsv3.TlsParameters, out api.TLSParams) api.TLSParams {
	if v, ok := tlsVersions[p.GetTlsMinimumProtocolVersion()]; ok {
		out.MinVersion = v
	}
	if v, ok := tlsVersions[p.GetTlsMaximumProtocolVersion()]; ok {
		out.MaxVersion = v
	}
	// Empty is not set, to Envoy.
	if rules := strings.Join(p.GetCipherSuites(), ":"); rules != "" {
		ids, rejected, ok := tlsname.CipherList(rules)
		if !ok {
			w.fail(path+".cipher_suites", fmt.Errorf("Failed to initialize cipher suites %s. The following ciphers were rejected when tried individually: %s",
				short(rules), short(strings.Join(rejected, ", "))))
		}
		out.Ciphers = ids
	}
	if names := strings.Join(p.GetEcdhCurves(), ":"); names != "" {
		ids, ok := numbers(names, tlsname.CurveID)
		if !ok {
			w.fail(path+".ecdh_curves", fmt.Errorf("Failed to initialize ECDH curves %s", short(names)))
		}
		out.Curves = ids
	}
	if names := strings.Join(p.GetSignatureAlgorithms(), ":"); names != "" {
		ids, ok := numbers(names, tlsname.SignatureID)
		if !ok {
			w.fail(path+".signature_algorithms", fmt.Errorf("Failed to initialize TLS signature algorithms %s", short(names)))
		}
		out.Signatures = ids
	}
	return out
}

func numbers(names string, id func(string) (uint16, bool)) (ids []uint16, ok bool) {
	for name := range strings.SplitSeq(names, ":") {
		n, ok := id(name)
		if !ok {
			return nil, false
		}
		ids = append(ids, n)
	}
	return ids, true
}

// maxALPN is what the list may measure on the wire.
const maxALPN = 65535

// alpn checks what Envoy parses: each element may be several, with commas.
func (w *walker) alpn(path string, in []string) (out []string) {
	joined := strings.Join(in, ",")
	if joined == "" {
		return nil
	}
	size := 0
	for name := range strings.SplitSeq(joined, ",") {
		if size += 1 + len(name); name == "" || len(name) > 255 || size >= maxALPN {
			w.fail(path, errors.New("Invalid ALPN protocol string"))
			return nil
		}
		out = append(out, name)
	}
	return out
}
