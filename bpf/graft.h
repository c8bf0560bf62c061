/* What the programs of the graft share: the state of a grafted pair, and the maps. */

#ifndef GRAFT_H
#define GRAFT_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define MAX_GRAFTS 16384
#define MAX_WORKERS 256
#define RING_BYTES 65536

#define htons(x) __builtin_bswap16(x)
#define htonl(x) __builtin_bswap32(x)

#define LOOPBACK 1 /* its number in every namespace */

/* Of a grafted pair. User space and the programs both change it, by compare and
 * exchange. */
enum state {
	STATE_OFF,    /* packets pass */
	STATE_DRAIN,  /* packets are translated; what the proxy's sockets hold goes on beside */
	STATE_ACTIVE, /* the sockets hold nothing, and say nothing any more */
	STATE_PARTING, /* nothing new passes, what is under way does, so that the halves can part */
	STATE_CLOSED, /* both ends were acknowledged */
	STATE_RESET,  /* one side reset, and the other was told */
	STATE_ENDED,  /* the proxy reset both sides */
	STATE_BACK,   /* both ends came to the sockets, and so had all before: they finish */
	STATE_PARTED, /* two connections again, of whose positions the sockets have others */
};

/* What a packet is to its pair. */
enum role {
	ROLE_REQUEST,	   /* from the client */
	ROLE_RESPONSE,	   /* from the server */
	ROLE_OWN_REQUEST,  /* from the proxy's socket, to the server */
	ROLE_OWN_RESPONSE, /* from the proxy's socket, to the client */
};

enum fin {
	FIN_NONE,
	FIN_SENT,
	FIN_ACKED,
};

/* Where a packet came to its end; each is counted once. */
enum passage {
	PASSAGE_OTHER,	    /* nobody's: no TCP, or no grafted pair's */
	PASSAGE_MALFORMED,  /* header lengths that cannot be; the kernel drops it */
	PASSAGE_MARKED,	    /* translated before, on its way through another device */
	PASSAGE_OFF,	    /* the pair is not grafted any more, or not yet */
	PASSAGE_ENDED,	    /* the proxy reset the pair: the kernel answers */
	PASSAGE_BACK,	    /* to the proxy's own socket, which finishes */
	PASSAGE_HELD,	    /* new, of a pair whose halves are to part: dropped */
	PASSAGE_PARTED,	    /* to the proxy's own socket, which has parted */
	PASSAGE_REUSED,	    /* a SYN: the addresses have a new connection */
	PASSAGE_LOCAL,	    /* translated, to a socket of this namespace */
	PASSAGE_LOOPBACK,   /* translated, to a socket of this namespace, in by lo */
	PASSAGE_NEIGHBOUR,  /* translated, out by another device */
	PASSAGE_RESET,	    /* an RST while the sockets still hold bytes: theirs */
	PASSAGE_COPIED,	    /* a bare copy of an ACK for the proxy's own socket */
	PASSAGE_UNCOPIED,   /* …which is gone */
	PASSAGE_OWN,	    /* the proxy's own */
	PASSAGE_OWN_LIFTED, /* …whose ACK or time was behind what was passed on */
	PASSAGE_OWN_RESET,  /* …an RST, moved to where its receiver takes it */
	PASSAGE_OWN_PARTED, /* …of a socket that has parted */
	PASSAGE_OWN_STALE,  /* …that had nothing to say, dropped */
	PASSAGE_SHORT,	    /* the header cannot be read: dropped, it comes again */
	PASSAGE_MAX,
};

/* Things that happen on the way. */
enum incident {
	INCIDENT_OPTIONS,   /* options in another order than Linux has them */
	INCIDENT_ODD,	    /* a malformed option: what follows it is as it was */
	INCIDENT_FLOOR,	    /* an ACK raised to what the proxy's socket had acknowledged */
	INCIDENT_BEHIND,    /* an ACK or RST moved forward to where its receiver is */
	INCIDENT_OUTSIDE,   /* an RST or FIN outside the window: passed on, not believed */
	INCIDENT_NARROW,    /* a window that the far scale cannot say in full */
	INCIDENT_WOKEN,
	INCIDENT_WAKE_LOST, /* the ring was full: found by the scan */
	INCIDENT_MAX,
};

/* Network order; IPv4 addresses are mapped (::ffff:a.b.c.d). */
struct tuple {
	__u32 source[4];
	__u32 dest[4];
	__u16 source_port;
	__u16 dest_port;
};

struct place {
	__u32 slot;
	enum role role;
};

/* One direction. Positions are the source's own, untranslated. */
struct way {
	/* written before the pair is grafted */
	struct tuple to; /* what its packets become */
	__u32 seq;	 /* is added to its positions */
	__u32 time;	 /* is added to its timestamps */
	__u32 device;	 /* to leave by; LOOPBACK: to a socket of this namespace */
	__u32 addresses; /* difference of the checksum… */
	__u32 ports;
	__s32 shift;	 /* of its windows, to the left */
	__u32 scale;	 /* of its windows */
	__u32 local;	 /* device that has the address, of what comes to lo from outside */

	/* written by the programs */
	__u64 bytes; /* new ones since the graft, by position */
	__u64 last;  /* coarse CLOCK_MONOTONIC of the last of them, ns */
	__u64 packets;
	__u32 high;   /* position behind the last byte seen */
	__u32 acked;  /* of the other direction, by this one's packets */
	__u32 edge;   /* of the window that the destination has offered */
	__u32 window; /* the last, unscaled */
	__u32 time_high;
	__u32 fin_end;
	enum fin fin;
	/* written when the halves part: are added to positions and acknowledgements of
	 * its packets, which go to the proxy's socket then */
	__u32 part_seq;
	__u32 part_ack;
	__u32 pad;
};

struct graft {
	enum state state;
	__u32 generation; /* of the slot, so that stale events are seen */
	__u32 worker;	  /* whose ring to wake */
	__u32 reset_by;	  /* role of the RST that was passed on */
	__u32 devices[2]; /* of the proxy's sockets, to client and to server */
	__u32 copies;
	__u32 first; /* 1 + direction of the first FIN */
	struct tuple key[2];
	struct way way[2];
};

/* Addresses of an arriving packet -> pair. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4 * MAX_GRAFTS);
	__type(key, struct tuple);
	__type(value, struct place);
} places SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_GRAFTS);
	__type(key, __u32);
	__type(value, struct graft);
} grafts SEC(".maps");

static __always_inline void count(void *map, __u32 i)
{
	__u64 *n = bpf_map_lookup_elem(map, &i);

	if (n)
		*n += 1;
}

static __always_inline enum state state_of(struct graft *g)
{
	return *(volatile enum state *)&g->state;
}

static __always_inline int after(__u32 a, __u32 b) { return (__s32)(a - b) > 0; }

/* The position that the source of a way goes on at. */
static __always_inline __u32 next_of(struct way *w) { return w->fin ? w->fin_end : w->high; }

/* Sums of the Internet checksum. */
static __always_inline __u64 replace32(__u64 sum, __u32 old, __u32 new) { return sum + (__u32)~old + new; }
static __always_inline __u64 replace16(__u64 sum, __u16 old, __u16 new) { return sum + (__u16)~old + new; }

static __always_inline __u32 fold32(__u64 s)
{
	s = (s & 0xffffffff) + (s >> 32);
	s = (s & 0xffffffff) + (s >> 32);
	return s;
}

static __always_inline __u16 fold16(__u32 s)
{
	s = (s & 0xffff) + (s >> 16);
	s = (s & 0xffff) + (s >> 16);
	return s;
}

/* Hand-written CO-RE views of the kernel's own structs. */
struct net_device {
	int ifindex;
	unsigned short type;
} __attribute__((preserve_access_index));

struct dst_entry {
	struct net_device *dev;
	void *xfrm;
} __attribute__((preserve_access_index));

struct sock_common {
	unsigned char skc_state;
	int skc_bound_dev_if;
} __attribute__((preserve_access_index));

struct sock {
	struct sock_common __sk_common;
	struct dst_entry *sk_dst_cache;
	int sk_rx_dst_ifindex;
} __attribute__((preserve_access_index));

struct inet_sock {
	struct sock sk;
} __attribute__((preserve_access_index));

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	__u32 icsk_pmtu_cookie;
	void *icsk_ulp_ops;
} __attribute__((preserve_access_index));

struct rb_root {
	void *rb_node;
} __attribute__((preserve_access_index));

struct tcp_options_received {
	__u32 ts_recent;
	__u16 tstamp_ok : 1, sack_ok : 3, snd_wscale : 4, rcv_wscale : 4;
	__u16 mss_clamp;
} __attribute__((preserve_access_index));

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 tsoffset;
	__u32 snd_wnd;
	__u8 repair : 1, tcp_usec_ts : 1;
	__u32 copied_seq;
	__u16 advmss;
	__u16 urg_data;
	struct rb_root out_of_order_queue;
	__u32 write_seq;
	__u8 ecn_flags;
	__u32 rcv_nxt;
	__u32 snd_nxt;
	__u32 snd_una;
	__u32 rcv_wnd;
	struct tcp_options_received rx_opt;
	__u32 rcv_wup;
	unsigned char is_mptcp;
	void *md5sig_info;
	void *ao_info;
} __attribute__((preserve_access_index));

/* The socket of this namespace that packets with these addresses go to. *held is
 * to be released, if there is one; the result is 0 unless it is a full socket. */
static __always_inline struct tcp_sock *socket_of(struct __sk_buff *skb, const struct tuple *t, struct bpf_sock **held)
{
	struct bpf_sock_tuple q = {};

	if (t->source[0] == 0 && t->source[1] == 0 && t->source[2] == htonl(0xffff)) {
		q.ipv4.saddr = t->source[3];
		q.ipv4.daddr = t->dest[3];
		q.ipv4.sport = t->source_port;
		q.ipv4.dport = t->dest_port;
		*held = bpf_skc_lookup_tcp(skb, &q, sizeof(q.ipv4), BPF_F_CURRENT_NETNS, 0);
	} else {
		for (int i = 0; i < 4; i++) {
			q.ipv6.saddr[i] = t->source[i];
			q.ipv6.daddr[i] = t->dest[i];
		}
		q.ipv6.sport = t->source_port;
		q.ipv6.dport = t->dest_port;
		*held = bpf_skc_lookup_tcp(skb, &q, sizeof(q.ipv6), BPF_F_CURRENT_NETNS, 0);
	}
	if (!*held)
		return 0;
	return bpf_skc_to_tcp_sock(*held);
}

#endif
