package peer

import (
	"encoding/binary"
	"fmt"
	"io"
)

// A stamped stream is made of 8-byte words; the word at position 8k is a
// bijection of k and the stream's seed. So every byte follows from its
// position, and a stray word tells where it belongs.
const (
	mul    uint64 = 0x9E3779B97F4A7C15
	mulInv uint64 = 0xF1DE83E19937733D // mul * mulInv == 1 mod 2^64
)

func word(k, seed uint64) uint64     { return (k ^ key(seed)) * mul }
func position(w, seed uint64) uint64 { return (w * mulInv) ^ key(seed) }

// key spreads small seeds, lest zeroes look like a word of the stream.
func key(seed uint64) uint64 {
	seed = (seed + mul) * 0xBF58476D1CE4E5B9
	return seed ^ seed>>31
}

// Stamp fills p with the bytes of stream seed from position pos on.
func Stamp(p []byte, seed uint64, pos int64) {
	k := uint64(pos) / 8
	if skip := int(pos % 8); skip != 0 {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], word(k, seed))
		p = p[copy(p, b[skip:]):]
		k++
	}
	for ; len(p) >= 8; p = p[8:] {
		binary.LittleEndian.PutUint64(p, word(k, seed))
		k++
	}
	if len(p) > 0 {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], word(k, seed))
		copy(p, b[:])
	}
}

// Source reads as the first n bytes of stream seed, then io.EOF.
type Source struct {
	seed   uint64
	pos, n int64
}

// NewSource returns a source of n bytes.
func NewSource(seed uint64, n int64) *Source { return &Source{seed: seed, n: n} }

func (s *Source) Read(p []byte) (int, error) {
	if s.pos >= s.n {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), s.n-s.pos)]
	Stamp(p, s.seed, s.pos)
	s.pos += int64(len(p))
	return len(p), nil
}

// Checker is a writer that accepts stream seed only, from its start. After a
// mismatch it goes on refusing with the same error.
type Checker struct {
	seed uint64
	pos  int64
	err  error
	want []byte
}

// NewChecker returns a checker that expects the first byte.
func NewChecker(seed uint64) *Checker { return &Checker{seed: seed} }

// Mismatch is the first wrong byte of a stream.
type Mismatch struct {
	Offset    int64
	Want, Got byte
	// Origin is the offset at which the bytes found here belong, -1 if unknown.
	Origin int64
}

func (m *Mismatch) Error() string {
	s := fmt.Sprintf("check stream: offset %d: want byte %#02x, got %#02x", m.Offset, m.Want, m.Got)
	if m.Origin >= 0 {
		s += fmt.Sprintf(" (these bytes belong to offset %d)", m.Origin)
	}
	return s
}

func (c *Checker) Write(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if cap(c.want) < len(p) {
		c.want = make([]byte, len(p))
	}
	want := c.want[:len(p)]
	Stamp(want, c.seed, c.pos)
	if string(want) == string(p) {
		c.pos += int64(len(p))
		return len(p), nil
	}
	i := 0
	for want[i] == p[i] {
		i++
	}
	c.err = &Mismatch{Offset: c.pos + int64(i), Want: want[i], Got: p[i], Origin: origin(p[i:], c.seed)}
	c.pos += int64(i)
	return i, c.err
}

// Good is the number of bytes that were right, from the start.
func (c *Checker) Good() int64 { return c.pos }

// origin looks for a word of the stream in the first bytes of p.
func origin(p []byte, seed uint64) int64 {
	const farthest = 1 << 40 // a chance hit has one in 2^21
	for i := 0; i < 8 && i+8 <= len(p); i++ {
		k := position(binary.LittleEndian.Uint64(p[i:]), seed)
		if k < farthest/8 && int64(k*8) >= int64(i) {
			return int64(k*8) - int64(i)
		}
	}
	return -1
}
