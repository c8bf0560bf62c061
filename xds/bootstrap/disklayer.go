package bootstrap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"

	"github.com/sluice-proxy/sluice/api/runtime"
)

// maxDiskDepth is Envoy's bound on directories in directories.
const maxDiskDepth = 16

// DiskLayer is a layer of the runtime that lies in a directory: a file for each
// key.
type DiskLayer struct {
	Layer string
	// Root is a link to the directory in force, or to what it lies in: a move onto
	// it changes the layer.
	Root string
	path string
}

func diskLayer(name string, p *bootstrapv3.RuntimeLayer_DiskLayer, cluster string) DiskLayer {
	path := p.GetSymlinkRoot() + "/" + p.GetSubdirectory()
	if p.GetAppendServiceCluster() {
		path += "/" + cluster
	}
	return DiskLayer{Layer: name, Root: p.GetSymlinkRoot(), path: path}
}

// Directory is the one that Root lies in.
func (d DiskLayer) Directory() string { return filepath.Dir(d.Root) }

// Read reads the directory as it is now.
func (d DiskLayer) Read() runtime.Layer {
	l := runtime.Layer{Name: d.Layer, Values: map[string]string{}, Disk: runtime.DiskRead}
	if s, err := os.Stat(d.path); err != nil || !s.IsDir() {
		l.Disk = runtime.DiskMissing
		return l
	}
	if err := readKeys(l.Values, d.path, "", 1); err != nil {
		l.Disk, l.Values = runtime.DiskBroken, map[string]string{}
	}
	return l
}

func readKeys(into map[string]string, dir, prefix string, depth int) error {
	if depth > maxDiskDepth {
		return fmt.Errorf("walk %s: recursion depth exceeded %d", dir, maxDiskDepth)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path, key := filepath.Join(dir, e.Name()), prefix+e.Name()
		s, err := os.Stat(path)
		switch {
		case errors.Is(err, os.ErrNotExist): // a link to nowhere
			continue
		case err != nil:
			return err
		case s.IsDir():
			if err := readKeys(into, path, key+".", depth+1); err != nil {
				return err
			}
		case s.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			into[key] = diskValue(string(b))
		}
	}
	return nil
}

// diskValue is a file's content without comments, which are lines that begin with
// a hash.
func diskValue(text string) string {
	var kept []string
	for line := range strings.SplitSeq(text, "\n") {
		if line != "" && !strings.HasPrefix(line, "#") {
			kept = append(kept, line)
		}
	}
	return strings.TrimRight(strings.Join(kept, "\n"), " \t\r\n\v\f")
}
