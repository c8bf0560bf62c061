package parity

import (
	"strings"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3" // what the stories send

	"github.com/sluice-proxy/sluice/test/pki"
)

// sdsStories: secrets come by themselves. The endpoints are in the clear, so that
// traffic tells when a cluster is in force: the transport socket that wants the
// secret is for endpoints of which there are none.
var sdsStories = []story{
	{"sds_cluster_waits_and_the_old_one_serves", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		s.cds("2", cluster("c", s.banner("two")).with(wanting("s", "0s")))
		s.serves("l", "one")
		s.sds("1", s.authority("s"))
		c := s.serves("l", "two")
		s.sds("2", s.authority("s"))
		c.send("still").expect("still")
		s.secrets()
	}},
	{"sds_nothing_within_the_timeout", func(s *stream) {
		s.ready(clusters(cluster("c", s.banner("one"))), proxyTo("l", "c"))
		s.cds("2", cluster("c", s.banner("two")).with(wanting("s", "1s")))
		s.serves("l", "two")
		s.secrets()
	}},
	{"sds_secret_that_nobody_asked_for", func(s *stream) {
		s.ready(nil)
		s.cds("2", cluster("c").with(wanting("s", "0s")))
		s.sds("1", s.authority("t"))
		s.sds("2", s.authority("s"), s.authority("t"))
		s.secrets()
	}},
}

func (s *stream) sds(version string, resources ...obj) {
	s.Helper()
	s.send("SDS", version, resources...)
}

// wanting is a transport socket for nobody, which wants the secret called name.
func wanting(name, wait string) obj {
	return obj{"transport_socket_matches": []obj{{"name": "tls", "match": obj{"nobody": "has this"}, "transport_socket": obj{"name": "tls", "typed_config": obj{
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
		"common_tls_context": obj{"validation_context_sds_secret_config": obj{"name": name,
			"sds_config": obj{"ads": obj{}, "resource_api_version": "V3", "initial_fetch_timeout": wait}}}}}}}}
}

func (s *stream) authority(name string) obj {
	return obj{"name": name, "validation_context": obj{"trusted_ca": obj{"inline_string": string(pki.New(s.TB, name).PEM)}}}
}

// secrets notes the figures of secrets, and those of clusters.
func (s *stream) secrets() {
	s.Helper()
	s.moved(`sds\..*(update_(attempt|success|failure|rejected)|init_fetch_timeout|key_rotation_failed)`, strings.ReplaceAll(ofManagers, "control_plane", "x"))
}
