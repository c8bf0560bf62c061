package dnscache

import (
	"strconv"
	"strings"
)

// Key is what a name is known by: with its own port, or else with the one given
// (DnsHostInfo::normalizeHostForDfp). It is empty for an empty name.
func Key(name string, port uint16) string {
	if name == "" {
		return ""
	}
	if _, _, own := split(name); own {
		return name
	}
	return name + ":" + strconv.Itoa(int(port))
}

// split takes a name apart (Http::Utility::parseAuthority); own says that it has a
// port.
func split(name string) (host string, port uint16, own bool) {
	host = name
	if at := strings.LastIndexByte(name, ':'); at >= 0 && !strings.HasSuffix(name, "]") {
		if n, err := strconv.ParseUint(name[at+1:], 10, 16); err == nil {
			host, port, own = name[:at], uint16(n), true
		}
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	return host, port, own
}
