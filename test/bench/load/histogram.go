package load

import "math/bits"

// Histogram counts durations in ns, exact to one part in 32.
type Histogram [60 * 32]uint64

func (h *Histogram) add(ns int64) {
	v := uint64(max(0, ns))
	exp := max(0, bits.Len64(v)-6)
	h[exp*32+int(v>>exp)]++
}

func (h *Histogram) merge(o *Histogram) {
	for i, n := range o {
		h[i] += n
	}
}

// Quantile is the duration in ns that a share q of the counts does not exceed.
func (h *Histogram) Quantile(q float64) int64 {
	var total uint64
	for _, n := range h {
		total += n
	}
	if total == 0 {
		return 0
	}
	rank := max(1, uint64(q*float64(total)+0.5))
	for i, n := range h {
		if rank <= n {
			exp := max(0, i/32-1)
			return (int64(i-exp*32)<<exp + int64(i-exp*32+1)<<exp - 1) / 2
		}
		rank -= n
	}
	return 0
}
