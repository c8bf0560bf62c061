package load

import (
	"bytes"
	"math/rand/v2"
)

// period is odd, and no multiple of a segment's or a buffer's size: a segment
// that is lost, repeated or swapped shows at once.
const period = 251 * 257

// maxChunk is the most that is sent, received or compared at once.
const maxChunk = 256 << 10

// pattern is what every stream is cut from: random bytes, repeated.
var pattern = func() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, period+maxChunk)
	for i := range p {
		if i < period {
			p[i] = byte(r.Uint32())
		} else {
			p[i] = p[i-period]
		}
	}
	return p
}()

// stream is a position in a connection's stream.
type stream uint64

// streamOf is where a connection's stream begins: every connection elsewhere, so
// that bytes of another one are seen.
func streamOf(id uint32) stream { return stream(uint64(id) * 40503 % period) }

// next is the stream's next n <= maxChunk bytes.
func (s stream) next(n int) []byte {
	at := int(uint64(s) % period)
	return pattern[at : at+n]
}

// check tells whether b is what comes next.
func (s stream) check(b []byte) bool { return bytes.Equal(b, s.next(len(b))) }
