// Package substitution reads Envoy's substitution format strings, the language
// of access logs: text with commands like %START_TIME% or %REQ(X):10%. What a
// command yields is up to who runs the format.
//
// Source: access_log/usage.rst; the refusals were seen on Envoy 1.40.
package substitution

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/sluice-proxy/sluice/api/expression"
)

// Format is text and commands in order. The zero value prints nothing.
type Format []Piece

// Piece is a literal, or a command if Command is not empty.
type Piece struct {
	Literal string
	Command string
	// Arg is what stood in parentheses.
	Arg string
	// Max is the length to cut the value to, in bytes; -1 means whole.
	Max int
	// Expression is what CEL and TYPED_CEL print; who reads the format sets it, for
	// it is not read here.
	Expression expression.Expression
}

var command = regexp.MustCompile(`^%([A-Z0-9_]+)(?:\((.*?)\))?(?::([0-9]+))?%`)

// Parse reads a format. Its errors are Envoy's.
func Parse(s string) (Format, error) {
	var out Format
	literal := strings.Builder{}
	flush := func() {
		if literal.Len() > 0 {
			out = append(out, Piece{Literal: literal.String(), Max: -1})
			literal.Reset()
		}
	}
	for i := 0; i < len(s); {
		if s[i] != '%' {
			literal.WriteByte(s[i])
			i++
			continue
		}
		if strings.HasPrefix(s[i:], "%%") {
			literal.WriteByte('%')
			i += 2
			continue
		}
		m := command.FindStringSubmatch(s[i:])
		if m == nil {
			return nil, fmt.Errorf("Incorrect configuration: %s. Couldn't find valid command at position %d", s, i)
		}
		p := Piece{Command: m[1], Arg: m[2], Max: -1}
		if m[3] != "" {
			n, err := strconv.Atoi(m[3])
			if err != nil {
				return nil, fmt.Errorf("Length must be an integer, given: %s", m[3])
			}
			p.Max = n
		}
		if err := check(p); err != nil {
			return nil, err
		}
		flush()
		out = append(out, p)
		i += len(m[0])
	}
	flush()
	return out, nil
}

// String is the piece as a format has it.
func (p Piece) String() string {
	if p.Command == "" {
		return strings.ReplaceAll(p.Literal, "%", "%%")
	}
	s := "%" + p.Command
	if p.Arg != "" {
		s += "(" + p.Arg + ")"
	}
	if p.Max >= 0 {
		s += ":" + strconv.Itoa(p.Max)
	}
	return s + "%"
}
