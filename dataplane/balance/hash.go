package balance

import (
	"encoding/binary"
	"math/bits"
)

const (
	prime1 = 0x9E3779B185EBCA87
	prime2 = 0xC2B2AE3D27D4EB4F
	prime3 = 0x165667B19E3779F9
	prime4 = 0x85EBCA77C2B2AE63
	prime5 = 0x27D4EB2F165667C5
)

// XXHash is XXH64 of s, by which Envoy hashes connections and hosts.
func XXHash(s string, seed uint64) uint64 {
	b := []byte(s) // does not leave the stack where s is short
	n := uint64(len(b))
	var h uint64
	if len(b) >= 32 {
		p1, p2 := uint64(prime1), uint64(prime2)
		v := [4]uint64{seed + p1 + p2, seed + p2, seed, seed - p1}
		for ; len(b) >= 32; b = b[32:] {
			for i := range v {
				v[i] = round(v[i], binary.LittleEndian.Uint64(b[8*i:]))
			}
		}
		h = bits.RotateLeft64(v[0], 1) + bits.RotateLeft64(v[1], 7) + bits.RotateLeft64(v[2], 12) + bits.RotateLeft64(v[3], 18)
		for _, one := range v {
			h = (h^round(0, one))*prime1 + prime4
		}
	} else {
		h = seed + prime5
	}
	h += n
	for ; len(b) >= 8; b = b[8:] {
		h = bits.RotateLeft64(h^round(0, binary.LittleEndian.Uint64(b)), 27)*prime1 + prime4
	}
	if len(b) >= 4 {
		h = bits.RotateLeft64(h^uint64(binary.LittleEndian.Uint32(b))*prime1, 23)*prime2 + prime3
		b = b[4:]
	}
	for _, c := range b {
		h = bits.RotateLeft64(h^uint64(c)*prime5, 11) * prime1
	}
	h = (h ^ h>>33) * prime2
	h = (h ^ h>>29) * prime3
	return h ^ h>>32
}

func round(v, in uint64) uint64 { return bits.RotateLeft64(v+in*prime2, 31) * prime1 }

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
