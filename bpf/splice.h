/* What the programs of the splice share: the state of a direction, and the maps. */

#ifndef SPLICE_H
#define SPLICE_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define MAX_SLOTS 32768
#define MAX_WORKERS 256
#define RING_BYTES 65536

enum basis {
	BASIS_NONE = 0, /* first run after an insertion: learn next */
	BASIS_SEQ = 1,	/* next is known, base is not yet */
	BASIS_FULL = 2,
};

/* Whether user space is to take the direction back. */
enum call {
	CALL_NONE = 0,
	CALL_LOST = 1, /* the ring was full: the next segment tries again */
	CALL_HEARD = 2,
	CALL_LEFT = 3, /* the verdict has been taken away (leave.bpf.c) */
};

/* Why the verdict ended as it did; each end is counted once. */
enum exit {
	EXIT_NONE, /* so that 0 in broken is none */
	EXIT_REDIRECTED,
	EXIT_EMPTY,	/* FIN without data */
	EXIT_UNKNOWN,	/* socket without a direction: passed, it is nobody's pair */
	EXIT_NO_SLOT,	/* direction without a slot: cannot be, the verifier asks */
	EXIT_DUPLICATE, /* every byte was seen before */
	/* the pair is reset: */
	EXIT_GAP,	/* bytes are missing before this skb */
	EXIT_UNTRIMMED, /* its head was seen before and would not come off */
	EXIT_NO_SEQ,	/* the source's sequence could not be read */
	EXIT_NO_TARGET, /* the destination is gone */
	EXIT_FULL,	/* the backlog grew to its bound before user space came */
	EXIT_REFUSED,	/* the redirect was refused */
	EXIT_BROKEN,	/* one of these happened before */
	EXIT_MAX,
};

/* Things that happen on the way to an end. */
enum event {
	EVENT_TRIMMED, /* an overlapping retransmit lost its head */
	EVENT_OVERFLOW, /* the backlog passed its limit: user space is to take over */
	EVENT_BUDGET, /* …because all backlogs together passed theirs */
	EVENT_WOKEN,
	EVENT_WAKE_LOST, /* the ring was full */
	EVENT_ARMED, /* a source will be looked at when it sends */
	EVENT_LEFT,  /* the verdict was taken away, under the socket's lock */
	EVENT_LEAVE_LATER, /* not now: the verdict has skbs in hand */
	EVENT_MAX,
};

/* One direction of a pair. The first cache line is written by user space only,
 * the other by the verdict, under the source's socket lock, so that there is one
 * writer, but of charged and called; user space resets it while nothing is intercepted. */
struct direction {
	__u64 target;	   /* cookie of the destination */
	__u32 limit;	   /* bytes of memory in the destination's backlog; past it
			    * user space is called… */
	__u32 most;	   /* …and past this the pair is reset */
	__u32 worker;	   /* whose ring to wake */
	__u32 generation;  /* of the slot, so that stale wake-ups are seen */
	__u32 recalled;	   /* user space wants the direction back */
	__u32 user_pad[9];

	__u64 redirected;  /* bytes handed to the destination in the kernel */
	__u64 last;	   /* coarse CLOCK_MONOTONIC of the last segment, ns */
	__u64 charged;	   /* to the budget, for the backlog last seen; user space
			    * takes it back when it knows that the backlog is gone */
	__u32 segments;	   /* redirected; wraps */
	enum basis basis;
	__u32 base;	   /* destination's write_seq less what was redirected to it */
	__u32 next;	   /* sequence number that the next byte must have */
	enum call called;  /* since the insertion */
	__u32 max_backlog; /* highest payload seen in the destination's backlog */
	enum exit broken;  /* why the pair has to be reset */
	__u32 recent;	   /* memory of the last skbs redirected, of so many bytes… */
	__u32 recent_bytes;
	__u32 older;	   /* …and of those before them that may still wait */
};

/* Hand-written CO-RE views of the kernel's own structs. */
struct sk_buff_head {
	__u32 qlen;
} __attribute__((preserve_access_index));

struct sock {
	struct sk_buff_head sk_receive_queue;
} __attribute__((preserve_access_index));

struct inet_sock {
	struct sock sk;
} __attribute__((preserve_access_index));

struct inet_connection_sock {
	struct inet_sock icsk_inet;
} __attribute__((preserve_access_index));

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 copied_seq;
	__u32 write_seq;
} __attribute__((preserve_access_index));

/* Sockets whose ingress is intercepted now; the verdict is attached here.
 * Leaving the splice is a delete from this map, without loss, because targets (splice.bpf.c)
 * keeps both sockets of a pair from their first promotion to their end: their
 * backlog lives on. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, MAX_SLOTS);
	__type(key, __u64);
	__type(value, __u64);
} intercepted SEC(".maps");

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

#endif
