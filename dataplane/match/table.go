package match

import "net/netip"

// few is how many entries are searched one by one: below it that is as fast as
// hashing, and an index of many chains that differ in one criterion has tables
// of one entry for all others.
const few = 8

// table is an immutable map.
type table[K comparable, V any] struct {
	list []entry[K, V]
	hash map[K]*V
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

// get finds k.
func (t *table[K, V]) get(k K) (*V, bool) {
	if t.hash != nil {
		v, ok := t.hash[k]
		return v, ok
	}
	for i := range t.list {
		if t.list[i].key == k {
			return &t.list[i].value, true
		}
	}
	return nil, false
}

// most finds k, else any.
func (t *table[K, V]) most(k, any K) (*V, bool) {
	if v, ok := t.get(k); ok {
		return v, true
	}
	return t.get(any)
}

// add appends; the keys are distinct.
func (t *table[K, V]) add(k K, v V) { t.list = append(t.list, entry[K, V]{k, v}) }

// seal makes it quick; nothing is added after.
func (t *table[K, V]) seal() {
	if len(t.list) <= few {
		return
	}
	t.hash = make(map[K]*V, len(t.list))
	for i := range t.list {
		t.hash[t.list[i].key] = &t.list[i].value
	}
}

// prefixes finds values by the longest prefix. The zero prefix holds every
// address and is shorter than all others.
type prefixes[V any] struct {
	entries table[netip.Prefix, V]
	// lengths in use, longest first.
	bits4, bits6 []uint8
}

// longest finds the value of the longest prefix that holds a.
func (t *prefixes[V]) longest(a netip.Addr) (*V, bool) {
	bits := t.bits6
	if a.Is4() {
		bits = t.bits4
	}
	for _, n := range bits {
		p, err := a.WithZone("").Prefix(int(n))
		if err != nil {
			return nil, false
		}
		if v, ok := t.entries.get(p); ok {
			return v, true
		}
	}
	return t.entries.get(netip.Prefix{})
}

func (t *prefixes[V]) add(p netip.Prefix, v V) {
	t.entries.add(p, v)
	if !p.IsValid() {
		return
	}
	bits := &t.bits6
	if p.Addr().Is4() {
		bits = &t.bits4
	}
	*bits = insert(*bits, uint8(p.Bits()))
}

func (t *prefixes[V]) seal() { t.entries.seal() }

// insert keeps a descending list without doubles.
func insert(list []uint8, n uint8) []uint8 {
	i := 0
	for i < len(list) && list[i] > n {
		i++
	}
	if i < len(list) && list[i] == n {
		return list
	}
	list = append(list, 0)
	copy(list[i+1:], list[i:])
	list[i] = n
	return list
}
