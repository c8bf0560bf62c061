package balance

import (
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// XXHash is XXH64 of s, by which Envoy hashes connections and hosts.
func XXHash(s string, seed uint64) uint64 {
	var d xxhash.Digest
	d.ResetWithSeed(seed)
	_, _ = d.WriteString(s) // never fails
	return d.Sum64()
}

// murmurHash is MurmurHash2 in the variant of libstdc++, with its seed.
func murmurHash(s string) uint64 {
	const mul, seed = 0xc6a4a7935bd1e995, 0xc70f6907
	mix := func(v uint64) uint64 { return v ^ v>>47 }
	b := []byte(s)
	h := uint64(seed) ^ uint64(len(b))*mul
	for ; len(b) >= 8; b = b[8:] {
		h = (h ^ mix(binary.LittleEndian.Uint64(b)*mul)*mul) * mul
	}
	if len(b) > 0 {
		var rest uint64
		for i, c := range b {
			rest |= uint64(c) << (8 * i)
		}
		h = (h ^ rest) * mul
	}
	return mix(mix(h) * mul)
}

// twister is std::mt19937, which orders the hosts that bounded loads try.
type twister struct {
	state [624]uint32
	at    int
}

func (t *twister) seed(s uint32) {
	t.state[0] = s
	for i := 1; i < len(t.state); i++ {
		t.state[i] = 1812433253*(t.state[i-1]^t.state[i-1]>>30) + uint32(i)
	}
	t.at = len(t.state)
}

func (t *twister) next() uint32 {
	if t.at == len(t.state) {
		t.twist()
	}
	y := t.state[t.at]
	t.at++
	y ^= y >> 11
	y ^= y << 7 & 0x9d2c5680
	y ^= y << 15 & 0xefc60000
	return y ^ y>>18
}

func (t *twister) twist() {
	n := len(t.state)
	for i := range t.state {
		y := t.state[i]&0x80000000 | t.state[(i+1)%n]&0x7fffffff
		t.state[i] = t.state[(i+397)%n] ^ y>>1 ^ -(y&1)&0x9908b0df
	}
	t.at = 0
}

// under is a number under k, as Envoy draws it.
func (t *twister) under(k uint32) uint32 {
	for {
		if x := uint64(t.next()) / (1 << 32 / uint64(k)); x < uint64(k) {
			return uint32(x)
		}
	}
}
