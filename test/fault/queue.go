package fault

import "container/heap"

// queue gives packets by due time, and those due at once in the order of their
// coming.
type queue struct {
	h items
	n uint64
}

type item struct {
	delayed
	n uint64
}

type items []item

func (q *queue) len() int       { return len(q.h) }
func (q *queue) first() delayed { return q.h[0].delayed }
func (q *queue) take() delayed  { return heap.Pop(&q.h).(item).delayed }
func (q *queue) put(d delayed) {
	q.n++
	heap.Push(&q.h, item{d, q.n})
}

func (h items) Len() int { return len(h) }
func (h items) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].n < h[j].n
	}
	return h[i].due.Before(h[j].due)
}
func (h items) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *items) Push(x any)   { *h = append(*h, x.(item)) }
func (h *items) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
