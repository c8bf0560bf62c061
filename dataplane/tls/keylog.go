package tls

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/sluice-proxy/sluice/api"
)

// keyLog writes the secrets of handshakes between some addresses. It is written to a
// few times in each, off the loop, so the file is opened for every line, and may be
// moved away.
type keyLog struct{ config *api.TLSKeyLog }

// Write appends a line.
func (k keyLog) Write(b []byte) (int, error) {
	f, err := os.OpenFile(k.config.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, fmt.Errorf("write key log: %w", err)
	}
	defer f.Close()
	return f.Write(b)
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
