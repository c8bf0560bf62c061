package tls

import (
	"crypto/tls"
	"net"
	"sync"
)

// Lend gives a connection whose handshake is over to a library and its goroutines,
// for good. From now on its bytes travel over under, which has the same socket, and
// is closed with what is returned.
func (c *Conn) Lend(under net.Conn) net.Conn {
	l := &lent{Conn: c.tls, from: c}
	if out := c.socket.out; out != nil {
		l.rest = append(l.rest, (*out)[c.socket.off:]...)
	}
	c.socket.mu.Lock()
	c.socket.dropLocked()
	c.socket.mu.Unlock()
	c.socket.under = under
	return l
}

// lent has one reader at a time, as net/http has.
type lent struct {
	*tls.Conn
	from *Conn
	once sync.Once
	rest []byte // of the handshake, that the socket has not taken
}

// Read reads plaintext, what Ready has seen first.
func (l *lent) Read(b []byte) (int, error) {
	if err := l.begin(); err != nil {
		return 0, err
	}
	if l.from.peeked && len(b) > 0 {
		b[0], l.from.peeked = l.from.first, false
		return 1, nil
	}
	return l.Conn.Read(b)
}

// Write writes plaintext.
func (l *lent) Write(b []byte) (int, error) {
	if err := l.begin(); err != nil {
		return 0, err
	}
	return l.Conn.Write(b)
}

// begin ends the handshake's last flight.
func (l *lent) begin() (err error) {
	l.once.Do(func() {
		if len(l.rest) > 0 {
			_, err = l.from.socket.under.Write(l.rest)
			l.rest = nil
		}
	})
	return err
}
