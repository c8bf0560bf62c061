package httpinspector

import "testing"

func TestInspect(t *testing.T) {
	for _, tt := range []struct {
		in, protocol string
		done         bool
	}{
		{"", "", false}, {"G", "", false}, {"GET / HTTP/1.1", "", false}, {"PRI * HTTP/2.0\r\n", "", false}, {"P", "", false},
		{"GET / HTTP/1.1\r\n", "http/1.1", true}, {"GET / HTTP/1.1\n", "http/1.1", true}, {"POST /x HTTP/1.0\r", "http/1.0", true},
		{"foo / HTTP/1.1\r\n", "http/1.1", true}, {"GET /\r\n", "http/1.0", true}, {"GET http://a/ HTTP/1.1\r\n", "http/1.1", true}, {"CONNECT a:1 HTTP/1.1\r\n", "http/1.1", true},
		{preface, "h2c", true}, {preface + "more", "h2c", true},
		{"hello, this", "", true}, {"hel,", "", false}, {"a b,c", "", false}, {"HELO there\r\n", "", true}, {"GET\r\n", "", true}, {"\x00", "", true}, {"\r\n", "", true}, {"GET / HTTP/x.1\r\n", "", true},
	} {
		if p, done := inspect([]byte(tt.in)); p != tt.protocol || done != tt.done {
			t.Errorf("%q: got %q, %v", tt.in, p, done)
		}
	}
}

func FuzzInspect(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Add([]byte(preface))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, done := inspect(b)
		if !done {
			return
		}
		if again, done := inspect(append(b[:len(b):len(b)], " x"...)); !done || again != p {
			t.Fatalf("%q, then %q", p, again)
		}
	})
}
