package parity

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	// What the resources are written in.
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/tcp/v3"
)

// corpusStories: many bad resources, one after the other, and what the control plane
// is told of each.
var corpusStories = []story{
	{"reject_corpus_of_clusters_delta_only", func(s *stream) {
		s.ready(nil)
		s.corpus("CDS", "clusters.json")
	}},
	{"reject_corpus_of_listeners_delta_only", func(s *stream) {
		s.ready(nil)
		s.corpus("LDS", "listeners.json")
	}},
}

// corpus sends the resources of a file of testdata/corpus.
func (s *stream) corpus(kind, file string) {
	s.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "corpus", file))
	if err != nil {
		s.Fatal(err)
	}
	var all []struct {
		What     string `json:"what"`
		Resource obj    `json:"resource"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		s.Fatal(err)
	}
	for i, one := range all {
		s.push(kind, strconv.Itoa(i+2), one.Resource)
		s.note("%s: %s", one.What, s.cause())
	}
}

// causeText is what stands around the cause in a NACK of Envoy.
var causeText = regexp.MustCompile(`^.* !13 (?:Error adding/updating \S+ \w+: )?(?:Proto constraint validation failed \()?(.*?)\)?(?:\\n)?$`)

// cause waits for the next request and is why it rejects. Sluice says more, before
// and behind: what counts is that it says what the record has.
func (s *stream) cause() string {
	s.Helper()
	s.await("an answer", func() bool { return len(s.script.Strings()) > s.seen })
	all := s.script.Strings()
	if len(all) == s.seen {
		return "nothing"
	}
	got := all[s.seen]
	s.seen++
	if s.asExpected() && len(s.expect) > len(s.record) {
		if _, want, _ := strings.Cut(s.expect[len(s.record)], ": "); want != "" && strings.Contains(got, want) {
			return want
		}
	}
	return causeText.ReplaceAllString(textClass(got), "$1")
}
