package admin

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/api/runtime"
)

func do(f *fixture, method, target string) (int, string) {
	r := f.do(method, target)
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, err.Error()
	}
	return r.StatusCode, string(b)
}

// Codes and texts are Envoy 1.40's.
func TestRuntime(t *testing.T) {
	r, err := runtime.New([]runtime.Layer{{Name: "base", Values: map[string]string{"a": "1"}}, {Name: "admin", Admin: true}})
	if err != nil {
		t.Fatal(err)
	}
	s := newFixture(t, func(o *Options) { o.Runtime = r })
	for _, step := range []struct {
		method, path string
		code         int
		body         string
	}{
		{"GET", "/runtime", 200, "{\n \"layers\": [\n  \"base\",\n  \"admin\"\n ],\n \"entries\": {\n  \"a\": {\n   \"layer_values\": [\n    \"1\",\n    \"\"\n   ],\n   \"final_value\": \"1\"\n  }\n }\n}"},
		{"POST", "/runtime_modify?a=5&b=x", 200, "OK\n"},
		{"GET", "/runtime", 200, `"final_value": "5"`},
		{"POST", "/runtime_modify?a=", 200, "OK\n"},
		{"GET", "/runtime", 200, `"final_value": "1"`},
		{"POST", "/runtime_modify", 400, "usage: /runtime_modify?key1=value1"},
		{"GET", "/runtime_modify?a=1", 405, "Method GET not allowed, POST required."},
	} {
		if code, body := do(s, step.method, step.path); code != step.code || !strings.Contains(body, step.body) {
			t.Errorf("%s %s: %d\n%s", step.method, step.path, code, body)
		}
	}
	form := httptest.NewRequest(http.MethodPost, "/runtime_modify", strings.NewReader("w=1&v=2"))
	w := httptest.NewRecorder()
	if s.ServeHTTP(w, form); w.Code != 200 || r.Values()["w"] != "1" || r.Values()["v"] != "2" {
		t.Error("values of a form are not taken", w.Code, r.Values())
	}
	none := newFixture(t)
	if code, body := do(none, "POST", "/runtime_modify?a=1"); code != http.StatusServiceUnavailable || body != "No admin layer specified" {
		t.Error(code, body)
	}
	if code, body := do(none, "GET", "/runtime"); code != 200 || body != "{\n \"layers\": [],\n \"entries\": {}\n}" {
		t.Error(code, body)
	}
}
