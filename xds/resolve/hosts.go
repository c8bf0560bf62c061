package resolve

import (
	"net/netip"
	"os"
	"strings"
)

// inHosts looks a name up in a file of the form of /etc/hosts.
func inHosts(path, name string, six bool) []Address {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	name = strings.TrimSuffix(name, ".")
	var out []Address
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		ip, err := netip.ParseAddr(fields[0])
		if err != nil || ip.Unmap().Is6() != six {
			continue
		}
		for _, n := range fields[1:] {
			if strings.EqualFold(n, name) {
				out = append(out, Address{Addr: ip.Unmap().WithZone("")})
				break
			}
		}
	}
	return out
}
