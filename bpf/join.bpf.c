//go:build ignore

/* The moment of the graft. User space calls this program when it holds no byte of
 * the pair (BPF_PROG_TEST_RUN): every byte that was read from one socket has been
 * taken in by the other. Then position in one connection and position in the other
 * differ by constants. It reads both sockets, refuses what cannot be translated,
 * and switches the packets over by one store. */

#include "graft.h"

#define TCP_ESTABLISHED 1
#define ARPHRD_ETHER 1
#define ARPHRD_LOOPBACK 772
#define ECN_OK 0x01
#define ACCURATE_ECN 0x30

/* What the program says. */
enum refusal {
	REFUSAL_NONE,
	REFUSAL_REQUEST,      /* not as user space should ask */
	REFUSAL_NO_SOCKET,    /* no such connection here: its addresses were translated */
	REFUSAL_STATE,	      /* half-closed */
	REFUSAL_OUT_OF_ORDER, /* segments wait for a lost one: later */
	REFUSAL_REPAIR,
	REFUSAL_TIMESTAMPS,   /* on one side only */
	REFUSAL_TIME_UNIT,
	REFUSAL_SACK,	      /* on one side only */
	REFUSAL_ECN,
	REFUSAL_SIGNED,	      /* TCP-MD5, TCP-AO */
	REFUSAL_MPTCP,
	REFUSAL_ULP,	      /* kernel TLS and the like */
	REFUSAL_URGENT,
	REFUSAL_MSS,	      /* one side may send more than the other takes */
	REFUSAL_MTU,	      /* …or than its path takes */
	REFUSAL_NO_ROUTE,     /* a socket without a route: later */
	REFUSAL_ASYMMETRIC,   /* packets come by one device and leave by another */
	REFUSAL_BOUND,	      /* to a device */
	REFUSAL_XFRM,	      /* IPsec */
	REFUSAL_NO_ETHERNET,
	REFUSAL_DEVICE,	      /* the programs are not attached there yet */
	REFUSAL_LOCAL,	      /* from outside to this host: whose is the address? */
	REFUSAL_TAKEN,	      /* addresses of a pair that still rests: later */
	REFUSAL_MAX,
};

/* Network order, as packets have them that arrive. */
struct request {
	__u8 ethernet[14];
	__u16 pad;
	__u32 slot;
	__u32 generation;
	__u32 worker;
	__u32 local; /* device that has the address of the end that is on lo, if one is */
	struct tuple client;
	struct tuple server;
};

/* Devices that the programs are attached to. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REFUSAL_MAX);
	__type(key, enum refusal);
	__type(value, __u64);
} refusals SEC(".maps");

enum { BYTE_OFFSET, BYTE_SIZE, EXISTS, SIGNED, LEFT, RIGHT };

/* A bit-field of the kernel's struct, wherever it lies there. */
#define BITS(s, field)                                                                          \
	({                                                                                      \
		const void *p = (const void *)(s) + __builtin_preserve_field_info((s)->field, BYTE_OFFSET); \
		__u64 v = 0;                                                                    \
		asm volatile("" : "+r"(p));                                                     \
		switch (__builtin_preserve_field_info((s)->field, BYTE_SIZE)) {                 \
		case 1: v = *(const __u8 *)p; break;                                            \
		case 2: v = *(const __u16 *)p; break;                                           \
		case 4: v = *(const __u32 *)p; break;                                           \
		case 8: v = *(const __u64 *)p; break;                                           \
		}                                                                               \
		v <<= __builtin_preserve_field_info((s)->field, LEFT);                          \
		v >> __builtin_preserve_field_info((s)->field, RIGHT);                          \
	})

#define HAS(s, field) __builtin_preserve_field_info((s)->field, EXISTS)

static __always_inline enum refusal fit(struct tcp_sock *k)
{
	if (k->inet_conn.icsk_inet.sk.__sk_common.skc_state != TCP_ESTABLISHED)
		return REFUSAL_STATE;
	if (k->out_of_order_queue.rb_node)
		return REFUSAL_OUT_OF_ORDER;
	if (BITS(k, repair))
		return REFUSAL_REPAIR;
	if (k->ecn_flags & (ECN_OK | ACCURATE_ECN))
		return REFUSAL_ECN;
	if (HAS(k, md5sig_info) && k->md5sig_info)
		return REFUSAL_SIGNED;
	if (HAS(k, ao_info) && k->ao_info)
		return REFUSAL_SIGNED;
	if (HAS(k, is_mptcp) && k->is_mptcp)
		return REFUSAL_MPTCP;
	if (k->inet_conn.icsk_ulp_ops)
		return REFUSAL_ULP;
	if (k->urg_data)
		return REFUSAL_URGENT;
	return REFUSAL_NONE;
}

static __always_inline enum refusal way_out(struct tcp_sock *k, __u32 *device)
{
	struct sock *sk = &k->inet_conn.icsk_inet.sk;
	struct dst_entry *route = sk->sk_dst_cache;
	__u32 out;

	if (sk->__sk_common.skc_bound_dev_if)
		return REFUSAL_BOUND;
	if (!route)
		return REFUSAL_NO_ROUTE;
	if (HAS(route, xfrm) && route->xfrm)
		return REFUSAL_XFRM;
	out = route->dev->ifindex;
	*device = out;
	if (sk->sk_rx_dst_ifindex && sk->sk_rx_dst_ifindex != out)
		return REFUSAL_ASYMMETRIC;
	if (route->dev->type != ARPHRD_ETHER && route->dev->type != ARPHRD_LOOPBACK)
		return REFUSAL_NO_ETHERNET;
	if (!bpf_map_lookup_elem(&devices, &out))
		return REFUSAL_DEVICE;
	return REFUSAL_NONE;
}

static __always_inline enum refusal match(struct tcp_sock *c, struct tcp_sock *s, int v6)
{
	__u32 headers = v6 ? 60 : 40;

	if (BITS(c, rx_opt.tstamp_ok) != BITS(s, rx_opt.tstamp_ok))
		return REFUSAL_TIMESTAMPS;
	if (BITS(c, rx_opt.tstamp_ok) && HAS(c, tcp_usec_ts) && BITS(c, tcp_usec_ts) != BITS(s, tcp_usec_ts))
		return REFUSAL_TIME_UNIT;
	if (!BITS(c, rx_opt.sack_ok) != !BITS(s, rx_opt.sack_ok))
		return REFUSAL_SACK;
	if (c->advmss > s->rx_opt.mss_clamp || s->advmss > c->rx_opt.mss_clamp)
		return REFUSAL_MSS;
	if (c->advmss + headers > s->inet_conn.icsk_pmtu_cookie || s->advmss + headers > c->inet_conn.icsk_pmtu_cookie)
		return REFUSAL_MTU;
	return REFUSAL_NONE;
}

/* Fills in a direction whose packets arrive with the addresses in, and become
 * those of the proxy's socket that out faces, turned round. */
static __always_inline void fill(struct way *w, const struct tuple *in, const struct tuple *out, struct tcp_sock *near, struct tcp_sock *far)
{
	__u64 sum = 0;
	__u32 edge;

	for (int i = 0; i < 4; i++) {
		w->to.source[i] = out->dest[i];
		w->to.dest[i] = out->source[i];
		sum = replace32(sum, in->source[i], out->dest[i]);
		sum = replace32(sum, in->dest[i], out->source[i]);
	}
	w->to.source_port = out->dest_port;
	w->to.dest_port = out->source_port;
	w->addresses = fold16(fold32(sum));
	w->ports = fold16(fold32(replace16(replace16(0, in->source_port, out->dest_port), in->dest_port, out->source_port)));
	w->seq = far->write_seq - near->copied_seq;
	w->scale = BITS(near, rx_opt.snd_wscale);
	w->shift = (__s32)w->scale - (__s32)BITS(far, rx_opt.rcv_wscale);
	w->time = 0;
	if (BITS(near, rx_opt.tstamp_ok)) {
		__u64 ns = bpf_ktime_get_ns();
		__u32 now = HAS(far, tcp_usec_ts) && BITS(far, tcp_usec_ts) ? ns / 1000 : ns / 1000000;

		w->time = now + far->tsoffset - near->rx_opt.ts_recent;
	}
	w->bytes = 0;
	w->last = 0;
	w->packets = 0;
	w->high = near->copied_seq;
	w->acked = near->snd_una;
	/* The source has been offered a window by the proxy, and so has the proxy by
	 * the destination. */
	w->edge = near->rcv_wup + near->rcv_wnd;
	edge = far->snd_una + far->snd_wnd - w->seq;
	if (after(edge, w->edge))
		w->edge = edge;
	w->window = near->snd_wnd >> w->scale;
	w->time_high = near->rx_opt.ts_recent;
	w->fin_end = 0;
	w->fin = FIN_NONE;
}

/* The addresses of a packet this way, or of its answer. */
static __always_inline struct tuple facing(const struct tuple *t, int turned)
{
	struct tuple key = *t;

	if (turned) {
		for (int i = 0; i < 4; i++) {
			key.source[i] = t->dest[i];
			key.dest[i] = t->source[i];
		}
		key.source_port = t->dest_port;
		key.dest_port = t->source_port;
	}
	return key;
}

static __always_inline int enter(const struct tuple *t, __u32 slot, enum role role, int turned)
{
	struct place p = {.slot = slot, .role = role};
	struct tuple key = facing(t, turned);

	return bpf_map_update_elem(&places, &key, &p, BPF_NOEXIST) == 0;
}

static __always_inline void remove(const struct tuple *t, int turned)
{
	struct tuple key = facing(t, turned);

	bpf_map_delete_elem(&places, &key);
}

static __always_inline enum refusal graft(struct request *q, struct tcp_sock *c, struct tcp_sock *s, struct graft *g)
{
	enum refusal why;
	int v6 = q->client.source[2] != htonl(0xffff) || q->client.source[0] || q->client.source[1];

	if ((why = fit(c)) || (why = fit(s)) || (why = match(c, s, v6)))
		return why;
	g->devices[0] = g->devices[1] = 0;
	if ((why = way_out(c, &g->devices[0])) || (why = way_out(s, &g->devices[1])))
		return why;
	/* What comes to lo from outside has to bring a route of its own: its source is
	 * an address of this host, so that it is martian without one. The kernel gives
	 * that route to who names the device of the address. In IPv6 there are no
	 * martians. */
	if (!v6 && !q->local && g->devices[0] != g->devices[1] && (g->devices[0] == LOOPBACK || g->devices[1] == LOOPBACK))
		return REFUSAL_LOCAL;
	g->state = STATE_OFF;
	g->generation = q->generation;
	g->worker = q->worker;
	g->reset_by = 0;
	g->copies = 0;
	g->first = 0;
	g->key[0] = q->client;
	g->key[1] = q->server;
	fill(&g->way[0], &q->client, &q->server, c, s);
	fill(&g->way[1], &q->server, &q->client, s, c);
	g->way[0].device = g->devices[1];
	g->way[1].device = g->devices[0];
	g->way[0].local = g->way[1].local = q->local;
	if (!enter(&q->client, q->slot, ROLE_REQUEST, 0))
		return REFUSAL_TAKEN;
	if (!enter(&q->server, q->slot, ROLE_RESPONSE, 0))
		goto first;
	if (!enter(&q->server, q->slot, ROLE_OWN_REQUEST, 1))
		goto second;
	if (!enter(&q->client, q->slot, ROLE_OWN_RESPONSE, 1))
		goto third;
	/* The switch: one store, for both directions. */
	*(volatile enum state *)&g->state = STATE_DRAIN;
	return REFUSAL_NONE;
third:
	remove(&q->server, 1);
second:
	remove(&q->server, 0);
first:
	remove(&q->client, 0);
	return REFUSAL_TAKEN;
}

static __always_inline enum refusal join_of(struct __sk_buff *skb)
{
	struct request q;
	struct bpf_sock *hc = 0, *hs = 0;
	enum refusal why = REFUSAL_NO_SOCKET;

	if (bpf_skb_load_bytes(skb, 0, &q, sizeof(q)))
		return REFUSAL_REQUEST;
	struct graft *g = bpf_map_lookup_elem(&grafts, &q.slot);
	if (!g)
		return REFUSAL_REQUEST;
	struct tcp_sock *c = socket_of(skb, &q.client, &hc);
	struct tcp_sock *s = socket_of(skb, &q.server, &hs);
	if (c && s)
		why = graft(&q, c, s, g);
	if (hc)
		bpf_sk_release(hc);
	if (hs)
		bpf_sk_release(hs);
	return why;
}

SEC("tc")
int join(struct __sk_buff *skb)
{
	enum refusal why = join_of(skb);

	count(&refusals, why);
	return why;
}

char _license[] SEC("license") = "Dual MIT/GPL";
