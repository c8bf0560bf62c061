//go:build ignore

/* The guarded splice: bytes that arrive on one TCP socket of a pair are handed
 * to the other inside the kernel, as long as no rule below forbids it. A rule
 * that does passes them to user space (SK_PASS), which is always safe: the
 * source's receive window then closes by itself.
 *
 * What the kernel does around this program was measured, not assumed; the
 * rules and the tests that catch their breach are listed in docs/splice.md. */

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define MAX_SLOTS 32768
#define MAX_WORKERS 256
#define RING_BYTES 65536

/* bpf_skb_adjust_room refuses to cut more than 0xfff bytes in one call. */
#define TRIM_STEP 0xf00
/* Enough steps for the largest skb seen on a receive queue, 17 fragments of 64 KiB. */
#define TRIM_STEPS 300

enum mode {
	MODE_PASS = 0, /* user space has the direction: pass everything */
	MODE_SPLICE = 1,
};

enum basis {
	BASIS_NONE = 0, /* first run after an insertion: learn next */
	BASIS_SEQ = 1,	/* next is known, base is not yet */
	BASIS_FULL = 2,
};

/* Why the verdict ended as it did; each end is counted once. */
enum exit {
	EXIT_REDIRECTED,
	EXIT_EMPTY,	/* FIN without data */
	EXIT_UNKNOWN,	/* socket without a direction */
	EXIT_NO_SLOT,	/* direction without a slot: cannot be, the verifier asks */
	EXIT_DUPLICATE, /* every byte was seen before */
	EXIT_BROKEN,	/* bytes are missing before this skb, or it could not be trimmed */
	EXIT_MODE,	/* user space asked for everything */
	EXIT_BEHIND,	/* user space holds earlier bytes */
	EXIT_NO_SEQ,	/* the source's sequence could not be read */
	EXIT_NO_TARGET, /* the destination is gone */
	EXIT_FULL,	/* the destination's backlog is at its limit */
	EXIT_BUDGET,	/* all backlogs together are at theirs */
	EXIT_REFUSED,	/* the redirect was refused */
	EXIT_MAX,
};

/* Things that happen on the way to an end. */
enum event {
	EVENT_TRIMMED, /* an overlapping retransmit lost its head */
	EVENT_WOKEN,
	EVENT_CROSSED, /* passed while the other direction had a backlog there */
	EVENT_WAKE_LOST, /* the ring was full: the rescue timer has to find it */
	EVENT_MAX,
};

/* One direction of a pair. The first cache line is written by user space only,
 * the others by the verdict only (which runs under the source's socket lock,
 * so there is one writer); user space resets them while nothing is intercepted. */
struct direction {
	__u64 target;	   /* cookie of the destination */
	__u64 written;	   /* passed bytes that the destination has accepted */
	enum mode mode;
	__u32 limit;	   /* bytes of memory in the destination's backlog */
	__u32 worker;	   /* whose ring to wake */
	__u32 generation;  /* of the slot, so that stale wake-ups are seen */
	__u64 user_pad[4];

	__u64 redirected;  /* bytes handed to the destination in the kernel */
	__u64 passed;	   /* bytes handed to user space */
	__u64 last;	   /* coarse CLOCK_MONOTONIC of the last segment, ns */
	__u64 segments;	   /* redirected */
	__u64 overflows;   /* passed because the backlog was full */
	__u64 trimmed;	   /* bytes cut off overlapping retransmits */
	enum basis basis;
	__u32 base;	   /* destination's write_seq less all that was given to it */
	__u32 next;	   /* sequence number that the next byte must have */
	__u32 broken;
	__u32 max_backlog; /* highest payload seen in the destination's backlog */
	__u32 verdict_pad0;
	__u64 charged;	   /* to the budget, for the backlog last seen; user space
			    * takes it back when it knows that the backlog is gone */
	__u32 verdict_pad[12];
};

/* What all backlogs together may hold and do hold, in bytes of memory. Nothing
 * in the kernel accounts for them: no socket, no tcp_mem, no cgroup. */
struct budget {
	__u64 limit;
	__u64 user_pad[7];

	__u64 charged;
	__u64 verdict_pad[7];
};

/* Hand-written CO-RE views of the kernel's own structs. */
struct sk_buff___k {
	char cb[48]; /* TCP_SKB_CB(skb)->seq is the first word */
	unsigned int truesize;
} __attribute__((preserve_access_index));

struct tcp_sock {
	__u32 copied_seq;
	__u32 write_seq;
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *obj) __attribute__((section(".ksyms")));

/* Sockets whose ingress is intercepted now; the verdict is attached here.
 * Leaving the splice is a delete from this map, without loss, because… */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, MAX_SLOTS);
	__type(key, __u64);
	__type(value, __u64);
} intercepted SEC(".maps");

/* …this one, without a program, keeps both sockets of a pair from their first
 * promotion to their end: their backlog and passed bytes live on. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, MAX_SLOTS);
	__type(key, __u64);
	__type(value, __u64);
} targets SEC(".maps");

/* Cookie of a source -> slot of its direction. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SLOTS);
	__type(key, __u64);
	__type(value, __u32);
} slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_SLOTS);
	__type(key, __u32);
	__type(value, struct direction);
} directions SEC(".maps");

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

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, EVENT_MAX);
	__type(key, enum event);
	__type(value, __u64);
} events SEC(".maps");

static __always_inline void count(void *map, __u32 i)
{
	__u64 *n = bpf_map_lookup_elem(map, &i);

	if (n)
		*n += 1;
}

static __always_inline int leave(enum exit why, int verdict)
{
	count(&exits, why);
	return verdict;
}

static __always_inline void wake(struct direction *d, __u32 slot)
{
	__u32 worker = d->worker;
	void *ring = bpf_map_lookup_elem(&rings, &worker);
	__u64 record = (__u64)d->generation << 32 | slot;

	if (ring && bpf_ringbuf_output(ring, &record, sizeof(record), 0) == 0)
		count(&events, EVENT_WOKEN);
	else
		count(&events, EVENT_WAKE_LOST);
}

/* Counts what is passed while the other direction's backlog waits at the same
 * socket. Such bytes queue up behind it, and it is the kernel's worker that gives
 * them to the socket: without the socket's lock (sk_psock_backlog,
 * skb_set_owner_r), so that TCP's account of the socket's memory can lose an
 * update. Bytes arrive all the same; docs/splice.md has the figures. */
static __always_inline void crossed(struct __sk_buff *skb, struct direction *d)
{
	__u32 *slotp = bpf_map_lookup_elem(&slots, &d->target);
	struct bpf_sock *self = skb->sk;

	if (!slotp || !self)
		return;
	__u32 slot = *slotp;
	struct direction *other = bpf_map_lookup_elem(&directions, &slot);
	struct tcp_sock *source = bpf_skc_to_tcp_sock(self);
	if (!other || !source || other->basis != BASIS_FULL)
		return;
	__u32 given = (__u32)(other->redirected + *(volatile __u64 *)&other->written);
	if ((__s32)(given - (source->write_seq - other->base)) > 0)
		count(&events, EVENT_CROSSED);
}

/* Hands the bytes to user space. The add comes before the second look at
 * written, and user space does its own the other way round, so that one of the
 * two sees the other: a wake-up is never lost between them. */
static __always_inline int pass(struct __sk_buff *skb, struct direction *d, __u32 slot, __u32 len, enum exit why)
{
	crossed(skb, d);
	__u64 before = __sync_fetch_and_add(&d->passed, len);

	if (*(volatile __u64 *)&d->written == before || why == EXIT_BROKEN)
		wake(d, slot);
	return leave(why, SK_PASS);
}

/* tcp_read_skb() hands over the whole skb, however much of it was taken before;
 * so the part of a re-packetised retransmit that was seen already is cut off
 * here. Returns the length that remains, 0 if none, or -1 if bytes are missing
 * or the head would not come off. */
static __always_inline long trim(struct __sk_buff *skb, struct direction *d, __u32 seq)
{
	__s32 off = (__s32)(d->next - seq);

	if (off < 0)
		return -1;
	if (off == 0)
		return skb->len;
	count(&events, EVENT_TRIMMED);
	if ((__u32)off >= skb->len) {
		d->trimmed += skb->len;
		return 0;
	}
	d->trimmed += off;
	for (int i = 0; i < TRIM_STEPS && off > 0; i++) {
		__s32 n = off > TRIM_STEP ? TRIM_STEP : off;

		if (bpf_skb_adjust_room(skb, -n, 0, 0))
			return -1;
		off -= n;
	}
	return off > 0 ? -1 : (long)skb->len;
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
		return pass(skb, d, slot, skb->len, EXIT_BROKEN);

	struct sk_buff___k *k = bpf_cast_to_kern_ctx(skb);
	__u32 seq = 0;
	bpf_probe_read_kernel(&seq, sizeof(seq), k->cb);
	if (d->basis == BASIS_NONE) {
		/* User space has read everything before: copied_seq is exact. */
		struct bpf_sock *self = skb->sk;
		struct tcp_sock *source = self ? bpf_skc_to_tcp_sock(self) : 0;

		if (!source)
			return pass(skb, d, slot, skb->len, EXIT_NO_SEQ);
		d->next = source->copied_seq;
		d->basis = BASIS_SEQ;
	}

	long left = trim(skb, d, seq);
	if (left < 0) {
		d->broken = 1; /* user space resets the pair */
		return pass(skb, d, slot, skb->len, EXIT_BROKEN);
	}
	if (left == 0)
		return leave(EXIT_DUPLICATE, SK_DROP);
	__u32 len = left;
	d->next += len;

	if (*(volatile __u32 *)&d->mode != MODE_SPLICE)
		return pass(skb, d, slot, len, EXIT_MODE);
	__u64 written = *(volatile __u64 *)&d->written;
	if (d->passed != written)
		return pass(skb, d, slot, len, EXIT_BEHIND);

	struct bpf_sock *sk = bpf_map_lookup_elem(&targets, &d->target);
	if (!sk)
		return pass(skb, d, slot, len, EXIT_NO_TARGET);
	struct tcp_sock *target = bpf_skc_to_tcp_sock(sk);
	__u32 write_seq = target ? target->write_seq : 0;
	bpf_sk_release(sk);
	if (!target)
		return pass(skb, d, slot, len, EXIT_NO_TARGET);

	/* Exact: what was given to the destination less what its TCP has taken in. */
	__u32 given = (__u32)(d->redirected + written);
	if (d->basis == BASIS_SEQ) {
		d->base = write_seq - given;
		d->basis = BASIS_FULL;
	}
	__s32 backlog = (__s32)(given - (write_seq - d->base));
	if (backlog > (__s32)d->max_backlog)
		d->max_backlog = backlog;
	/* Memory, not payload: a one-byte segment costs a thousand times its length. */
	__u64 owed = backlog > 0 ? (__u64)backlog * k->truesize / len : 0;
	int full = owed > d->limit;
	int room = charge(d, full ? d->limit : owed);
	if (full) {
		d->overflows++;
		return pass(skb, d, slot, len, EXIT_FULL);
	}
	if (!room) {
		d->overflows++;
		return pass(skb, d, slot, len, EXIT_BUDGET);
	}

	/* A key that is not in the map would mean SK_DROP: acked bytes, gone. */
	if (bpf_sk_redirect_hash(skb, &targets, &d->target, 0) != SK_PASS)
		return pass(skb, d, slot, len, EXIT_REFUSED);
	__sync_fetch_and_add(&d->redirected, len);
	d->segments++;
	return leave(EXIT_REDIRECTED, SK_PASS);
}

/* bpf_skc_to_tcp_sock and the kfunc ask for a GPL-compatible licence. */
char _license[] SEC("license") = "Dual MIT/GPL";
