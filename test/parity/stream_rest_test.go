package parity

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
)

// restStories: the control plane is polled.
var restStories = []story{
	{"rest_delta_only", func(s *stream) {
		p := s.polled()
		p.answer("CDS", "1", cluster("c", s.banner("one")))
		p.answer("LDS", "1", proxyTo("l", "c"))
		s.open()
		s.serves("l", "one")
		p.answer("CDS", "2", cluster("c", s.banner("two")))
		s.serves("l", "two")
		s.await("accepted", func() bool { return p.told("clusters v=2") })
		p.notes()
		s.moved(`cluster_manager\.cluster_(added|modified|removed)|listener_manager\.listener_(added|modified|removed)`)
	}},
	{"rest_endpoints_delta_only", func(s *stream) {
		p := s.polled()
		c := edsCluster("c").service("svc")
		c["eds_cluster_config"].(obj)["eds_config"] = p.source()
		p.answer("CDS", "1", c)
		p.answer("LDS", "1", proxyTo("l", "c"))
		p.answer("EDS", "1", assignment("svc", s.banner("one")))
		s.open()
		s.serves("l", "one")
		p.answer("EDS", "2", assignment("svc", s.banner("two")))
		s.serves("l", "two")
		s.await("accepted", func() bool { return p.told("endpoints v=2") })
		p.notes()
	}},
	{"rest_rejected_and_refused_delta_only", func(s *stream) {
		p := s.polled()
		p.answer("CDS", "1", cluster("c", s.banner("one")))
		p.answer("LDS", "1", proxyTo("l", "c"))
		s.open()
		s.serves("l", "one")
		p.answer("LDS", "2", badAddress("l"))
		s.await("rejected", func() bool { return s.stats()["listener_manager.lds.update_rejected"] > 0 })
		p.fail(http.StatusInternalServerError)
		s.await("failed", func() bool { return s.stats()["listener_manager.lds.update_failure"] > 0 })
		s.serves("l", "one")
		p.fail(0)
		p.answer("LDS", "3", proxyTo("m", "c"))
		s.serves("m", "one")
		s.await("accepted", func() bool { return p.told("listeners v=3") })
		p.notes()
	}},
}

// polls is a management server that is polled.
type polls struct {
	s  *stream
	at netip.AddrPort

	mu      sync.Mutex
	answers map[string]string // by the path's last part
	code    int               // of every answer, if not 0
	seen    map[string][]string
}

// polled starts a server and lets LDS and CDS come from it.
func (s *stream) polled() *polls {
	p := &polls{s: s, answers: map[string]string{}, seen: map[string][]string{}}
	srv := httptest.NewServer(http.HandlerFunc(p.serve))
	s.Cleanup(srv.Close)
	p.at = netip.MustParseAddrPort(srv.Listener.Addr().String())
	s.clusters = []obj{cluster("rest", endpoint(p.at))}
	s.ldsFrom, s.cdsFrom, s.live = p.source(), p.source(), true
	return p
}

func (p *polls) source() obj {
	return obj{"resource_api_version": "V3", "api_config_source": obj{"api_type": "REST", "transport_api_version": "V3",
		"cluster_names": []string{"rest"}, "refresh_delay": "0.1s", "request_timeout": "2s"}}
}

var restNames = map[string]string{"LDS": "listeners", "CDS": "clusters", "EDS": "endpoints"}

func (p *polls) answer(kind, version string, resources ...obj) {
	p.s.Helper()
	all := []obj{}
	for _, r := range resources {
		all = append(all, obj{"@type": types[kind]}.with(r))
	}
	text, err := json.Marshal(obj{"version_info": version, "type_url": types[kind], "resources": all})
	if err != nil {
		p.s.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers[restNames[kind]] = string(text)
}

func (p *polls) fail(code int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.code = code
}

func (p *polls) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var q struct {
		VersionInfo   string          `json:"version_info"`
		ResourceNames []string        `json:"resource_names"`
		TypeURL       string          `json:"type_url"`
		Node          json.RawMessage `json:"node"`
	}
	err := json.Unmarshal(body, &q)
	what := strings.TrimPrefix(r.URL.Path, "/v3/discovery:")
	line := fmt.Sprintf("%s v=%s %v node=%v type=%s %s host=%s %s", what, q.VersionInfo, q.ResourceNames, len(q.Node) > 0, q.TypeURL, r.Method, r.Host, r.Header.Get("Content-Type"))
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		line = fmt.Sprintf("no JSON: %q", body)
	}
	if l := p.seen[what]; len(l) == 0 || l[len(l)-1] != line {
		p.seen[what] = append(l, line)
	}
	if p.code != 0 {
		w.WriteHeader(p.code)
		return
	}
	_, _ = io.WriteString(w, p.answers[what])
}

// told tells whether the newest request begins so.
func (p *polls) told(prefix string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	what, _, _ := strings.Cut(prefix, " ")
	l := p.seen[what]
	return len(l) > 0 && strings.HasPrefix(l[len(l)-1], prefix)
}

// notes writes the requests down, type by type, each that differs from the one
// before.
func (p *polls) notes() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, what := range []string{"clusters", "endpoints", "listeners"} {
		for _, l := range p.seen[what] {
			p.s.note("<- %s", l)
		}
	}
}
