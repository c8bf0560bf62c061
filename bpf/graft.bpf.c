//go:build ignore

/* The graft: packets of one connection of a pair become packets of the other, on
 * their way in, so that client and server speak one TCP with each other. Positions,
 * times and windows differ by constants, which join.bpf.c fixes at a moment when
 * user space holds no byte. From then on "who acknowledged it owns it": what the
 * proxy's sockets acknowledged they deliver, everything later goes direct, and
 * what comes both ways looks like a retransmit.
 *
 * docs/graft.md has the rules and the tests that catch their breach. */

#include "graft_part.h"

/* Marks of packets on their way between two passes. */
#define MARK_COPY 0x536c6331
#define MARK_TRANSLATED 0x536c6332
#define MARK_LOCAL 0x536c6333

/* One ring per worker. A record is a __u64: slot, and its generation in the upper half. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_RINGBUF);
		__uint(max_entries, RING_BYTES);
	});
} rings SEC(".maps");

static __always_inline void wake(struct graft *g, __u32 slot)
{
	__u32 worker = g->worker;
	void *ring = bpf_map_lookup_elem(&rings, &worker);
	__u64 record = (__u64)g->generation << 32 | slot;

	if (ring && bpf_ringbuf_output(ring, &record, sizeof(record), 0) == 0)
		count(&incidents, INCIDENT_WOKEN);
	else
		count(&incidents, INCIDENT_WAKE_LOST);
}

/* Brings a pair into another state, once. */
static __always_inline int become(struct graft *g, __u32 slot, enum state from, enum state to)
{
	if (__sync_val_compare_and_swap((__u32 *)&g->state, (__u32)from, (__u32)to) != from)
		return 0;
	wake(g, slot);
	return 1;
}

/* The sockets hold nothing and say nothing. */
static __always_inline int resting(enum state state) { return state == STATE_ACTIVE || state == STATE_PARTING; }

/* Notes how far a direction has come. Every position is counted once, whichever
 * CPU sees it. */
static __always_inline void reach(struct way *w, __u32 end)
{
	for (int i = 0; i < 4; i++) {
		__u32 high = *(volatile __u32 *)&w->high;

		if (!after(end, high))
			return;
		if (__sync_val_compare_and_swap(&w->high, high, end) == high) {
			__sync_fetch_and_add(&w->bytes, end - high);
			w->last = bpf_ktime_get_coarse_ns();
			return;
		}
	}
}

/* Notes what a packet of way w says about the other way: how far its bytes were
 * received, and how far the window reaches. What is received has been sent, though
 * it may have passed unseen; what lies beyond the window was made up. */
static __always_inline void acknowledge(struct way *w, struct way *back, __u32 position, __u32 window)
{
	if (after(position, back->edge + 1))
		return;
	if (after(position, back->high) && !(back->fin && position == back->fin_end))
		reach(back, position);
	if (after(position + back->seq, w->acked))
		w->acked = position + back->seq;
	if (after(position + window, back->edge))
		back->edge = position + window;
}

/* Whether the destination may take what is at this position: it lies behind what
 * it acknowledged, and within the window that it offered. */
static __always_inline int inside(struct way *w, struct way *back, __u32 position)
{
	__u32 low = back->acked - w->seq;

	return !after(low, position) && !after(position, w->edge);
}

/* What has no bytes stands where its source may send: where the window ends that
 * it knows of, if it has sent beyond. At the graft windows go back, from what the
 * proxy has offered to what the receiver does, and what was sent beyond may be
 * received all the same. Then an ACK is behind what its receiver has, who discards
 * it with all that it says; if both ends are in that state, for ever. So it is
 * moved to where its receiver is. A probe, one behind the last byte, is to be
 * discarded, and answered: one who probes has nothing under way. */
static __always_inline __u32 forward(struct way *w, struct way *back, __u32 position)
{
	__u32 low = back->acked - w->seq;

	if (!after(low, position + 1))
		return position;
	count(&incidents, INCIDENT_BEHIND);
	return low;
}

/* A FIN that ends at this position was passed on. */
static __always_inline void finishes(struct graft *g, struct way *w, __u32 end)
{
	if (w->fin == FIN_ACKED)
		return;
	if (!g->first)
		g->first = w == &g->way[0] ? 1 : 2;
	w->fin_end = end;
	__sync_lock_test_and_set((__u32 *)&w->fin, FIN_SENT);
}

static __always_inline __u32 scaled(struct way *w, __u32 window)
{
	__s32 s = w->shift;

	if (s > 0) {
		window <<= s & 15;
		if (window > 0xffff) {
			count(&incidents, INCIDENT_NARROW);
			window = 0xffff;
		}
	} else if (s < 0) {
		window >>= -s & 15;
	}
	return window;
}

/* The second pass of an ACK's copy while the sockets drain: what the server says
 * about what the proxy has sent it must reach the proxy's socket too. The payload
 * is cut, and the socket is told nothing that it does not know. If all is known to
 * have been received, it is told so. */
static __always_inline int own_copy(struct __sk_buff *skb, const int v6, struct tuple *key, int all)
{
	struct bpf_sock *held = 0;
	struct tcp_sock *sk = socket_of(skb, key, &held);

	if (!sk) {
		if (held)
			bpf_sk_release(held);
		return leave(PASSAGE_UNCOPIED, TCX_DROP);
	}
	__u32 sent = sk->snd_nxt, received = sk->rcv_nxt;
	bpf_sk_release(held);

	void *data = first(skb), *end = limit(skb);
	struct tcp *t = data + TRANSPORT(v6);
	if ((void *)(t + 1) > end)
		return leave(PASSAGE_SHORT, TCX_DROP);
	if (all || after(htonl(t->ack), sent))
		t->ack = htonl(sent);
	t->seq = htonl(received);
	t->flags = ACK;
	t->urgent = 0;
	__u32 header = (t->offset >> 4) * 4;
	__u64 sum = htons(IPPROTO_TCP) + (__u64)htons(header);
	__u16 length;
	if (v6) {
		struct ip6 *ip = data + ETHERNET;

		ip->length = htons(header);
		for (int i = 0; i < 4; i++)
			sum += (__u64)ip->source[i] + ip->dest[i];
	} else {
		struct ip4 *ip = data + ETHERNET;

		length = htons(sizeof(*ip) + header);
		ip->check = ~fold16(fold32(replace16((__u16)~ip->check, ip->length, length)));
		ip->length = length;
		sum += (__u64)ip->source + ip->dest;
	}
	t->check = 0;
	__u32 *w = (void *)t;
	for (int i = 0; i < 5; i++)
		sum += w[i];
	w = (void *)(t + 1);
	for (int i = 5; i < 15; i++, w++) {
		if (i * 4 >= header || (void *)(w + 1) > end)
			break;
		sum += *w;
	}
	t->check = ~fold16(fold32(sum));
	if (skb->len > TRANSPORT(v6) + header)
		bpf_skb_change_tail(skb, TRANSPORT(v6) + header, 0);
	return leave(PASSAGE_COPIED, TCX_NEXT);
}

/* A packet of one of the proxy's own sockets. What it acknowledges stands still
 * while the other end's word moves on; a receiver discards what acknowledges too
 * old things (RFC 5961) or bears an old time (PAWS). So both are lifted to what
 * was passed on last. */
static __always_inline int own(struct __sk_buff *skb, const int v6, struct graft *g, __u32 slot, __u32 role)
{
	struct way *w = role == ROLE_OWN_REQUEST ? &g->way[0] : &g->way[1];
	struct way *back = role == ROLE_OWN_REQUEST ? &g->way[1] : &g->way[0];
	enum state state = state_of(g);
	struct tcp *t = tcp_of(skb, v6);

	if (!t)
		return leave(PASSAGE_SHORT, TCX_DROP);
	__u8 flags = t->flags;
	__u32 header = (t->offset >> 4) * 4;
	if (state == STATE_OFF)
		return leave(PASSAGE_OFF, TCX_NEXT);
	if (state >= STATE_CLOSED && flags & SYN) {
		if (become(g, slot, state, STATE_OFF))
			return leave(PASSAGE_REUSED, TCX_NEXT);
		return leave(PASSAGE_OFF, TCX_NEXT);
	}
	/* The ends have finished with each other: nothing of ours is to disturb that. */
	if (state == STATE_CLOSED || state == STATE_RESET)
		return leave(PASSAGE_OWN_STALE, TCX_DROP);
	if (state == STATE_PARTED)
		return own_parted(skb, v6, w, back, header);
	__u32 bytes = payload(skb, v6, header);
	__u64 sum = 0;
	__u32 next;
	if ((flags & (RST | ACK)) == (RST | ACK)) {
		/* Of a close: to where its receiver is. If that is not exact, the receiver
		 * asks back, and the kernel answers exactly (RFC 5961, 3.2). */
		__u32 high = w->high + w->seq + (w->fin ? 1 : 0);
		if (after(high, htonl(t->seq))) {
			next = htonl(high);
			sum = replace32(sum, t->seq, next);
			t->seq = next;
		}
		next = htonl(w->acked - back->seq);
		sum = replace32(sum, t->ack, next);
		t->ack = next;
		bpf_l4_csum_replace(skb, TRANSPORT(v6) + 16, 0, fold32(sum), 0);
		return leave(PASSAGE_OWN_RESET, TCX_NEXT);
	}
	if (flags & (RST | SYN) || !(flags & ACK))
		return leave(PASSAGE_OWN, TCX_NEXT);
	if (resting(state) && !bytes && !(flags & FIN))
		return leave(PASSAGE_OWN_STALE, TCX_DROP); /* a late ACK */
	__u32 end = htonl(t->seq) - w->seq + bytes;
	if (bytes)
		reach(w, end);
	if (flags & FIN)
		finishes(g, w, end + 1);
	__u32 acked = w->acked - back->seq;
	if (after(acked, htonl(t->ack))) {
		if (!bytes && !(flags & FIN))
			return leave(PASSAGE_OWN_STALE, TCX_DROP);
		next = htonl(acked);
		sum = replace32(sum, t->ack, next);
		t->ack = next;
		__u16 window = htons(scaled(w, w->window));
		sum = replace16(sum, t->window, window);
		t->window = window;
	}
	/* The window that it offers is the proxy's, and may be used. */
	__u32 position = htonl(t->ack), edge = position + (htons(t->window) << ((w->scale - w->shift) & 15));
	if (after(edge, back->edge))
		back->edge = edge;
	sum += lift_time(skb, v6, w, header);
	if (!sum)
		return leave(PASSAGE_OWN, TCX_NEXT);
	bpf_l4_csum_replace(skb, TRANSPORT(v6) + 16, 0, fold32(sum), 0);
	return leave(PASSAGE_OWN_LIFTED, TCX_NEXT);
}

/* An RST while the sockets drain goes to the proxy's own socket, at the position
 * that it takes: user space then delivers what came before. */
static __always_inline int own_reset(struct __sk_buff *skb, const int v6, struct tuple *key)
{
	struct bpf_sock *held = 0;
	struct tcp_sock *sk = socket_of(skb, key, &held);
	__u32 received = sk ? sk->rcv_nxt : 0;
	int found = sk != 0;

	if (held)
		bpf_sk_release(held);
	struct tcp *t = tcp_of(skb, v6);
	if (found && t) {
		__u64 sum = replace32(0, t->seq, htonl(received));

		t->seq = htonl(received);
		bpf_l4_csum_replace(skb, TRANSPORT(v6) + 16, 0, fold32(sum), 0);
	}
	return leave(PASSAGE_RESET, TCX_NEXT);
}

/* While the sockets drain: gives the one that this packet is addressed to a copy
 * of an ACK that it waits for, and returns what the other one has acknowledged,
 * which must not be taken back. */
static __always_inline int drain(struct __sk_buff *skb, struct graft *g, struct tuple *key, struct tuple *far, __u8 flags, __u32 *floor)
{
	struct bpf_sock *held = 0;
	struct tcp_sock *sk = socket_of(skb, key, &held);
	int waits = sk ? sk->snd_una != sk->write_seq : 0;

	if (held)
		bpf_sk_release(held);
	if (waits && flags & ACK && !(flags & SYN)) {
		__u32 was = skb->mark;

		skb->mark = MARK_COPY;
		/* On lo by its egress, which keeps the route: without one 127/8 is martian. */
		bpf_clone_redirect(skb, skb->ifindex, skb->ifindex == LOOPBACK ? 0 : BPF_F_INGRESS);
		skb->mark = was;
		__sync_fetch_and_add(&g->copies, 1);
	}
	held = 0;
	sk = socket_of(skb, far, &held);
	int found = sk != 0;
	if (sk)
		*floor = sk->rcv_nxt;
	if (held)
		bpf_sk_release(held);
	return found;
}

static __always_inline void readdress(struct __sk_buff *skb, const int v6, struct way *w)
{
	void *data = first(skb), *end = limit(skb);

	if (data + TRANSPORT(v6) > end)
		return;
	if (v6) {
		struct ip6 *ip = data + ETHERNET;

		for (int i = 0; i < 4; i++) {
			ip->source[i] = w->to.source[i];
			ip->dest[i] = w->to.dest[i];
		}
	} else {
		struct ip4 *ip = data + ETHERNET;

		ip->source = w->to.source[3];
		ip->dest = w->to.dest[3];
		ip->check = ~fold16(fold32((__u64)(__u16)~ip->check + w->addresses));
	}
}

static __always_inline int translate(struct __sk_buff *skb, const int v6, struct graft *g, __u32 slot, __u32 role, struct tuple *key)
{
	__u32 side = role == ROLE_RESPONSE;
	struct way *w = side ? &g->way[1] : &g->way[0];
	struct way *back = side ? &g->way[0] : &g->way[1];
	enum state state = state_of(g);

	if (state == STATE_OFF)
		return leave(PASSAGE_OFF, TCX_NEXT);
	struct tcp *t = pull(skb, v6, sizeof(struct tcp));
	if (!t)
		return leave(PASSAGE_SHORT, TCX_DROP);
	__u8 flags = t->flags;
	__u32 header = (t->offset >> 4) * 4;
	if (header < sizeof(*t))
		return leave(PASSAGE_MALFORMED, TCX_NEXT);
	if (state >= STATE_CLOSED && flags & SYN) {
		if (become(g, slot, state, STATE_OFF))
			return leave(PASSAGE_REUSED, TCX_NEXT);
		return leave(PASSAGE_OFF, TCX_NEXT);
	}
	if (state == STATE_ENDED)
		return leave(PASSAGE_ENDED, TCX_NEXT);
	if (state == STATE_BACK)
		return leave(PASSAGE_BACK, TCX_NEXT);
	if (state == STATE_PARTED)
		return to_parted(skb, v6, w, t);
	if (header > sizeof(*t) && !(t = pull(skb, v6, header)))
		return leave(PASSAGE_SHORT, TCX_DROP);
	void *data = first(skb), *end = limit(skb);
	if (data + TRANSPORT(v6) + header > end)
		return leave(PASSAGE_MALFORMED, TCX_NEXT);

	__u32 seq = htonl(t->seq), ack = htonl(t->ack), bytes = payload(skb, v6, header);
	/* An RST that knows exactly what its source has received is no stranger's. */
	int bare = !bytes && !(flags & (SYN | FIN | RST));
	if (bare || (!bytes && (flags & (RST | ACK)) == (RST | ACK) && ack == w->acked))
		seq = forward(w, back, seq);
	int believed = inside(w, back, seq + bytes);
	__u32 floor = 0;
	int floored = 0;
	if (state == STATE_DRAIN) {
		if (flags & RST && believed) {
			/* Both ends have everything, the proxy's bytes too: this answers one of
			 * these that was sent again to an end that has gone. */
			if (w->fin == FIN_ACKED && back->fin == FIN_ACKED)
				return own_copy(skb, v6, key, 1);
			return own_reset(skb, v6, key);
		}
		floored = drain(skb, g, key, side ? &g->key[0] : &g->key[1], flags, &floor);
		t = pull(skb, v6, header);
		if (!t)
			return leave(PASSAGE_SHORT, TCX_DROP);
	}

	/* What is known of this direction, and of the other by what it acknowledges. */
	if (flags & (RST | FIN) && !believed)
		count(&incidents, INCIDENT_OUTSIDE);
	w->packets++;
	/* What is new is kept back once the halves are to part. What it says of the other
	 * direction counts all the same. */
	int held = state == STATE_PARTING && after(seq + bytes + (flags & FIN ? 1 : 0), next_of(w));
	if (bytes && believed && !held)
		reach(w, seq + bytes);
	/* One that is not believed counts if its receiver acknowledges it. */
	if (flags & FIN && (believed || !w->fin) && !held)
		finishes(g, w, seq + bytes + 1);
	__u32 window = htons(t->window);
	if (flags & ACK && !(flags & (RST | SYN))) {
		w->window = window;
		acknowledge(w, back, ack - back->seq, window << (w->scale & 15));
		if (back->fin == FIN_SENT && ack == back->fin_end + back->seq)
			__sync_lock_test_and_set((__u32 *)&back->fin, FIN_ACKED);
		/* User space, which looks after it has made the pair active, sees it, or
		 * this does. */
		if (resting(state) && back->fin == FIN_ACKED && w->fin == FIN_ACKED)
			become(g, slot, state, STATE_CLOSED);
	}
	if (resting(state) && flags & RST && believed) {
		g->reset_by = role;
		become(g, slot, state, STATE_RESET);
	}
	if (held)
		return leave(PASSAGE_HELD, TCX_DROP);

	struct shift s = {.time = w->time, .echo = -back->time, .sack = -back->seq};
	s.sum = w->ports;
	__u32 next = htonl(seq + w->seq);
	s.sum = replace32(s.sum, t->seq, next);
	t->seq = next;
	if (flags & ACK) {
		__u32 position = ack - back->seq;

		if (floored && after(floor, position)) {
			__u32 unit = 1 << (w->scale & 15), less = (floor - position + unit - 1) / unit;

			window = window > less ? window - less : 0;
			position = floor;
			count(&incidents, INCIDENT_FLOOR);
		}
		next = htonl(position);
		s.sum = replace32(s.sum, t->ack, next);
		t->ack = next;
	}
	__u16 narrow = htons(scaled(w, window));
	s.sum = replace16(s.sum, t->window, narrow);
	t->window = narrow;
	t->source_port = w->to.source_port;
	t->dest_port = w->to.dest_port;
	readdress(skb, v6, w);
	if (header > sizeof(*t) && !shift_usual(skb, v6, header - sizeof(*t), &s)) {
		count(&incidents, INCIDENT_OPTIONS);
		if (!shift_options(skb, TRANSPORT(v6) + sizeof(*t), header - sizeof(*t), &s))
			count(&incidents, INCIDENT_ODD);
	}
	if (s.timed && (w->packets == 1 || after(s.seen, w->time_high)))
		w->time_high = s.seen;

	__u32 addresses = w->addresses, device = w->device;
	/* In IPv6 no header checksum makes up for the addresses (BPF_F_IPV6, 6.16). */
	if (!v6 || bpf_l4_csum_replace(skb, TRANSPORT(v6) + 16, 0, addresses, BPF_F_PSEUDO_HDR | BPF_F_IPV6))
		bpf_l4_csum_replace(skb, TRANSPORT(v6) + 16, 0, addresses, BPF_F_PSEUDO_HDR);
	bpf_l4_csum_replace(skb, TRANSPORT(v6) + 16, 0, fold32(s.sum), 0);

	if (device != LOOPBACK) {
		skb->mark = MARK_TRANSLATED;
		return leave(PASSAGE_NEIGHBOUR, bpf_redirect_neigh(device, 0, 0, 0));
	}
	if (skb->ifindex != LOOPBACK) {
		/* From outside to a socket of this namespace: with one of our own addresses
		 * as its source only lo takes it. IPv4 asks for a route besides, which an
		 * established socket has, but no remembered end (TIME_WAIT): it is found on
		 * the way to the device that has the address, and turned to lo there. */
		if (!v6) {
			__u32 local = w->local;

			skb->mark = local == LOOPBACK ? MARK_TRANSLATED : MARK_LOCAL;
			return leave(PASSAGE_LOOPBACK, bpf_redirect_neigh(local, 0, 0, 0));
		}
		/* Only with lo's address. */
		__u8 none[6] = {};

		bpf_skb_store_bytes(skb, 0, none, sizeof(none), 0);
		skb->mark = MARK_TRANSLATED;
		return leave(PASSAGE_LOOPBACK, bpf_redirect(LOOPBACK, BPF_F_INGRESS));
	}
	return leave(PASSAGE_LOCAL, TCX_NEXT);
}

static __always_inline int arrive(struct __sk_buff *skb, const int v6)
{
	struct tuple key;

	if (!addresses_of(skb, v6, &key))
		return leave(PASSAGE_OTHER, TCX_NEXT);
	struct place *p = bpf_map_lookup_elem(&places, &key);
	if (!p)
		return leave(PASSAGE_OTHER, TCX_NEXT);
	__u32 slot = p->slot, role = p->role;
	struct graft *g = bpf_map_lookup_elem(&grafts, &slot);
	if (!g)
		return leave(PASSAGE_OTHER, TCX_NEXT);
	if (role >= ROLE_OWN_REQUEST) /* on lo what leaves comes in again */
		return skb->ifindex == LOOPBACK ? own(skb, v6, g, slot, role) : leave(PASSAGE_OTHER, TCX_NEXT);
	if (skb->mark == MARK_COPY)
		return own_copy(skb, v6, &key, 0);
	return translate(skb, v6, g, slot, role, &key);
}

static __always_inline int depart(struct __sk_buff *skb, const int v6)
{
	struct tuple key;

	if (!addresses_of(skb, v6, &key))
		return leave(PASSAGE_OTHER, TCX_NEXT);
	struct place *p = bpf_map_lookup_elem(&places, &key);
	if (!p || p->role < ROLE_OWN_REQUEST)
		return leave(PASSAGE_OTHER, TCX_NEXT);
	__u32 slot = p->slot, role = p->role;
	struct graft *g = bpf_map_lookup_elem(&grafts, &slot);
	if (!g)
		return leave(PASSAGE_OTHER, TCX_NEXT);
	return own(skb, v6, g, slot, role);
}

SEC("tc")
int graft_ingress(struct __sk_buff *skb)
{
	if (skb->mark == MARK_TRANSLATED) {
		skb->mark = 0;
		return leave(PASSAGE_MARKED, TCX_NEXT);
	}
	if (skb->vlan_present || skb->pkt_type != PACKET_HOST)
		return leave(PASSAGE_OTHER, TCX_NEXT);
	if (skb->protocol == htons(ETH_P_IP))
		return arrive(skb, 0);
	if (skb->protocol == htons(ETH_P_IPV6))
		return arrive(skb, 1);
	return leave(PASSAGE_OTHER, TCX_NEXT);
}

/* Of devices other than lo. */
SEC("tc")
int graft_egress(struct __sk_buff *skb)
{
	if (skb->mark == MARK_LOCAL) { /* it has its route now */
		skb->mark = MARK_TRANSLATED;
		return bpf_redirect(LOOPBACK, 0);
	}
	if (skb->mark == MARK_TRANSLATED) {
		skb->mark = 0;
		return leave(PASSAGE_MARKED, TCX_NEXT);
	}
	if (skb->protocol == htons(ETH_P_IP))
		return depart(skb, 0);
	if (skb->protocol == htons(ETH_P_IPV6))
		return depart(skb, 1);
	return leave(PASSAGE_OTHER, TCX_NEXT);
}

/* bpf_skc_to_tcp_sock asks for a GPL-compatible licence. */
char _license[] SEC("license") = "Dual MIT/GPL";
