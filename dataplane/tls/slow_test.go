package tls

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"golang.org/x/sys/unix"
)

// small are sockets that hold little.
func (r *rig) small() (int, *net.UnixConn) {
	fd, c := r.sockets()
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4608)
	return fd, c
}

// waiting is the ciphertext that a connection keeps, and the memory that it is in.
func (c *Conn) waiting() (left, memory int) {
	if c.socket.out == nil {
		return 0, 0
	}
	return len(*c.socket.out) - c.socket.off, cap(*c.socket.out)
}

// While the peer reads nothing one Send is taken and no more, whatever is asked; then
// it gets what was taken, byte for byte, with close_notify behind.
func TestSendWaitsForASlowReader(t *testing.T) {
	both(t, func(t *testing.T, r *rig, server bool) {
		fd, raw := r.small()
		c, p := r.established(server, fd, raw)
		data := make([]byte, 3*sendSize+1)
		rand.NewChaCha8([32]byte{}).Read(data)
		n, err := c.Send(data)
		if n != sendSize || err != 0 || !c.Holds() {
			t.Fatalf("sent %d, %v; holds %v", n, err, c.Holds())
		}
		before, _ := c.waiting()
		for range 1000 {
			if n, err := c.Send(data[n:]); n != 0 || err != unix.EAGAIN {
				t.Fatalf("sent %d more, %v, while the reader stands", n, err)
			}
		}
		if left, memory := c.waiting(); left != before || memory > blockSize {
			t.Fatalf("%d bytes wait in %d, before %d", left, memory, before)
		}
		read := make(chan []byte, 1)
		go func() { b, _ := io.ReadAll(p); read <- b }()
		for n < len(data) {
			m, err := c.Send(data[n:])
			if n += m; err == unix.EAGAIN {
				wait(t, fd, unix.POLLOUT)
			} else if err != 0 {
				t.Fatal(err)
			}
		}
		c.CloseWrite() // behind what waits
		for c.Flush() == unix.EAGAIN {
			wait(t, fd, unix.POLLOUT)
		}
		if c.Holds() {
			t.Error("it holds something that it has flushed")
		}
		if got := <-read; !bytes.Equal(got, data) {
			t.Errorf("the peer read %d bytes, want %d, or others", len(got), len(data))
		}
	})
}

// What a peer does not read when it goes is told by the kernel, once and for all.
func TestSendToAPeerThatIsGone(t *testing.T) {
	both(t, func(t *testing.T, r *rig, server bool) {
		fd, raw := r.small()
		c, _ := r.established(server, fd, raw)
		c.Send(make([]byte, sendSize))
		raw.Close()
		for range 2 {
			if err := c.Flush(); err != unix.EPIPE && err != unix.ECONNRESET {
				t.Errorf("flush says %v", err)
			}
			if n, err := c.Send([]byte("x")); n != 0 || err != unix.EPIPE && err != unix.ECONNRESET {
				t.Errorf("sent %d, %v", n, err)
			}
		}
	})
}

// A flight that the socket does not take at once goes on when it can.
func TestHandshakeWaitsForASlowReader(t *testing.T) {
	r := newRig(t)
	var names []string
	for range 2000 {
		names = append(names, "a-name-that-takes-some-room.server.example")
	}
	large := r.ca.Issue(append(names, "server.example"))
	r.down.Certificates = []*api.TLSCertificate{{Chain: large.PEM, Key: large.Key}}
	fd, raw := r.small()
	b := r.begin(true, fd)
	p := r.peerOf(true, &sipping{Conn: raw})
	if err := errors.Join(p.Handshake(), b.end()); err != nil {
		t.Fatal(err)
	}
	// Tickets are part of it.
	if _, err := b.Send([]byte("text")); err != 0 {
		t.Fatal(err)
	}
	if n, err := io.ReadFull(p, make([]byte, 4)); err != nil {
		t.Errorf("read %d, %v", n, err)
	}
}

// sipping reads little at once.
type sipping struct{ net.Conn }

func (s *sipping) Read(b []byte) (int, error) { return s.Conn.Read(b[:min(len(b), 700)]) }

// sealer writes records of its own making in a session of TLS 1.3.
type sealer struct {
	t    *testing.T
	raw  net.Conn
	keys *keys
}

// forged makes a session whose client is a sealer.
func (r *rig) forged(fd int, raw net.Conn) (*Conn, *tls.Conn, *sealer) {
	secrets := &bytes.Buffer{}
	r.peer.KeyLogWriter = secrets
	c, p := r.established(true, fd, raw)
	return c, p, &sealer{r.t, raw, newKeys(r.t, secrets.String(), "CLIENT_TRAFFIC_SECRET_0")}
}

const (
	handshakeRecord = 22
	alertRecord     = 21
	dataRecord      = 23
)

func (s *sealer) write(records ...[]byte) error {
	_, err := s.raw.Write(slices.Concat(records...))
	return err
}

// update is a KeyUpdate, after which it seals by the next key.
func (s *sealer) update(requested byte) []byte {
	r := s.keys.seal(handshakeRecord, []byte{24, 0, 0, 1, requested})
	s.keys = s.keys.next()
	return r
}

// What comes between a peer's bytes takes none of them: records without bytes, updates
// of keys whether or not one in return is asked for, in pieces too, and what is refused.
func TestRecordsBetweenTheBytes(t *testing.T) {
	data := func(s *sealer, text string) []byte { return s.keys.seal(dataRecord, []byte(text)) }
	for name, tt := range map[string]struct {
		write   func(s *sealer)
		want    string
		errno   syscall.Errno
		failure string
	}{
		"nothing":               {func(s *sealer) { s.write(data(s, "a"), data(s, "b")) }, "ab", 0, ""},
		"records without bytes": {func(s *sealer) { s.write(data(s, "a"), data(s, ""), data(s, ""), data(s, "b")) }, "ab", 0, ""},
		"too many records without bytes": {func(s *sealer) {
			for range 64 {
				s.write(data(s, ""))
			}
		}, "", unix.EPROTO, ""},
		"a record as large as they come": {func(s *sealer) { s.write(data(s, string(make([]byte, 16384)))) }, string(make([]byte, 16384)), 0, ""},
		"a record that is larger":        {func(s *sealer) { s.write(data(s, string(make([]byte, 16385)))) }, "", unix.EPROTO, ""},
		"new keys":                       {func(s *sealer) { s.write(data(s, "a"), s.update(0)); s.write(data(s, "b")) }, "ab", 0, ""},
		"new keys, and ours": {func(s *sealer) {
			for range 100 {
				s.write(s.update(1))
				s.write(data(s, "a"))
			}
		}, string(bytes.Repeat([]byte("a"), 100)), 0, ""},
		"new keys in two pieces": {func(s *sealer) {
			s.write(data(s, "a"), s.keys.seal(handshakeRecord, []byte{24, 0}))
			time.Sleep(time.Millisecond) // so that there is a look in between
			s.write(s.keys.seal(handshakeRecord, []byte{0, 1, 0}))
			s.keys = s.keys.next()
			s.write(data(s, "b"))
		}, "ab", 0, ""},
		"a message that is no part of it": {func(s *sealer) {
			s.write(data(s, "a"), s.keys.seal(handshakeRecord, []byte{20, 0, 0, 0}), data(s, "b"))
		}, "a", unix.EPROTO, ""},
		"an alert": {func(s *sealer) { s.write(data(s, "a"), s.keys.seal(alertRecord, []byte{2, 80}), data(s, "b")) }, "a", unix.EPROTO,
			"TLS_error:|268436536:SSL routines:OPENSSL_internal:TLSV1_ALERT_INTERNAL_ERROR:TLS_error_end"},
		"bytes behind the end": {func(s *sealer) { s.write(data(s, "a"), s.keys.seal(alertRecord, []byte{1, 0}), data(s, "b")) }, "a", 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			fd, raw := r.sockets()
			c, p, s := r.forged(fd, raw)
			go io.Copy(io.Discard, p) // answers
			go func() { tt.write(s); s.write(s.keys.seal(alertRecord, []byte{1, 0})) }()
			got, err := receive(t, c, fd)
			if string(got) != tt.want || err != tt.errno || tt.failure != "" && c.Failure() != tt.failure {
				t.Errorf("received %d bytes, %v, %q, want %d, %v", len(got), err, c.Failure(), len(tt.want), tt.errno)
			}
			if n, again := c.Recv(make([]byte, 9)); n != 0 || again != tt.errno {
				t.Errorf("then %d, %v", n, again)
			}
			raw.CloseWrite()
			unix.Shutdown(fd, unix.SHUT_RDWR)
		})
	}
}

// Each update that asks for one is answered, and who reads no answer would have them
// pile up: that ends the connection.
func TestAnswersThatNobodyReads(t *testing.T) {
	r := newRig(t)
	fd, raw := r.small()
	c, p, s := r.forged(fd, raw)
	most := 0
	for range 20_000 {
		if err := s.write(s.update(1)); err != nil {
			t.Fatal(err)
		}
		if err := s.write(s.keys.seal(dataRecord, []byte("x"))); err != nil {
			t.Fatal(err)
		}
		n, err := c.Recv(make([]byte, 10))
		_, memory := c.waiting()
		most = max(most, memory)
		if err != 0 && err != unix.EAGAIN {
			if err != unix.ENOBUFS || c.Broke() {
				t.Errorf("it ended by %v, TLS broke: %v", err, c.Broke())
			}
			break
		}
		if n == 0 && err == 0 {
			t.Fatal("it ended in order")
		}
	}
	if most == 0 || most > 3*maxWaiting {
		t.Errorf("%d bytes of memory held the answers", most)
	}
	if c.failure == nil {
		t.Error("it never ended")
	}
	if n, err := c.Send([]byte("x")); n != 0 || err == 0 || err == unix.EAGAIN {
		t.Errorf("sent %d, %v after it", n, err)
	}
	_ = p
}

// A reader that is slow and not dead gets its answers, and their buffer does not grow by
// what was sent of it.
func TestAnswersThatAreReadLate(t *testing.T) {
	r := newRig(t)
	fd, raw := r.small()
	c, _, s := r.forged(fd, raw)
	c.Send(make([]byte, sendSize))
	const updates, answer = 20, 5 + 5 + 1 + 16
	read := make([]byte, updates*answer) // as much as comes, so that always much waits
	for range 1000 {
		for range updates {
			s.write(s.update(1))
			s.write(s.keys.seal(dataRecord, []byte("x")))
			if _, err := c.Recv(make([]byte, 10)); err != 0 && err != unix.EAGAIN {
				t.Fatal(err)
			}
		}
		if _, err := io.ReadFull(raw, read); err != nil {
			t.Fatal(err)
		}
		c.Flush()
		if left, memory := c.waiting(); left == 0 || memory > 2*maxWaiting {
			t.Fatalf("%d bytes wait in %d", left, memory)
		}
	}
}
