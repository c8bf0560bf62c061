package stats

// Response codes are tags at the end of a name, as in Envoy: upstream_rq_200 is
// upstream_rq with envoy.response_code=200, downstream_rq_2xx is downstream_rq_xx
// with envoy.response_code_class=2.

// responseCode finds one in a name: the range that is cut out, and the tag.
func responseCode(name string) (from, to int, tag Tag, ok bool) {
	n := len(name) - len("_rq_200")
	if n < 0 || name[n:n+4] != "_rq_" || !digit(name[n+4]) {
		return 0, 0, Tag{}, false
	}
	code := name[n+4:]
	switch {
	case code[1:] == "xx":
		return n + 4, n + 5, Tag{"envoy.response_code_class", code[:1]}, true
	case digit(code[1]) && digit(code[2]):
		return n + 3, n + 7, Tag{"envoy.response_code", code}, true
	}
	return 0, 0, Tag{}, false
}

func digit(c byte) bool { return '0' <= c && c <= '9' }
