package tls

import (
	"crypto/tls"
	"net/netip"
	"os"
	"slices"

	"github.com/sluice-proxy/sluice/api"
)

// keyLog writes the secrets of handshakes between some addresses. It is written to a
// few times in each, off the loop, so the file is opened for every line, and may be
// moved away.
type keyLog struct{ config *api.TLSKeyLog }

// Write appends a line. An error would end the handshake, but as in Envoy a log that
// cannot be written costs no connection.
func (k keyLog) Write(b []byte) (int, error) {
	if f, err := os.OpenFile(k.config.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
		_, _ = f.Write(b)
		f.Close()
	}
	return len(b), nil
}

// logKeys is c with a key log, if the configuration has one for these addresses.
func logKeys(c *tls.Config, k *api.TLSKeyLog, local, remote netip.Addr) *tls.Config {
	holds := func(list []netip.Prefix, a netip.Addr) bool {
		return len(list) == 0 || slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	if k == nil || !holds(k.Local, local) || !holds(k.Remote, remote) {
		return c
	}
	out := c.Clone()
	out.KeyLogWriter = keyLog{k}
	return out
}
