package resource

import (
	"fmt"
	"os"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// maxDataSource bounds what a file may hold that a resource refers to: 1 MiB.
const maxDataSource = 1 << 20

// dataSource reads a DataSource. Its errors are Envoy's.
func dataSource(s *corev3.DataSource) (string, error) {
	switch k := s.GetSpecifier().(type) {
	case *corev3.DataSource_InlineString:
		return k.InlineString, nil
	case *corev3.DataSource_InlineBytes:
		return string(k.InlineBytes), nil
	case *corev3.DataSource_EnvironmentVariable:
		v, ok := os.LookupEnv(k.EnvironmentVariable)
		if !ok {
			return "", fmt.Errorf("Environment variable doesn't exist: %s", short(k.EnvironmentVariable))
		}
		return v, nil
	case *corev3.DataSource_Filename:
		info, err := os.Stat(k.Filename)
		// What is no regular file would stop the reader (a pipe) or never end.
		// Envoy refuses some of these by their folder, in the same words.
		if err != nil || !info.Mode().IsRegular() {
			return "", fmt.Errorf("Invalid path: %s", short(k.Filename))
		}
		if info.Size() > maxDataSource {
			return "", fmt.Errorf("file %s is %d bytes long, more than %d", short(k.Filename), info.Size(), maxDataSource)
		}
		b, err := os.ReadFile(k.Filename)
		if err != nil {
			return "", fmt.Errorf("unable to read file: %s", short(k.Filename))
		}
		return string(b), nil
	}
	return "", fmt.Errorf("DataSource cannot be empty")
}
