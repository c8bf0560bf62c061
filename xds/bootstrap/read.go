package bootstrap

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/sluice-proxy/sluice/xds/resource"
)

// flagYAML stands for a file's name in errors about --config-yaml.
const flagYAML = "--config-yaml"

// read parses all that the options name into one Bootstrap, the flag's text
// merged over the file's. unknown counts the fields that were dropped.
func read(o Options, file func(string) ([]byte, error)) (p *bootstrapv3.Bootstrap, unknown int, err error) {
	if o.Path == "" && o.YAML == "" {
		return nil, 0, errors.New("At least one of --config-path or --config-yaml should be non-empty")
	}
	p = &bootstrapv3.Bootstrap{}
	if o.Path != "" {
		b, err := file(o.Path)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: unable to read file: %w", o.Path, cause(err))
		}
		n, err := parse(b, filepath.Ext(o.Path), o.AllowUnknownStatic, p)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", o.Path, err)
		}
		unknown += n
	}
	if o.YAML != "" {
		over := &bootstrapv3.Bootstrap{}
		n, err := parse([]byte(o.YAML), ".yaml", o.AllowUnknownStatic, over)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", flagYAML, err)
		}
		unknown += n
		proto.Merge(p, over)
	}
	return p, unknown, nil
}

// parse reads b by the file's extension; without a known one it looks.
func parse(b []byte, ext string, dropUnknown bool, p *bootstrapv3.Bootstrap) (unknown int, err error) {
	switch ext {
	case ".pb":
		err = (proto.UnmarshalOptions{}).Unmarshal(b, p)
	case ".pb_text", ".textproto":
		err = (prototext.UnmarshalOptions{Resolver: resource.NewResolver()}).Unmarshal(b, p)
	default:
		return parseTree(b, dropUnknown, p)
	}
	if err != nil {
		return 0, oneLine(err)
	}
	return 0, nil // unknown fields are still in p, and are counted there
}

func parseTree(b []byte, dropUnknown bool, p *bootstrapv3.Bootstrap) (unknown int, err error) {
	v, err := anyTree(b)
	if err != nil {
		return 0, err
	}
	if v == nil {
		v = map[string]any{} // an empty file, as Envoy takes it
	}
	t := tree{dropUnknown: dropUnknown}
	j, err := t.bytes(p.ProtoReflect().Descriptor(), v)
	if err != nil {
		return 0, err
	}
	if err := (protojson.UnmarshalOptions{Resolver: resource.NewResolver()}).Unmarshal(j, p); err != nil {
		return 0, oneLine(err)
	}
	return t.unknown, nil
}

// anyTree reads JSON, and YAML where it is no JSON.
func anyTree(b []byte) (any, error) {
	if s := bytes.TrimSpace(b); len(s) > 0 && s[0] == '{' {
		v, err := numbers(s)
		if err == nil {
			return v, nil
		}
		if errors.Is(err, errTrailing) {
			return nil, fmt.Errorf("unable to read JSON: %w", err)
		}
		if _, yerr := yaml.YAMLToJSONStrict(b); yerr != nil {
			return nil, fmt.Errorf("unable to read JSON: %w", oneLine(err))
		}
	}
	j, err := yaml.YAMLToJSONStrict(b)
	if err != nil {
		return nil, fmt.Errorf("unable to read YAML: %w", oneLine(err))
	}
	return numbers(j)
}

// oneLine makes a library's error one line that is the same every time: the
// protobuf library writes a no-break space at random.
func oneLine(err error) error {
	s := strings.ReplaceAll(err.Error(), "\u00a0", " ")
	s = strings.TrimPrefix(s, "proto: ")
	return errors.New(strings.Join(strings.Fields(s), " "))
}

// cause is what the system said, without the path that is in the message already.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
