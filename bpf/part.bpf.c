//go:build ignore

/* The moment at which the halves of a grafted pair part: the proxy wants to end it in
 * order. Nothing new has passed since a grace period ago (STATE_PARTING). Once each
 * side has acknowledged all that the other has sent, the two are connections of their
 * own again, to sockets that have rested since the graft. Their positions differ from
 * the ends' by constants, which this program fixes. User space calls it
 * (BPF_PROG_TEST_RUN), and closes the sockets then as any others. */

#include "graft.h"

#define TCP_ESTABLISHED 1

enum parting {
	PARTING_DONE,
	PARTING_WAITS,	 /* something is still under way */
	PARTING_REQUEST, /* not as user space should ask */
	PARTING_STATE,	 /* it is not parting, or not any more */
	PARTING_SOCKETS, /* they are gone, or hold something */
	PARTING_MAX,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PARTING_MAX);
	__type(key, enum parting);
	__type(value, __u64);
} partings SEC(".maps");

struct request {
	__u8 ethernet[14];
	__u16 pad;
	__u32 slot;
	__u32 generation;
};

/* Whether the other side has acknowledged all that this one has sent. */
static __always_inline int quiet(struct way *w, struct way *back) { return back->acked == next_of(w) + w->seq; }

static __always_inline int at_rest(struct tcp_sock *k)
{
	return k->inet_conn.icsk_inet.sk.__sk_common.skc_state == TCP_ESTABLISHED && k->rcv_nxt == k->copied_seq && k->snd_una == k->write_seq;
}

static __always_inline void fix(struct way *w, struct way *back, struct tcp_sock *near)
{
	w->part_seq = near->rcv_nxt - next_of(w);
	w->part_ack = near->write_seq - (next_of(back) + back->seq);
}

static __always_inline enum parting divide(struct graft *g, struct tcp_sock *c, struct tcp_sock *s)
{
	if (!at_rest(c) || !at_rest(s))
		return PARTING_SOCKETS;
	fix(&g->way[0], &g->way[1], c);
	fix(&g->way[1], &g->way[0], s);
	if (__sync_val_compare_and_swap((__u32 *)&g->state, STATE_PARTING, STATE_PARTED) != STATE_PARTING)
		return PARTING_STATE;
	return PARTING_DONE;
}

static __always_inline enum parting part_of(struct __sk_buff *skb)
{
	struct request q;
	struct bpf_sock *hc = 0, *hs = 0;
	enum parting what = PARTING_SOCKETS;

	if (bpf_skb_load_bytes(skb, 0, &q, sizeof(q)))
		return PARTING_REQUEST;
	struct graft *g = bpf_map_lookup_elem(&grafts, &q.slot);
	if (!g || g->generation != q.generation)
		return PARTING_REQUEST;
	if (state_of(g) != STATE_PARTING)
		return PARTING_STATE;
	if (!quiet(&g->way[0], &g->way[1]) || !quiet(&g->way[1], &g->way[0]))
		return PARTING_WAITS;
	struct tcp_sock *c = socket_of(skb, &g->key[0], &hc);
	struct tcp_sock *s = socket_of(skb, &g->key[1], &hs);
	if (c && s)
		what = divide(g, c, s);
	if (hc)
		bpf_sk_release(hc);
	if (hs)
		bpf_sk_release(hs);
	return what;
}

SEC("tc")
int part(struct __sk_buff *skb)
{
	enum parting what = part_of(skb);

	count(&partings, what);
	return what;
}

/* bpf_skc_to_tcp_sock asks for a GPL-compatible licence. */
char _license[] SEC("license") = "Dual MIT/GPL";
