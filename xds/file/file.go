// Package file reads protobuf messages from files in the forms that Envoy reads:
// YAML, JSON, protobuf binary and protobuf text. It is strict, and forgives what
// Envoy forgives: bootstraps, secrets and resources come through it.
package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// Options of Parse.
type Options struct {
	// DropUnknown drops and counts fields that are not known, which are errors
	// otherwise.
	DropUnknown bool
}

// Load reads the message in a file, whose name tells the form. Its errors begin
// with the path.
func Load(path string, o Options, m proto.Message) (unknown int, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("%s: unable to read file: %w", path, Cause(err))
	}
	unknown, err = Parse(b, filepath.Ext(path), o, m)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return unknown, nil
}

// Parse reads b by a file's extension; without a known one it looks. Unknown
// fields of a binary message stay in m and are not counted.
func Parse(b []byte, ext string, o Options, m proto.Message) (unknown int, err error) {
	switch strings.ToLower(ext) {
	case ".pb":
		err = (proto.UnmarshalOptions{}).Unmarshal(b, m)
	case ".pb_text", ".textproto":
		err = (prototext.UnmarshalOptions{Resolver: resource.NewResolver()}).Unmarshal(b, m)
	case ".yaml", ".yml":
		v, err := yamlTree(b)
		if err != nil {
			return 0, fmt.Errorf("unable to read YAML: %w", OneLine(err))
		}
		return parseTree(v, o, m)
	default:
		v, err := anyTree(b)
		if err != nil {
			return 0, err
		}
		return parseTree(v, o, m)
	}
	if err != nil {
		return 0, OneLine(err)
	}
	return 0, nil
}

func parseTree(v any, o Options, m proto.Message) (unknown int, err error) {
	if v == nil {
		v = map[string]any{} // an empty file, as Envoy takes it
	}
	t := tree{dropUnknown: o.DropUnknown}
	j, err := t.bytes(m.ProtoReflect().Descriptor(), v)
	if err != nil {
		return 0, err
	}
	if err := (protojson.UnmarshalOptions{Resolver: resource.NewResolver()}).Unmarshal(j, m); err != nil {
		return 0, OneLine(err)
	}
	return t.unknown, nil
}

// anyTree reads JSON, and YAML where it is no JSON.
func anyTree(b []byte) (any, error) {
	if s := strings.TrimSpace(string(b)); s != "" && s[0] == '{' {
		v, err := numbers([]byte(s))
		if err == nil {
			return v, nil
		}
		if errors.Is(err, errTrailing) {
			return nil, fmt.Errorf("unable to read JSON: %w", err)
		}
		v, yerr := yamlTree(b)
		if yerr == nil {
			return v, nil
		}
		return nil, fmt.Errorf("unable to read JSON: %w", OneLine(err))
	}
	v, err := yamlTree(b)
	if err != nil {
		return nil, fmt.Errorf("unable to read YAML: %w", OneLine(err))
	}
	return v, nil
}

// OneLine makes a library's error one line that is the same every time: the
// protobuf library writes a no-break space at random.
func OneLine(err error) error {
	s := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	s = strings.TrimPrefix(s, "proto: ")
	return errors.New(strings.Join(strings.Fields(s), " "))
}

// Cause is what the system said, without the path that is in the message already.
func Cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
