package pair

import "math/bits"

// buffers are the pending bytes' homes, by power of two, kept for reuse up to a
// bound for the whole worker.
type buffers struct {
	free [19][][]byte // by log2 of the size
	kept int          // bytes
}

const (
	minBuffer   = 12 // log2
	maxBuffer   = 18
	keepBuffers = 8 << 20 // bytes per worker
)

func (b *buffers) get(n int) []byte {
	class := max(minBuffer, bits.Len(uint(n-1)))
	if f := b.free[class]; len(f) > 0 {
		buf := f[len(f)-1]
		f[len(f)-1] = nil
		b.free[class] = f[:len(f)-1]
		b.kept -= len(buf)
		return buf
	}
	return make([]byte, 1<<class)
}

func (b *buffers) put(buf []byte) {
	if b.kept+len(buf) > keepBuffers {
		return
	}
	class := bits.Len(uint(len(buf) - 1))
	b.free[class] = append(b.free[class], buf)
	b.kept += len(buf)
}
