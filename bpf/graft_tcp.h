/* Packets as the graft sees them: headers, and the options of TCP. */

#ifndef GRAFT_TCP_H
#define GRAFT_TCP_H

#include "graft.h"

#define ETHERNET 14
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define IPPROTO_TCP 6
#define PACKET_HOST 0

#define FIN 1
#define SYN 2
#define RST 4
#define ACK 16

#define TCX_NEXT -1
#define TCX_DROP 2

#define OPTION_END 0
#define OPTION_NOP 1
#define OPTION_SACK 5
#define OPTION_TIMESTAMP 8

struct ip4 {
	__u8 version_length;
	__u8 tos;
	__u16 length;
	__u16 id;
	__u16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__u32 source;
	__u32 dest;
};

struct ip6 {
	__u32 version_flow;
	__u16 length;
	__u8 next;
	__u8 hops;
	__u32 source[4];
	__u32 dest[4];
};

struct tcp {
	__u16 source_port;
	__u16 dest_port;
	__u32 seq;
	__u32 ack;
	__u8 offset;
	__u8 flags;
	__u16 window;
	__u16 check;
	__u16 urgent;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PASSAGE_MAX);
	__type(key, enum passage);
	__type(value, __u64);
} passages SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, INCIDENT_MAX);
	__type(key, enum incident);
	__type(value, __u64);
} incidents SEC(".maps");

static __always_inline int leave(enum passage why, int verdict)
{
	count(&passages, why);
	return verdict;
}

/* The packet's first byte, and what follows its last readable one; read where it
 * is written: what clang keeps in half a register is no pointer to the verifier. */
static __always_inline void *first(struct __sk_buff *skb)
{
	void *p;

	asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(p) : "r"(skb), "i"(__builtin_offsetof(struct __sk_buff, data)));
	return p;
}

static __always_inline void *limit(struct __sk_buff *skb)
{
	void *p;

	asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(p) : "r"(skb), "i"(__builtin_offsetof(struct __sk_buff, data_end)));
	return p;
}

#define TRANSPORT(v6) (ETHERNET + ((v6) ? (__u32)sizeof(struct ip6) : (__u32)sizeof(struct ip4)))

/* The TCP header, if it can be read directly, else 0. */
static __always_inline struct tcp *tcp_of(struct __sk_buff *skb, const int v6)
{
	void *data = first(skb), *end = limit(skb);
	struct tcp *t = data + TRANSPORT(v6);

	return (void *)(t + 1) > end ? 0 : t;
}

static __always_inline struct tcp *pull(struct __sk_buff *skb, const int v6, __u32 header)
{
	void *data = first(skb), *end = limit(skb);

	if (data + TRANSPORT(v6) + header > end)
		bpf_skb_pull_data(skb, TRANSPORT(v6) + header);
	return tcp_of(skb, v6);
}

/* The addresses of a packet, or 0 if it is none for the graft: fragments, options
 * of IP and extension headers go to the proxy's sockets. */
static __always_inline int addresses_of(struct __sk_buff *skb, const int v6, struct tuple *key)
{
	struct tcp *t = pull(skb, v6, sizeof(struct tcp));
	void *data = first(skb), *end = limit(skb);

	if (!t || data + TRANSPORT(v6) > end)
		return 0;
	if (v6) {
		struct ip6 *ip = data + ETHERNET;

		if (ip->next != IPPROTO_TCP)
			return 0;
		for (int i = 0; i < 4; i++) {
			key->source[i] = ip->source[i];
			key->dest[i] = ip->dest[i];
		}
	} else {
		struct ip4 *ip = data + ETHERNET;

		if (ip->version_length != 0x45 || ip->protocol != IPPROTO_TCP || (ip->fragment & htons(0x3fff)))
			return 0;
		key->source[0] = key->source[1] = key->dest[0] = key->dest[1] = 0;
		key->source[2] = key->dest[2] = htonl(0xffff);
		key->source[3] = ip->source;
		key->dest[3] = ip->dest;
	}
	key->source_port = t->source_port;
	key->dest_port = t->dest_port;
	return 1;
}

/* The bytes of TCP's payload; behind them a frame may have padding. */
static __always_inline __u32 payload(struct __sk_buff *skb, const int v6, __u32 header)
{
	void *data = first(skb), *end = limit(skb);
	__u32 all = 0, taken = header;

	if (data + TRANSPORT(v6) > end)
		return 0;
	if (v6) {
		all = htons(((struct ip6 *)(data + ETHERNET))->length);
	} else {
		all = htons(((struct ip4 *)(data + ETHERNET))->length);
		taken += sizeof(struct ip4);
	}
	if (!all) { /* a packet of more than 64 KiB (BIG TCP) */
		all = skb->len;
		taken = TRANSPORT(v6) + header;
	}
	return all > taken ? all - taken : 0;
}

/* What is added to the timestamps of a packet and to the positions that it
 * acknowledges, and how the checksum changes by it. */
struct shift {
	__u32 time;
	__u32 echo;
	__u32 sack;
	__u32 seen;  /* the timestamp before */
	__u32 timed; /* there was one */
	__u64 sum;
};

static __always_inline __u32 moved(__u32 be, __u32 by, __u32 odd, __u64 *sum)
{
	__u32 next = htonl(htonl(be) + by);
	__u32 d = fold16(fold32(replace32(0, be, next)));

	*sum += odd ? (__u16)__builtin_bswap16(d) : d;
	return next;
}

/* Two 32-bit words at an offset from the start of the options. The second stays
 * if it is 0 and keep says so. */
static __always_inline int move_words(struct __sk_buff *skb, __u32 at, __u32 odd, __u32 a, __u32 b, int keep, __u32 *first, __u64 *sum)
{
	__u32 w[2];

	if (bpf_skb_load_bytes(skb, at, w, sizeof(w)))
		return 0;
	*first = htonl(w[0]);
	w[0] = moved(w[0], a, odd, sum);
	if (w[1] || !keep)
		w[1] = moved(w[1], b, odd, sum);
	return bpf_skb_store_bytes(skb, at, w, sizeof(w), 0) == 0;
}

/* A walk along the options of a packet. */
struct walk {
	struct __sk_buff *skb;
	struct shift *shift;
	__u32 at;   /* of the next option */
	__u32 left; /* bytes from there on */
	__u32 odd;  /* one was malformed */
};

/* One option; 1 ends the walk. */
static long next_option(__u32 n, struct walk *w)
{
	__u8 head[2];
	__u32 length, word, ignored;
	struct shift *s = w->shift;

	if (!w->left)
		return 1;
	w->odd = 1;
	if (bpf_skb_load_bytes(w->skb, w->at, head, 1))
		return 1;
	length = 1;
	if (head[0] == OPTION_END) {
		w->odd = 0;
		return 1;
	}
	if (head[0] != OPTION_NOP) {
		if (w->left < 2 || bpf_skb_load_bytes(w->skb, w->at, head, 2))
			return 1;
		length = head[1];
		if (length < 2 || length > w->left)
			return 1;
		word = w->at + 2;
		if (head[0] == OPTION_TIMESTAMP && length == 10) {
			if (!move_words(w->skb, word, word & 1, s->time, s->echo, 1, &s->seen, &s->sum))
				return 1;
			s->timed = 1;
		}
		if (head[0] == OPTION_SACK) {
			for (int j = 0; j < 4; j++) {
				if (2 + 8 * (j + 1) > length)
					break;
				if (!move_words(w->skb, word + 8 * j, word & 1, s->sack, s->sack, 0, &ignored, &s->sum))
					return 1;
			}
		}
	}
	w->at += length;
	w->left -= length;
	w->odd = 0;
	return 0;
}

/* Options in any order and at any alignment. What is not known passes as it is:
 * no other option says anything about positions or times once a connection
 * stands, but for those of connections that are not grafted (join.bpf.c). False
 * says that one was malformed; it and what follows stay as they are. */
static __always_inline int shift_options(struct __sk_buff *skb, __u32 at, __u32 size, struct shift *s)
{
	struct walk w = {.skb = skb, .shift = s, .at = at, .left = size};

	bpf_loop(40, next_option, &w, 0);
	return !w.odd;
}

/* The options as Linux writes them, without a call: NOP NOP timestamps, then
 * perhaps NOP NOP SACK. 0 says that they are others, and that none was touched. */
static __always_inline int shift_usual(struct __sk_buff *skb, const int v6, __u32 size, struct shift *s)
{
	void *data = first(skb), *end = limit(skb);
	__u32 *o = data + TRANSPORT(v6) + sizeof(struct tcp);

	if (size < 12 || (void *)(o + 3) > end || o[0] != htonl(0x0101080a))
		return 0;
	__u32 *q = o + 3;
	__u32 blocks = 0;
	if (size > 12) {
		if ((void *)(q + 1) > end)
			return 0;
		__u32 h = htonl(q[0]);
		if (h >> 8 != 0x010105 || (h & 0xff) != size - 14 || (void *)(q + 1 + (size - 16) / 4 % 8) > end)
			return 0;
		blocks = (size - 16) / 8;
	}
	__u32 next;
	s->seen = htonl(o[1]);
	s->timed = 1;
	next = htonl(s->seen + s->time);
	s->sum = replace32(s->sum, o[1], next);
	o[1] = next;
	if (o[2]) {
		next = htonl(htonl(o[2]) + s->echo);
		s->sum = replace32(s->sum, o[2], next);
		o[2] = next;
	}
	q++;
	for (int j = 0; j < 3; j++) {
		if (j >= blocks || (void *)(q + 2) > end)
			break;
		for (int k = 0; k < 2; k++) {
			next = htonl(htonl(q[k]) + s->sack);
			s->sum = replace32(s->sum, q[k], next);
			q[k] = next;
		}
		q += 2;
	}
	return 1;
}

#endif
