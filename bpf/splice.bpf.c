//go:build ignore

/* The guarded splice: bytes that arrive on one TCP socket of a pair are handed
 * to the other inside the kernel. The verdict never gives bytes of a pair to user
 * space (SK_PASS): what it passes behind a backlog of the other direction is
 * charged by the kernel's worker without the socket's lock, and TCP's books are
 * off for good (docs/splice.md). Where it should not go on it is taken away
 * (leave.bpf.c), so that bytes stay in TCP's own queue and the window closes, and
 * user space is called; until then it goes on, up to a bound. Where it cannot go on it
 * drops the bytes and latches broken: both sides are reset, never cut short.
 *
 * What the kernel does around this program was measured, not assumed; the
 * rules and the tests that catch their breach are listed in docs/splice.md. */

#include "splice.h"

/* bpf_skb_adjust_room refuses to cut more than 0xfff bytes in one call. */
#define TRIM_STEP 0xf00
/* Enough steps for the largest skb seen on a receive queue, 17 fragments of 64 KiB. */
#define TRIM_STEPS 300

/* What all backlogs together may hold and do hold, in bytes of memory. Nothing
 * in the kernel accounts for them: no socket, no tcp_mem, no cgroup. */
struct budget {
	__u64 limit;
	__u64 user_pad[7];

	__u64 charged;
	__u64 verdict_pad[7];
};

/* A hand-written CO-RE view. */
struct sk_buff___k {
	char cb[48]; /* TCP_SKB_CB(skb)->seq is the first word */
	unsigned int truesize;
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *obj) __attribute__((section(".ksyms")));

/* Both sockets of a pair, from its first promotion to its end; no program. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, MAX_SLOTS);
	__type(key, __u64);
	__type(value, __u64);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct budget);
} budgets SEC(".maps");

/* One ring per worker, so that a wake-up reaches the right loop at once. A
 * record is a __u64: slot, and its generation in the upper half. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_WORKERS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_RINGBUF);
		__uint(max_entries, RING_BYTES);
	});
} rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EXIT_MAX);
	__type(key, enum exit);
	__type(value, __u64);
} exits SEC(".maps");

static __always_inline int leave(enum exit why, int verdict)
{
	count(&exits, why);
	return verdict;
}

static __always_inline int wake(struct direction *d, __u32 slot)
{
	__u32 worker = d->worker;
	void *ring = bpf_map_lookup_elem(&rings, &worker);
	__u64 record = (__u64)d->generation << 32 | slot;

	if (ring && bpf_ringbuf_output(ring, &record, sizeof(record), 0) == 0) {
		count(&events, EVENT_WOKEN);
		return 1;
	}
	count(&events, EVENT_WAKE_LOST);
	return 0;
}

/* Has user space take the direction back, once. */
static __always_inline void call(struct direction *d, __u32 slot, enum event why)
{
	if (d->called >= CALL_HEARD)
		return;
	if (d->called == CALL_NONE)
		count(&events, why);
	d->called = wake(d, slot) ? CALL_HEARD : CALL_LOST;
}

/* Ends the pair: its bytes cannot be handed on as they must be. They are dropped,
 * for passing them would queue them where nobody reads any more. */
static __always_inline int breaks(struct direction *d, __u32 slot, enum exit why)
{
	if (!d->broken)
		d->broken = why;
	wake(d, slot);
	return leave(why, SK_DROP);
}

/* tcp_read_skb() hands over the whole skb, however much of it was taken before;
 * so the part of a re-packetised retransmit that was seen already is cut off
 * here. Returns the length that remains, 0 if none, or less: the end to come to,
 * negative. */
static __always_inline long trim(struct __sk_buff *skb, struct direction *d, __u32 seq)
{
	__s32 off = (__s32)(d->next - seq);

	if (off < 0)
		return -EXIT_GAP;
	if (off == 0)
		return skb->len;
	count(&events, EVENT_TRIMMED);
	if ((__u32)off >= skb->len)
		return 0;
	for (int i = 0; i < TRIM_STEPS && off > 0; i++) {
		__s32 n = off > TRIM_STEP ? TRIM_STEP : off;

		if (bpf_skb_adjust_room(skb, -n, 0, 0))
			return -EXIT_UNTRIMMED;
		off -= n;
	}
	return off > 0 ? -EXIT_UNTRIMMED : (long)skb->len;
}

/* The memory of a backlog of so many bytes, or a little more: a one-byte segment
 * costs a thousand times its length. A backlog is what was redirected last, so the
 * skbs are added up in two lots, and the older lot is forgotten when the newer
 * one alone covers the backlog. */
static __always_inline __u32 memory(struct direction *d, __s32 backlog)
{
	if (backlog <= 0) {
		d->recent = 0;
		d->recent_bytes = 0;
		d->older = 0;
		return 0;
	}
	if (d->recent_bytes >= (__u32)backlog) {
		d->older = d->recent;
		d->recent = 0;
		d->recent_bytes = 0;
	}
	return d->older + d->recent;
}

/* Books what this direction's backlog holds, and tells whether there is room for
 * more. A backlog that is empty and was costs nothing: no word is shared. */
static __always_inline int charge(struct direction *d, __u64 owed)
{
	__u32 zero = 0;

	if (owed == 0 && *(volatile __u64 *)&d->charged == 0)
		return 1;
	struct budget *b = bpf_map_lookup_elem(&budgets, &zero);
	if (!b)
		return 0;
	__u64 had = __sync_lock_test_and_set(&d->charged, owed);
	__s64 total = __sync_fetch_and_add(&b->charged, owed - had) + owed - had;
	return owed == 0 || total <= (__s64)b->limit;
}

SEC("sk_skb/stream_verdict")
int splice(struct __sk_buff *skb)
{
	/* Redirecting a lone FIN would raise EPIPE on the destination. */
	if (skb->len == 0)
		return leave(EXIT_EMPTY, SK_DROP);

	__u64 cookie = bpf_get_socket_cookie(skb);
	__u32 *slotp = bpf_map_lookup_elem(&slots, &cookie);
	if (!slotp)
		return leave(EXIT_UNKNOWN, SK_PASS);
	__u32 slot = *slotp;
	struct direction *d = bpf_map_lookup_elem(&directions, &slot);
	if (!d)
		return leave(EXIT_NO_SLOT, SK_PASS);

	d->last = bpf_ktime_get_coarse_ns();
	if (d->broken)
		return breaks(d, slot, EXIT_BROKEN);

	struct sk_buff___k *k = bpf_cast_to_kern_ctx(skb);
	__u32 seq = 0;
	bpf_probe_read_kernel(&seq, sizeof(seq), k->cb);
	if (d->basis == BASIS_NONE) {
		/* User space has read everything before: copied_seq is exact. */
		struct bpf_sock *self = skb->sk;
		struct tcp_sock *source = self ? bpf_skc_to_tcp_sock(self) : 0;

		if (!source)
			return breaks(d, slot, EXIT_NO_SEQ);
		d->next = source->copied_seq;
		d->basis = BASIS_SEQ;
	}

	long left = trim(skb, d, seq);
	if (left < 0)
		return breaks(d, slot, -left);
	if (left == 0)
		return leave(EXIT_DUPLICATE, SK_DROP);
	__u32 len = left;
	d->next += len;

	struct bpf_sock *sk = bpf_map_lookup_elem(&targets, &d->target);
	if (!sk)
		return breaks(d, slot, EXIT_NO_TARGET);
	struct tcp_sock *target = bpf_skc_to_tcp_sock(sk);
	__u32 write_seq = target ? target->write_seq : 0;
	bpf_sk_release(sk);
	if (!target)
		return breaks(d, slot, EXIT_NO_TARGET);

	/* Exact: what was given to the destination less what its TCP has taken in. */
	__u32 given = (__u32)d->redirected;
	if (d->basis == BASIS_SEQ) {
		d->base = write_seq - given;
		d->basis = BASIS_FULL;
	}
	__s32 backlog = (__s32)(given - (write_seq - d->base));
	if (backlog > (__s32)d->max_backlog)
		d->max_backlog = backlog;
	__u32 owed = memory(d, backlog), truesize = k->truesize;
	int room = charge(d, owed);
	if (owed > d->most || (owed > d->limit && !room))
		return breaks(d, slot, EXIT_FULL);
	if (owed > d->limit)
		call(d, slot, EVENT_OVERFLOW);
	else if (!room)
		call(d, slot, EVENT_BUDGET);

	/* A key that is not in the map would mean SK_DROP, behind our back. */
	if (bpf_sk_redirect_hash(skb, &targets, &d->target, 0) != SK_PASS)
		return breaks(d, slot, EXIT_REFUSED);
	__sync_fetch_and_add(&d->redirected, len);
	d->segments++;
	d->recent += truesize;
	d->recent_bytes += len;
	return leave(EXIT_REDIRECTED, SK_PASS);
}

/* bpf_skc_to_tcp_sock and the kfunc ask for a GPL-compatible licence. */
char _license[] SEC("license") = "Dual MIT/GPL";
