package admin

import (
	"cmp"
	"log/slog"
	"regexp"
	"slices"
	"strings"

	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/sluice-proxy/sluice/api/stats"
)

// statsView is stats_config: which stats are there at all, and which parts of
// their names are tags. It is applied when stats are read, where Envoy applies it
// when they are made; a reader sees no difference.
type statsView struct {
	allow func(name string) bool
	// Of Envoy's own tags, which are the store's, all are shown, or none; but not those
	// that others replace, and those that are asked for by name alone.
	defaults        bool
	replaced, named map[string]bool
	fixed           []stats.Tag
	cut             []extractor

	// seen keeps what was found out, by full name: patterns are many.
	seen map[string]seen
}

// extractor cuts its first group out of a name; its second, or else the first,
// is the tag's value (Envoy's TagExtractorStdRegexImpl).
type extractor struct {
	tag string
	re  *regexp.Regexp
}

type seen struct {
	hidden  bool
	tagName string
	tags    []stats.Tag
}

// newStatsView never fails: Istio has always sent an expression that no RE2 can
// read. What cannot be read is left out and warned of.
func newStatsView(c *metricsv3.StatsConfig, everywhere []stats.Tag, log *slog.Logger) *statsView {
	v := &statsView{
		allow: readStatsMatcher(c.GetStatsMatcher(), log), fixed: slices.Clone(everywhere), seen: map[string]seen{},
		defaults: c.GetUseAllDefaultTags() == nil || c.GetUseAllDefaultTags().GetValue(),
		replaced: map[string]bool{}, named: map[string]bool{},
	}
	for _, t := range c.GetStatsTags() {
		if c.GetAllowDefaultTagOverrides().GetValue() {
			v.replaced[t.GetTagName()] = true
		}
		switch {
		case t.GetFixedValue() != "":
			v.fixed = append(v.fixed, stats.Tag{Name: t.GetTagName(), Value: t.GetFixedValue()})
		case t.GetRegex() != "":
			re, err := regexp.Compile(t.GetRegex())
			if err != nil {
				log.Warn("stats_config.stats_tags: expression left out", "tag", t.GetTagName(), "regex", t.GetRegex(), "err", err)
				continue
			}
			v.cut = append(v.cut, extractor{tag: t.GetTagName(), re: re})
		default:
			v.named[t.GetTagName()] = true
		}
	}
	if v.defaults && len(v.fixed)+len(v.cut) == 0 && c.GetStatsMatcher() == nil {
		return nil // the store's own view
	}
	return v
}

func readStatsMatcher(m *metricsv3.StatsMatcher, log *slog.Logger) func(string) bool {
	patterns := func(field string, list *matcherv3.ListStringMatcher) func(string) bool {
		var tests []func(string) bool
		for i, p := range list.GetPatterns() {
			f, err := stringMatch(p)
			if err != nil {
				log.Warn("stats_config.stats_matcher: pattern left out", "list", field, "index", i, "err", err)
				continue
			}
			tests = append(tests, f)
		}
		return func(name string) bool {
			return slices.ContainsFunc(tests, func(f func(string) bool) bool { return f(name) })
		}
	}
	switch k := m.GetStatsMatcher().(type) {
	case *metricsv3.StatsMatcher_RejectAll:
		return func(string) bool { return !k.RejectAll }
	case *metricsv3.StatsMatcher_ExclusionList:
		match := patterns("exclusion_list", k.ExclusionList)
		return func(name string) bool { return !match(name) }
	case *metricsv3.StatsMatcher_InclusionList:
		return patterns("inclusion_list", k.InclusionList)
	}
	return func(string) bool { return true }
}

// of is the view of all, in the same memory.
func (v *statsView) of(all []stats.Stat) []stats.Stat {
	if v == nil {
		return all
	}
	if len(v.seen) > 2*len(all)+1000 { // most of them are gone
		clear(v.seen)
	}
	out := all[:0]
	for _, x := range all {
		k, known := v.seen[x.Name]
		if !known {
			k = v.look(x)
			v.seen[x.Name] = k
		}
		if !k.hidden {
			x.TagName, x.Tags = k.tagName, k.tags
			out = append(out, x)
		}
	}
	return out
}

func (v *statsView) look(x stats.Stat) seen {
	if !v.allow(x.Name) {
		return seen{hidden: true}
	}
	tags := slices.Clone(v.fixed)
	var cuts [][2]int
	for i, t := range x.Tags {
		if v.named[t.Name] || v.defaults && !v.replaced[t.Name] {
			tags, cuts = append(tags, t), append(cuts, x.Cuts[cutOf(&x, i)])
		}
	}
	for _, e := range v.cut {
		m := e.re.FindStringSubmatchIndex(x.Name)
		if len(m) < 4 || m[2] < 0 || slices.ContainsFunc(tags, func(t stats.Tag) bool { return t.Name == e.tag }) {
			continue
		}
		value := m[2:4]
		if len(m) >= 6 && m[4] >= 0 {
			value = m[4:6]
		}
		tags = append(tags, stats.Tag{Name: e.tag, Value: x.Name[value[0]:value[1]]})
		cuts = append(cuts, [2]int{m[2], m[3]})
	}
	return seen{tagName: without(x.Name, cuts), tags: tags}
}

// cutOf is which of a stat's cuts belongs to its i-th tag: the code of a response is
// the first tag, and the last cut.
func cutOf(x *stats.Stat, i int) int {
	if strings.HasPrefix(x.Tags[0].Name, "envoy.response_code") {
		return (i + len(x.Cuts) - 1) % len(x.Cuts)
	}
	return i
}

// without cuts ranges, which may overlap, out of a name.
func without(name string, cuts [][2]int) string {
	slices.SortFunc(cuts, func(a, b [2]int) int { return cmp.Compare(a[0], b[0]) })
	var b strings.Builder
	at := 0
	for _, c := range cuts {
		if c[0] > at {
			b.WriteString(name[at:c[0]])
		}
		at = max(at, c[1])
	}
	b.WriteString(name[min(at, len(name)):])
	return b.String()
}
