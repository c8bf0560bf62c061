package bootstrap

import (
	"errors"
	"fmt"
	"path/filepath"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-proxy/sluice/xds/file"
)

// flagYAML stands for a file's name in errors about --config-yaml.
const flagYAML = "--config-yaml"

// read parses all that the options name into one Bootstrap, the flag's text
// merged over the file's. unknown counts the fields that were dropped.
func read(o Options, open func(string) ([]byte, error)) (p *bootstrapv3.Bootstrap, unknown int, err error) {
	if o.Path == "" && o.YAML == "" {
		return nil, 0, errors.New("At least one of --config-path or --config-yaml or Options::configProto() should be non-empty")
	}
	p = &bootstrapv3.Bootstrap{}
	fo := file.Options{DropUnknown: o.AllowUnknownStatic}
	if o.Path != "" {
		b, err := open(o.Path)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: unable to read file: Invalid path: %[1]s: %[2]w", o.Path, file.Cause(err))
		}
		n, err := file.Parse(b, filepath.Ext(o.Path), fo, p)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", o.Path, err)
		}
		unknown += n
	}
	if o.YAML != "" {
		over := &bootstrapv3.Bootstrap{}
		n, err := file.Parse([]byte(o.YAML), ".yaml", fo, over)
		if err != nil {
			return nil, 0, fmt.Errorf("%s: %w", flagYAML, err)
		}
		unknown += n
		proto.Merge(p, over)
	}
	return p, unknown, nil
}
