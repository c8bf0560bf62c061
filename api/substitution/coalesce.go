package substitution

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Coalesce reads the argument of %COALESCE%: the commands of which the first
// that has a value counts. Its errors are Envoy's.
func Coalesce(arg string) ([]Piece, error) {
	var o struct {
		Operators json.RawMessage `json:"operators"`
	}
	if err := json.Unmarshal([]byte(arg), &o); err != nil {
		return nil, fmt.Errorf("COALESCE: failed to parse JSON configuration: %w", err)
	}
	if len(o.Operators) == 0 {
		return nil, errors.New("COALESCE: JSON configuration must contain 'operators' array")
	}
	var each []json.RawMessage
	if json.Unmarshal(o.Operators, &each) != nil || each == nil {
		return nil, errors.New("COALESCE: 'operators' must be an array")
	}
	if len(each) == 0 {
		return nil, errors.New("COALESCE: 'operators' array must not be empty")
	}
	out := make([]Piece, len(each))
	for i, raw := range each {
		p, err := operator(raw)
		if err == nil {
			err = check(p)
		}
		if err == nil && strings.HasSuffix(p.Command, "CEL") {
			err = errors.New("not supported yet (" + p.Command + ")")
		}
		if err != nil {
			text := strings.Replace(err.Error(), "Not supported field in StreamInfo: "+p.Command, "unknown command: '"+p.Command+"'", 1)
			return nil, fmt.Errorf("COALESCE: failed to parse operator at index %d: %s", i, text)
		}
		out[i] = p
	}
	return out, nil
}

func coalesce(_, arg string) error {
	_, err := Coalesce(arg)
	return err
}

// operator is a command's name, or an object of its parts.
func operator(raw json.RawMessage) (Piece, error) {
	p := Piece{Max: -1}
	if json.Unmarshal(raw, &p.Command) == nil && !bytes.Equal(raw, []byte("null")) {
		return p, nil
	}
	var o map[string]json.RawMessage
	if json.Unmarshal(raw, &o) != nil || o == nil {
		return p, errors.New("operator entry must be either a string (command name) or an object with 'command' field")
	}
	if json.Unmarshal(o["command"], &p.Command) != nil {
		return p, errors.New("operator object must have 'command' field: key 'command' missing or not a string")
	}
	if v, given := o["param"]; given && json.Unmarshal(v, &p.Arg) != nil {
		return p, errors.New("'param' field must be a string: key 'param' missing or not a string")
	}
	if v, given := o["max_length"]; given {
		if json.Unmarshal(v, &p.Max) != nil {
			return p, errors.New("'max_length' field must be an integer: key 'max_length' missing or not an integer")
		}
		if p.Max <= 0 {
			return p, errors.New("'max_length' must be a positive integer")
		}
	}
	return p, nil
}
