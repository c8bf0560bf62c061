package balance

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unsafe"
)

// Criteria are what the metadata of a host must be: the keys of a subset and
// their values. They are made once and compared by pointer.
type Criteria = *criteria

type criteria struct {
	pairs []pair // by key
	// keys and id name the selector and the subset that they ask for.
	keys, id string
	// rest are the criteria without fallback_list, list those that it lays over
	// them in turn; nil if there is none.
	rest *criteria
	list []*criteria
	// once says that they are of one connection, and not worth remembering.
	once bool
}

type pair struct {
	key string
	// value is as JSON has it, text is the value in one form.
	value any
	text  string
}

// fallbackKey holds the list of METADATA_FALLBACK_LIST.
const fallbackKey = "fallback_list"

// NewCriteria are those of a metadata_match, whose values are as JSON has them;
// nil are none. once says that one connection alone will pick by them.
func NewCriteria(values map[string]any, once bool) Criteria {
	if values == nil {
		return nil
	}
	c := plain(values)
	c.once = once
	fallback, ok := values[fallbackKey]
	if !ok {
		return c
	}
	rest := map[string]any{}
	for k, v := range values {
		if k != fallbackKey {
			rest[k] = v
		}
	}
	c.rest = plain(rest)
	entries, _ := fallback.([]any)
	for _, e := range entries {
		over, _ := e.(map[string]any)
		c.list = append(c.list, plain(MergeMatch(rest, over)))
	}
	return c
}

// MergeMatch lays values over others.
func MergeMatch(under, over map[string]any) map[string]any {
	out := make(map[string]any, len(under)+len(over))
	for k, v := range under {
		out[k] = v
	}
	for k, v := range over {
		out[k] = v
	}
	return out
}

// Values are what the criteria were made of.
func (c *criteria) Values() map[string]any {
	out := map[string]any{}
	if c != nil {
		for _, p := range c.pairs {
			out[p.key] = p.value
		}
	}
	return out
}

func plain(values map[string]any) *criteria {
	c := &criteria{}
	for k, v := range values {
		c.pairs = append(c.pairs, pair{k, v, text(v)})
	}
	c.name()
	return c
}

func (c *criteria) name() {
	slices.SortFunc(c.pairs, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	keys := make([]string, len(c.pairs))
	for i := range c.pairs {
		keys[i] = c.pairs[i].key
	}
	c.keys, c.id = join(keys), subsetID(c.pairs)
}

func join(keys []string) string { return strings.Join(keys, "\x00") }

func subsetID(pairs []pair) string {
	var b strings.Builder
	for i := range pairs {
		b.WriteString(pairs[i].key + "\x00" + pairs[i].text + "\x00")
	}
	return b.String()
}

// text is a value in one form: equal values, and only they, have equal texts.
func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil { // a number that JSON has not
		return fmt.Sprint(v)
	}
	return string(b)
}

// only are the criteria with these keys.
func (c *criteria) only(keys []string) *criteria {
	out := &criteria{}
	for _, p := range c.pairs {
		if slices.Contains(keys, p.key) {
			out.pairs = append(out.pairs, p)
		}
	}
	out.name()
	return out
}

// cut are the criteria with these keys, which belong to a selector of the Set in
// force.
func (p *Picker) cut(c *criteria, keys []string) *criteria {
	if c.once {
		out := c.only(keys)
		out.once = true
		return out
	}
	at := cutKey{c, unsafe.SliceData(keys)}
	out := p.cuts[at]
	if out == nil {
		out = c.only(keys)
		p.cuts[at] = out
	}
	return out
}

// cutKey finds criteria that were cut down. The keys are known by where they
// stand: a Set never changes.
type cutKey struct {
	from *criteria
	keys *string
}
