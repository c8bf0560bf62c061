package admin

import (
	"encoding/json"
	"net/http"

	"github.com/sluice-proxy/sluice/api/runtime"
)

// runtime answers as Envoy's runtime_handler.cc does; keys come sorted here.
func (s *Server) runtime(a *answer, _ query) {
	type entry struct {
		Layers []string `json:"layer_values"`
		Final  string   `json:"final_value"`
	}
	out := struct {
		Layers  []string         `json:"layers"`
		Entries map[string]entry `json:"entries"`
	}{s.o.Runtime.Layers(), map[string]entry{}}
	for key, layers := range s.o.Runtime.Entries() {
		e := entry{Layers: layers}
		for _, v := range layers {
			if v != "" {
				e.Final = v
			}
		}
		out.Entries[key] = e
	}
	b, err := json.MarshalIndent(out, "", " ")
	if err != nil { // strings always can be
		a.fail(http.StatusInternalServerError, "%v", err)
		return
	}
	a.contentType = applicationJSON
	a.Write(b)
}

func (s *Server) runtimeModify(a *answer, q query) {
	values := map[string]string{}
	for _, p := range q {
		values[p[0]] = p[1]
	}
	if len(values) == 0 {
		a.fail(http.StatusBadRequest, "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n"+
			"       or send the parameters as form values\n"+
			"use an empty value to remove a previously added override")
		return
	}
	if err := s.o.Runtime.Modify(values); err != nil {
		a.fail(http.StatusServiceUnavailable, "%s", runtime.ErrNoAdmin)
		return
	}
	a.WriteString("OK\n")
}
