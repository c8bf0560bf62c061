package pair

import "math/bits"

// block is a home for pending bytes: left is what the destination has not taken.
type block struct{ whole, left []byte }

// buffers are the blocks of a worker, by power of two, kept for reuse up to a
// bound.
type buffers struct {
	free [19][]*block // by log2 of the size
	kept int          // bytes
}

const (
	minBuffer   = 12 // log2
	maxBuffer   = 18
	keepBuffers = 8 << 20 // bytes per worker
)

func (b *buffers) get(n int) *block {
	class := max(minBuffer, bits.Len(uint(n-1)))
	if f := b.free[class]; len(f) > 0 {
		buf := f[len(f)-1]
		f[len(f)-1] = nil
		b.free[class] = f[:len(f)-1]
		b.kept -= len(buf.whole)
		return buf
	}
	return &block{whole: make([]byte, 1<<class)}
}

func (b *buffers) put(buf *block) {
	size := len(buf.whole)
	if b.kept+size > keepBuffers {
		return
	}
	class := bits.Len(uint(size - 1))
	b.free[class] = append(b.free[class], buf)
	b.kept += size
}
