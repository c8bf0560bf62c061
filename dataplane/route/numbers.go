package route

// numbers stand for what has no room in the kernel's routes, from 1; 0 is none.
// A number that nobody holds is given out again.
type numbers struct {
	texts []string // by number, as shown
	keys  []any
	held  []int
	byKey map[any]uint32
	free  []uint32
}

func newNumbers() numbers {
	return numbers{texts: []string{""}, keys: []any{nil}, held: []int{0}, byKey: map[any]uint32{}}
}

// take holds the number of key, which is shown as text; none if that is empty.
func (n *numbers) take(text string, key any) uint32 {
	if text == "" {
		return 0
	}
	if i, ok := n.byKey[key]; ok {
		return n.again(i)
	}
	i := uint32(len(n.texts))
	if k := len(n.free); k > 0 {
		i, n.free = n.free[k-1], n.free[:k-1]
		n.texts[i], n.keys[i], n.held[i] = text, key, 1
	} else {
		n.texts, n.keys, n.held = append(n.texts, text), append(n.keys, key), append(n.held, 1)
	}
	n.byKey[key] = i
	return i
}

// again holds a number once more.
func (n *numbers) again(i uint32) uint32 {
	if i != 0 {
		n.held[i]++
	}
	return i
}

// give lets go of a number.
func (n *numbers) give(i uint32) {
	if i == 0 {
		return
	}
	if n.held[i]--; n.held[i] == 0 {
		delete(n.byKey, n.keys[i])
		n.texts[i], n.keys[i] = "", nil
		n.free = append(n.free, i)
	}
}
