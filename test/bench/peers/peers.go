// Package peers holds the configurations of the proxies that Sluice is compared
// with, tuned as their manuals say: as many workers as CPUs, TCP_NODELAY, no
// logs. Envoy and Sluice read the same file.
package peers

import (
	"embed"
	"fmt"
	"net/netip"
	"strings"
	"text/template"
)

//go:embed haproxy.cfg nginx.conf envoy.yaml
var files embed.FS

// Values go into a configuration.
type Values struct {
	Listen, Server netip.AddrPort
	Workers        int
	// Dir is the instance's own.
	Dir string
	// Splice is HAProxy's: splice(2) both ways.
	Splice bool
	// Module is the path of nginx's stream module, empty if it is built in.
	Module string
}

// Configuration fills in one of the files.
func Configuration(file string, v Values) (string, error) {
	t, err := template.ParseFS(files, file)
	if err != nil {
		return "", fmt.Errorf("read configuration %s: %w", file, err)
	}
	var b strings.Builder
	if err := t.Option("missingkey=error").Execute(&b, v); err != nil {
		return "", fmt.Errorf("fill in configuration %s: %w", file, err)
	}
	return b.String(), nil
}
