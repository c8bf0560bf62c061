package tlsinspector

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
)

func realHello(tb testing.TB, name string, protocols ...string) []byte {
	tb.Helper()
	ours, theirs := net.Pipe()
	go func() {
		_ = tls.Client(theirs, &tls.Config{ServerName: name, NextProtos: protocols, InsecureSkipVerify: true}).Handshake() // ends when we close
		theirs.Close()
	}()
	defer ours.Close()
	head := make([]byte, recordHeader)
	if _, err := io.ReadFull(ours, head); err != nil {
		tb.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint16(head[3:]))
	if _, err := io.ReadFull(ours, body); err != nil {
		tb.Fatal(err)
	}
	return append(head, body...)
}

func TestEveryPrefixOfAHelloIsPartial(t *testing.T) {
	b := realHello(t, "one.example", "h2", "http/1.1")
	for n := range b {
		if _, s := parse(b[:n]); s != partial {
			t.Fatalf("%d of %d bytes: %v", n, len(b), s)
		}
	}
	h, s := parse(b)
	if s != whole || h.serverName != "one.example" || strings.Join(h.protocols, " ") != "h2 http/1.1" {
		t.Fatalf("%v %+v", s, h)
	}
}

func TestWhatIsNoHello(t *testing.T) {
	b := realHello(t, "one.example")
	at := func(i int, v byte) string {
		c := append([]byte(nil), b...)
		c[i] = v
		return string(c)
	}
	for what, in := range map[string]string{
		"text": "hello", "another record": at(0, 23), "version 2": at(1, 2), "a server hello": at(5, 2), "a record that is too long": at(3, 0x50),
		"a session id that is too long": at(43, 33), "no compressions": "\x16\x03\x01\x00\x2c\x01\x00\x00\x28\x03\x03" + strings.Repeat("r", 32) + "\x00\x00\x02\x13\x01\x00",
	} {
		if _, s := parse([]byte(in)); s != none {
			t.Errorf("%s: %v", what, s)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(realHello(f, "one.example", "h2"))
	f.Add(realHello(f, ""))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, s := parse(b)
		if s == whole {
			// More bytes behind it change nothing.
			if again, s := parse(append(b[:len(b):len(b)], "more"...)); s != whole || again.serverName != h.serverName {
				t.Fatal(s)
			}
			if h.ja3() == "" || h.ja4() == "" {
				t.Fatal("no fingerprint")
			}
		}
		if s == none && len(b) > recordHeader {
			if _, s := parse(append(b[:len(b):len(b)], 0)); s == whole {
				t.Fatal("was none before")
			}
		}
	})
}
