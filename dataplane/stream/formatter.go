package stream

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/sluice-proxy/sluice/api/substitution"
)

// Formatter prints connections in one format. It is safe for concurrent use.
type Formatter struct {
	pieces []piece
	tree   *node
	// omitEmpty prints nothing for what has no value: "" in text, no member in
	// JSON.
	omitEmpty bool
}

type piece struct {
	literal string
	get     getter
	max     int
}

type node struct {
	fields   []field
	list     []node
	pieces   []piece
	literal  string
	isObject bool
	isList   bool
}

type field struct {
	key   string // quoted
	value node
}

// NewText makes a formatter of text.
func NewText(f substitution.Format, omitEmpty bool) *Formatter {
	return &Formatter{pieces: pieces(f), omitEmpty: omitEmpty}
}

// NewJSON makes a formatter of JSON lines.
func NewJSON(n substitution.Node, omitEmpty bool) *Formatter {
	t := newNode(n)
	return &Formatter{tree: &t, omitEmpty: omitEmpty}
}

func pieces(f substitution.Format) []piece {
	out := make([]piece, len(f))
	for i, p := range f {
		out[i] = piece{literal: p.Literal, max: p.Max}
		if p.Command != "" {
			out[i].get = compile(p)
		}
	}
	return out
}

func newNode(n substitution.Node) node {
	out := node{pieces: pieces(n.Format), literal: n.Literal, isObject: n.IsObject, isList: n.IsList}
	for _, f := range n.Object {
		out.fields = append(out.fields, field{key: string(quote(f.Key)), value: newNode(f.Value)})
	}
	for _, e := range n.List {
		out.list = append(out.list, newNode(e))
	}
	return out
}

// Append appends what the format prints; of JSON, with a line feed.
func (f *Formatter) Append(b []byte, m Moment) []byte {
	if f.tree == nil {
		return appendText(b, f.pieces, m, f.omitEmpty)
	}
	before := len(b)
	b = f.appendNode(b, f.tree, m)
	if len(b) == before {
		b = append(b, "{}"...)
	}
	return append(b, '\n')
}

func appendText(b []byte, ps []piece, m Moment, omitEmpty bool) []byte {
	for i := range ps {
		if ps[i].get == nil {
			b = append(b, ps[i].literal...)
			continue
		}
		v := ps[i].value(m)
		switch v := v.(type) {
		case nil:
			if !omitEmpty {
				b = append(b, '-')
			}
		case string:
			b = append(b, v...)
		case typed:
			b = append(b, v.text...)
		case uint64:
			b = strconv.AppendUint(b, v, 10)
		case json.RawMessage:
			b = append(b, v...)
		default:
			b = append(b, jsonOf(v)...)
		}
	}
	return b
}

// value is the command's, cut to its length.
func (p *piece) value(m Moment) any {
	v := p.get(m)
	if p.max < 0 || v == nil {
		return v
	}
	if t, is := v.(typed); is {
		t.text = t.text[:min(len(t.text), p.max)]
		if s, is := t.json.(string); is {
			t.json = s[:min(len(s), p.max)]
		}
		return t
	}
	s, ok := v.(string)
	if !ok {
		s = string(appendText(nil, []piece{{get: func(Moment) any { return v }, max: -1}}, m, false))
	}
	return s[:min(len(s), p.max)]
}

// appendNode appends nothing for what omitEmpty leaves out.
func (f *Formatter) appendNode(b []byte, n *node, m Moment) []byte {
	switch {
	case n.isObject:
		start, first := len(b), true
		b = append(b, '{')
		for i := range n.fields {
			at := len(b)
			if !first {
				b = append(b, ',')
			}
			b = append(append(b, n.fields[i].key...), ':')
			value := len(b)
			if b = f.appendNode(b, &n.fields[i].value, m); len(b) == value {
				b = b[:at]
				continue
			}
			first = false
		}
		if first && f.omitEmpty {
			return b[:start]
		}
		return append(b, '}')
	case n.isList:
		first := true
		b = append(b, '[')
		for i := range n.list {
			at := len(b)
			if !first {
				b = append(b, ',')
			}
			value := len(b)
			if b = f.appendNode(b, &n.list[i], m); len(b) == value {
				b = b[:at]
				continue
			}
			first = false
		}
		return append(b, ']') // an empty one too, as in Envoy
	case n.literal != "":
		return append(b, n.literal...)
	case len(n.pieces) == 1 && n.pieces[0].get != nil:
		// A lone command keeps its type.
		switch v := n.pieces[0].value(m).(type) {
		case nil:
			if f.omitEmpty {
				return b
			}
			return append(b, "null"...)
		case string:
			return append(b, quote(v)...)
		case typed:
			return append(b, jsonOf(v.json)...)
		default:
			return append(b, jsonOf(v)...)
		}
	case len(n.pieces) > 0:
		return append(b, quote(string(appendText(nil, n.pieces, m, f.omitEmpty)))...)
	case f.omitEmpty:
		return b
	}
	return append(b, "null"...)
}

func quote(s string) []byte { return jsonOf(s) }

func jsonOf(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return []byte(fmt.Sprintf("%q", err.Error()))
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}
