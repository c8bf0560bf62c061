package pair

import (
	"io"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// wordy is a transport with last words, which the socket takes only when it was asked
// a few times.
type wordy struct {
	fd      int
	words   string
	refuses int
	ended   bool
}

func (w *wordy) Recv(b []byte) (int, syscall.Errno)   { return recv(w.fd, b, 0) }
func (w *wordy) Ready() (end bool, err syscall.Errno) { return false, 0 }
func (w *wordy) Send(b []byte) (int, syscall.Errno)   { return send(w.fd, b) }
func (w *wordy) Holds() bool                          { return w.ended && w.words != "" }

func (w *wordy) Flush() syscall.Errno {
	if !w.Holds() {
		return 0
	}
	if w.refuses > 0 {
		w.refuses--
		return unix.EAGAIN
	}
	_, err := send(w.fd, []byte(w.words))
	w.words = ""
	return err
}

func (w *wordy) CloseWrite() { w.ended = true }

// The last words of a transport wait for room also where both streams are over and the
// sockets are about to be closed.
func TestLastWordsWaitForRoom(t *testing.T) {
	for name, serverEnds := range map[string]bool{"the server ends last": true, "the client ends last": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Off, "tcp4")
			w := &wordy{words: " and good bye", refuses: 5}
			p := r.pair(func(c *Config) {
				side, fd := 0, c.Downstream
				if !serverEnds {
					side, fd = 1, c.Upstream
				}
				w.fd = fd
				c.Transports[side] = w
			})
			listens, speaks := p.client, p.server
			if !serverEnds {
				listens, speaks = speaks, listens
			}
			listens.CloseWrite()
			if b, err := io.ReadAll(speaks); len(b) > 0 || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
			say(t, speaks, "text")
			speaks.CloseWrite()
			if b, err := io.ReadAll(listens); string(b) != "text and good bye" || err != nil {
				t.Errorf("read %q, %v", b, err)
			}
			if o := p.end(t); o != Complete {
				t.Errorf("ended as %v", o)
			}
		})
	}
}
