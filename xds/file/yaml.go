package file

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxAliased bounds what aliases may repeat, in nodes: a few lines of YAML can
// name more of them than there is memory.
const maxAliased = 1 << 20

// word is a plain scalar that is a bool by YAML 1.1 and by Envoy's parser
// (yaml-cpp), and a string by YAML 1.2: n, y, no, yes, off, on. The schema
// decides: a string field gets the word, all others the bool. (Envoy refuses the
// word in a string field.)
type word string

// MarshalJSON writes the bool.
func (w word) MarshalJSON() ([]byte, error) {
	return strconv.AppendBool(nil, yamlBools[strings.ToLower(string(w))]), nil
}

// yamlBools are yaml-cpp's (convert.cpp), in lower case.
var yamlBools = map[string]bool{
	"y": true, "n": false, "yes": true, "no": false, "true": true, "false": false, "on": true, "off": false,
}

// yamlTree reads the first document of a YAML text to what encoding/json would
// make of the same as JSON, and words. Scalars are taken as Envoy does
// (MessageUtil's parseYamlNode): quoted text is a string, plain text is a bool or
// an integer if it can be, else a string; the schema makes other numbers of it.
func yamlTree(b []byte) (any, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	if doc.Kind == 0 {
		return nil, nil
	}
	r := yamlReader{open: map[*yaml.Node]bool{}}
	return r.node(&doc)
}

type yamlReader struct {
	open    map[*yaml.Node]bool // anchors that are being read
	aliased int                 // nodes read so far inside an alias
	inside  int                 // depth of aliases
}

func (r *yamlReader) node(n *yaml.Node) (any, error) {
	if r.inside > 0 {
		if r.aliased++; r.aliased > maxAliased {
			return nil, errors.New("aliases repeat too much")
		}
	}
	switch n.Kind {
	case yaml.DocumentNode:
		return r.node(n.Content[0])
	case yaml.AliasNode:
		if r.open[n.Alias] {
			return nil, fmt.Errorf("line %d: anchor %q contains itself", n.Line, n.Value)
		}
		r.inside++
		defer func() { r.inside-- }()
		return r.node(n.Alias)
	case yaml.ScalarNode:
		return scalar(n), nil
	}
	if n.Anchor != "" {
		r.open[n] = true
		defer delete(r.open, n)
	}
	if n.Kind == yaml.SequenceNode {
		out := make([]any, 0, len(n.Content))
		for _, c := range n.Content {
			v, err := r.node(c)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	}
	out := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("line %d: a key that is no scalar", k.Line)
		}
		if _, twice := out[k.Value]; twice {
			return nil, fmt.Errorf("line %d: key %q given twice", k.Line, k.Value)
		}
		v, err := r.node(n.Content[i+1])
		if err != nil {
			return nil, err
		}
		out[k.Value] = v
	}
	return out, nil
}

func scalar(n *yaml.Node) any {
	const quoted = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	s := n.Value
	if n.Style&quoted != 0 || n.Style&yaml.TaggedStyle != 0 && n.Tag == "!!str" {
		return s
	}
	switch s {
	case "", "~", "null", "Null", "NULL":
		return nil
	}
	if v, ok := yamlBool(s); ok {
		if l := strings.ToLower(s); l == "true" || l == "false" {
			return v
		}
		return word(s)
	}
	if n, ok := yamlInt(s); ok {
		if n >= math.MinInt32 && n <= math.MaxInt32 {
			return json.Number(strconv.FormatInt(n, 10))
		}
		return strconv.FormatInt(n, 10)
	}
	return s
}

// yamlBool: in lower case, in upper case, or with one capital.
func yamlBool(s string) (v, ok bool) {
	l := strings.ToLower(s)
	v, ok = yamlBools[l]
	return v, ok && (s == l || s == strings.ToUpper(s) || s[1:] == l[1:])
}

// yamlInt is a C++ stream's reading of an integer with its base.
func yamlInt(s string) (int64, bool) {
	digits := strings.TrimLeft(s, "+-")
	if len(digits) > 1 && digits[0] == '0' && strings.ContainsAny(digits[1:2], "bBoO") || strings.Contains(s, "_") {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 0, 64)
	return n, err == nil
}
