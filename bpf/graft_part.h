/* Packets of a pair whose halves have parted (part.bpf.c): the proxy's sockets go on
 * from where the grafted stream was, which is elsewhere than they know. Positions
 * differ by constants, and nothing else does. */

#ifndef GRAFT_PART_H
#define GRAFT_PART_H

#include "graft_tcp.h"

static __always_inline void renumber(struct __sk_buff *skb, const int v6, struct tcp *t, __u32 seq, __u32 ack, __u64 sum)
{
	__u32 next = htonl(htonl(t->seq) + seq);

	sum = replace32(sum, t->seq, next);
	t->seq = next;
	if (t->flags & ACK) {
		next = htonl(htonl(t->ack) + ack);
		sum = replace32(sum, t->ack, next);
		t->ack = next;
	}
	bpf_l4_csum_replace(skb, TRANSPORT(v6) + 16, 0, fold32(sum), 0);
}

/* A time that is behind what was passed on last is lifted to it: its receiver
 * discards what is older (PAWS). */
static __always_inline __u64 lift_time(struct __sk_buff *skb, const int v6, struct way *w, __u32 header)
{
	void *data = first(skb), *end = limit(skb);
	__u32 *o = data + TRANSPORT(v6) + sizeof(struct tcp);
	__u64 sum = 0;

	if (header >= 32 && (void *)(o + 3) <= end && o[0] == htonl(0x0101080a) && w->packets) {
		__u32 time = w->time_high + w->time;
		if (after(time, htonl(o[1]))) {
			__u32 next = htonl(time);
			sum = replace32(0, o[1], next);
			o[1] = next;
		}
	}
	return sum;
}

/* Of the client, or of the server, to the proxy's socket. */
static __always_inline int to_parted(struct __sk_buff *skb, const int v6, struct way *w, struct tcp *t)
{
	renumber(skb, v6, t, w->part_seq, w->part_ack, 0);
	return leave(PASSAGE_PARTED, TCX_NEXT);
}

/* Of the proxy's socket; w is the way that its packets would have taken, back the
 * other. */
static __always_inline int own_parted(struct __sk_buff *skb, const int v6, struct way *w, struct way *back, __u32 header)
{
	__u64 sum = lift_time(skb, v6, w, header);
	struct tcp *t = tcp_of(skb, v6);

	if (!t)
		return leave(PASSAGE_SHORT, TCX_DROP);
	renumber(skb, v6, t, -back->part_ack, -back->part_seq, sum);
	return leave(PASSAGE_OWN_PARTED, TCX_NEXT);
}

#endif
