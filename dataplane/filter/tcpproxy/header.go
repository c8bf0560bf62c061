package tcpproxy

import (
	"github.com/sluice-proxy/sluice/dataplane/proxyheader"
)

// proxyHeader is what the host is to be sent before anything else, nil for
// nothing. Envoy too sends none when its TLVs do not fit.
func (s *Session) proxyHeader() []byte {
	h := s.up.Proxy()
	if h == nil {
		return nil
	}
	c := s.factory.config
	b, err := proxyheader.Append(h, s.conn.Info, s.up.Host.Endpoint().TLVs, proxyheader.Merged(s.conn.Info, s.factory.tlvs, c.TLVMerge))
	if err != nil {
		return nil
	}
	return b
}
