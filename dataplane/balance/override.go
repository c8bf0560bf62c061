package balance

import "strings"

// named is the next host that the connection's metadata name, nil if there is
// none that the cluster has; a host's health does not matter. A connection that
// picks again gets the one after it.
func (s *Set) named(a *Asked) Host {
	n := 0
	for _, source := range s.config.Balancing.Override.Sources {
		var v any = map[string]any(a.Metadata[source.Filter])
		for _, key := range source.Path {
			fields, _ := v.(map[string]any)
			v = fields[key]
		}
		list, _ := v.(string)
		for one := range strings.SplitSeq(list, ",") {
			if one = strings.TrimSpace(one); one == "" {
				continue
			}
			if n++; n <= a.Named {
				continue
			}
			a.Named = n
			if h := s.addresses[one]; h != nil {
				return h
			}
		}
	}
	return nil
}
