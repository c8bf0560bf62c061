package main

import (
	"fmt"
	"strings"

	"github.com/sluice-proxy/sluice/api/stats"
)

// readStatsTags reads --stats-tag, name:value. Its errors are Envoy's.
func readStatsTags(flags []string) ([]stats.Tag, error) {
	var out []stats.Tag
	for _, f := range flags {
		name, value, ok := strings.Cut(f, ":")
		switch {
		case !ok:
			return nil, fmt.Errorf("error: misformatted stats-tag '%s'", f)
		case strings.ContainsFunc(name, notAlphanumeric):
			return nil, fmt.Errorf("error: misformatted stats-tag '%s' contains invalid char in '%s'", f, name)
		case value == "" || strings.Contains(value, "."):
			return nil, fmt.Errorf("error: misformatted stats-tag '%s' contains invalid char in '%s'", f, value)
		}
		out = append(out, stats.Tag{Name: name, Value: value})
	}
	return out, nil
}

func notAlphanumeric(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
}
