//go:build ignore

/* Routes: where a connection goes that a program in a captured cgroup opens. The
 * program connects to what it meant; the hook below sends it to a listener of
 * ours, and remembers what was meant for getpeername in the program and for
 * SO_ORIGINAL_DST on the accepted socket. No packet is rewritten.
 *
 * All that one decision needs lies in one table, an inner map that is filled
 * before it is put in the one slot of tables: a decision is made by one
 * generation or by another, never by parts of two. */

#include "capture.h"

#define SOL_IP 0
#define SOL_IPV6 41
#define SO_ORIGINAL_DST 80 /* and IP6T_SO_ORIGINAL_DST */
#define SOCK_STREAM 1

#define MAX_FLOWS 65536
#define MAX_ROUTES 1048576

enum verdict {
	VERDICT_PASS = 1,
	VERDICT_CAPTURE = 2,
	VERDICT_STEER = 3, /* taken: not built, and passes */
};

/* What an entry of a table is about; the first word of its key. */
enum kind {
	KIND_EXCLUDE = 1, /* prefixes that pass, whatever else matches */
	KIND_ROUTE = 2,	  /* port (0: any) and prefix */
	KIND_TARGET = 3,  /* a listening socket, by its number in the address */
};

/* How a call of a hook ended; each end is counted once. */
enum outcome {
	/* connect */
	CONNECT_CAPTURED,
	CONNECT_NOT_TCP,
	CONNECT_SELF,	   /* the proxy's own */
	CONNECT_NETNS,	   /* of a namespace that the proxy does not listen in */
	CONNECT_DEVICE,	   /* bound to a device, which does not reach the proxy */
	CONNECT_NO_TABLE,  /* nothing is configured yet */
	CONNECT_EXCLUDED,
	CONNECT_PASSED,	   /* the route says so */
	CONNECT_NO_ROUTE,
	CONNECT_NO_TARGET, /* the route has none of the connection's address family */
	CONNECT_MIXED,	   /* route and target are of two generations: cannot be */
	CONNECT_GONE,	   /* nobody listens, and the connection passed */
	CONNECT_REFUSED,   /* nobody listens, and the connection was refused */
	CONNECT_NO_MEMORY, /* no storage for what was meant: passed */
	CONNECT_NO_MEMORY_REFUSED, /* the same, and refused */
	/* getpeername */
	PEER_ANSWERED,
	PEER_OTHER, /* not captured */
	/* sockops, at the SYN */
	FLOW_NOTED,
	FLOW_OTHER,
	FLOW_FULL,
	/* getsockopt */
	ORIGIN_ANSWERED,
	ORIGIN_OTHER,  /* not captured */
	ORIGIN_FAMILY, /* captured, but not of the level's family */
	ORIGIN_SHORT,  /* the caller's buffer is */
	OUTCOME_MAX,
};

/* Key and entry have no tag: clang leaves a tagged struct that only an inner
 * map names undescribed. */
typedef struct {
	__u32 bits; /* of what follows */
	enum kind kind;
	__be16 port;
	__u16 pad;
	struct address address;
} route_key;

/* What precedes the address, in bits. */
#define KEY_HEAD 64

typedef struct {
	__u64 generation;
	enum verdict verdict;
	__u32 listener; /* these three are numbers that user space gave */
	__u32 cluster;
	__u32 policy;
	__u32 target; /* where to: KIND_TARGET of the same table */
	__be16 port;  /* of a target, as is address */
	__u16 pad;
	struct address address;
} route;

/* What a captured socket meant, and the parts of the decision that was made: all
 * of them are of one generation. */
struct origin {
	__u64 generation;
	__u32 listener;
	__u32 cluster;
	__u32 policy;
	__u32 target;
	struct address address;
	__be16 port;
	__u16 pad[3];
};

/* A connection as its client has it. */
struct flow {
	__u64 netns; /* cookie */
	struct address client;
	struct address server;
	__be16 client_port;
	__be16 server_port;
	__u32 pad;
};

/* Maps may outlive the process that made them. Whatever changes the meaning of
 * one without changing its type or sizes is a new layout (pinLayout in Go). */
struct settings {
	__u64 netns; /* cookie of the namespace that the proxy listens in */
	__u64 pidns_dev;
	__u64 pidns_ino;
	__u32 process; /* the proxy, in that pid namespace; while it lives */
	__u32 layout;
	enum on_exit on_exit;
	__u32 serving; /* the table is this process's, not one that it took over */
	__u32 refuse_when_full;
	__u32 pad;
};

struct table {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ROUTES);
	__type(key, route_key);
	__type(value, route);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct table);
} tables SEC(".maps");

/* Of sockets that connect. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct origin);
} origins SEC(".maps");

/* From the SYN to whoever asks on the accepting side. Who asks takes the entry
 * away; those that nobody accepted age. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_FLOWS);
	__type(key, struct flow);
	__type(value, struct origin);
} flows SEC(".maps");

/* Of accepted sockets whose owner has asked once. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct origin);
} accepted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} setting SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OUTCOME_MAX);
	__type(key, enum outcome);
	__type(value, __u64);
} outcomes SEC(".maps");

static __always_inline int leave(enum outcome why, int answer)
{
	__u32 i = why;
	__u64 *n = bpf_map_lookup_elem(&outcomes, &i);

	if (n)
		*n += 1;
	return answer;
}

static __always_inline int mapped(const struct address *a)
{
	return a->word[0] == 0 && a->word[1] == 0 && a->word[2] == htonl(0xffff);
}

static __always_inline int is_alive(void)
{
	__u32 zero = 0;
	struct bpf_sock *sk = bpf_map_lookup_elem(&life, &zero);

	if (!sk)
		return 0;
	bpf_sk_release(sk);
	return 1;
}

/* Upstream connections are opened on the proxy's own threads. */
static __always_inline int is_proxy(const struct settings *s)
{
	struct bpf_pidns_info ids = {};

	if (bpf_get_ns_current_pid_tgid(s->pidns_dev, s->pidns_ino, &ids, sizeof(ids)))
		return 0; /* in another pid namespace */
	return ids.tgid == s->process && is_alive();
}

static __always_inline int is_listening(struct bpf_sock_addr *ctx, const route *t)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *sk;
	__u32 size;

	if (mapped(&t->address)) {
		tuple.ipv4.daddr = t->address.word[3];
		tuple.ipv4.dport = t->port;
		size = sizeof(tuple.ipv4);
		sk = bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	} else {
		__builtin_memcpy(tuple.ipv6.daddr, &t->address, sizeof(tuple.ipv6.daddr));
		tuple.ipv6.dport = t->port;
		size = sizeof(tuple.ipv6);
		sk = bpf_sk_lookup_tcp(ctx, &tuple, size, BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return 0;
	bpf_sk_release(sk);
	return 1;
}

/* Decides for a connection to `to`. What is captured gets its target's address
 * in `to` and in `port`. Returns the hook's answer: 1 connects, 0 is EPERM. */
static __always_inline int decide(struct bpf_sock_addr *ctx, struct address *to, __be16 *port)
{
	struct origin meant = {}, *kept;
	struct bpf_sock *sk = ctx->sk;
	route *r, *t;
	route_key key = {};
	struct settings *s;
	__u32 zero = 0;
	void *table;

	if (ctx->type != SOCK_STREAM || ctx->protocol != IPPROTO_TCP || !sk)
		return leave(CONNECT_NOT_TCP, 1);
	/* A socket that failed to connect may try elsewhere. */
	bpf_sk_storage_delete(&origins, sk);
	s = bpf_map_lookup_elem(&setting, &zero);
	if (!s)
		return leave(CONNECT_NO_TABLE, 1);
	if (is_proxy(s))
		return leave(CONNECT_SELF, 1);
	if (bpf_get_netns_cookie(ctx) != s->netns)
		return leave(CONNECT_NETNS, 1);
	if (sk->bound_dev_if)
		return leave(CONNECT_DEVICE, 1);
	table = bpf_map_lookup_elem(&tables, &zero);
	if (!table)
		return leave(CONNECT_NO_TABLE, 1);

	key.bits = KEY_HEAD + 128;
	key.kind = KIND_EXCLUDE;
	key.address = *to;
	if (bpf_map_lookup_elem(table, &key))
		return leave(CONNECT_EXCLUDED, 1);
	key.kind = KIND_ROUTE;
	key.port = *port;
	r = bpf_map_lookup_elem(table, &key);
	if (!r) {
		key.port = 0;
		r = bpf_map_lookup_elem(table, &key);
	}
	if (!r)
		return leave(CONNECT_NO_ROUTE, 1);
	if (r->verdict != VERDICT_CAPTURE)
		return leave(CONNECT_PASSED, 1);

	key.kind = KIND_TARGET;
	key.port = 0;
	__builtin_memset(&key.address, 0, sizeof(key.address));
	key.address.word[0] = r->target;
	t = bpf_map_lookup_elem(table, &key);
	if (!t || mapped(&t->address) != mapped(to))
		return leave(CONNECT_NO_TARGET, 1);
	if (t->generation != r->generation)
		return leave(CONNECT_MIXED, 1);
	/* Who listens there after the proxy's end need not be a friend. */
	if (!s->serving || !is_alive() || !is_listening(ctx, t)) {
		if (s->on_exit == ON_EXIT_CLOSED)
			return leave(CONNECT_REFUSED, 0);
		return leave(CONNECT_GONE, 1);
	}

	meant.generation = r->generation;
	meant.listener = r->listener;
	meant.cluster = r->cluster;
	meant.policy = r->policy;
	meant.target = r->target;
	meant.address = *to;
	meant.port = *port;
	kept = bpf_sk_storage_get(&origins, sk, &meant, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept) {
		if (s->refuse_when_full)
			return leave(CONNECT_NO_MEMORY_REFUSED, 0);
		return leave(CONNECT_NO_MEMORY, 1);
	}
	*to = t->address;
	*port = t->port;
	return leave(CONNECT_CAPTURED, 1);
}

SEC("cgroup/connect4")
int route_connect4(struct bpf_sock_addr *ctx)
{
	__be16 port = ctx->user_port;
	struct address to;
	int answer;

	map4(&to, ctx->user_ip4);
	answer = decide(ctx, &to, &port);
	ctx->user_ip4 = to.word[3];
	ctx->user_port = port;
	return answer;
}

SEC("cgroup/connect6")
int route_connect6(struct bpf_sock_addr *ctx)
{
	__be16 port = ctx->user_port;
	struct address to;
	int answer;

	to.word[0] = ctx->user_ip6[0];
	to.word[1] = ctx->user_ip6[1];
	to.word[2] = ctx->user_ip6[2];
	to.word[3] = ctx->user_ip6[3];
	answer = decide(ctx, &to, &port);
	ctx->user_ip6[0] = to.word[0];
	ctx->user_ip6[1] = to.word[1];
	ctx->user_ip6[2] = to.word[2];
	ctx->user_ip6[3] = to.word[3];
	ctx->user_port = port;
	return answer;
}

SEC("cgroup/getpeername4")
int route_getpeername4(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct origin *o = sk ? bpf_sk_storage_get(&origins, sk, 0, 0) : 0;

	if (!o)
		return leave(PEER_OTHER, 1);
	ctx->user_ip4 = o->address.word[3];
	ctx->user_port = o->port;
	return leave(PEER_ANSWERED, 1);
}

SEC("cgroup/getpeername6")
int route_getpeername6(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct origin *o = sk ? bpf_sk_storage_get(&origins, sk, 0, 0) : 0;

	if (!o)
		return leave(PEER_OTHER, 1);
	ctx->user_ip6[0] = o->address.word[0];
	ctx->user_ip6[1] = o->address.word[1];
	ctx->user_ip6[2] = o->address.word[2];
	ctx->user_ip6[3] = o->address.word[3];
	ctx->user_port = o->port;
	return leave(PEER_ANSWERED, 1);
}

/* Called before the SYN is sent, with the local port chosen: the entry is there
 * before anybody can accept. */
SEC("sockops")
int route_sockops(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk;
	struct flow f = {};
	struct origin *o;

	if (ops->op != BPF_SOCK_OPS_TCP_CONNECT_CB)
		return 1; /* not a call about a connection that begins */
	sk = ops->sk;
	o = sk ? bpf_sk_storage_get(&origins, sk, 0, 0) : 0;
	if (!o)
		return leave(FLOW_OTHER, 1);
	f.server.word[0] = ops->remote_ip6[0];
	f.server.word[1] = ops->remote_ip6[1];
	f.server.word[2] = ops->remote_ip6[2];
	f.server.word[3] = ops->remote_ip6[3];
	if (ops->family == AF_INET || mapped(&f.server)) {
		map4(&f.server, ops->remote_ip4);
		map4(&f.client, ops->local_ip4);
	} else {
		f.client.word[0] = ops->local_ip6[0];
		f.client.word[1] = ops->local_ip6[1];
		f.client.word[2] = ops->local_ip6[2];
		f.client.word[3] = ops->local_ip6[3];
	}
	f.netns = bpf_get_netns_cookie(ops);
	f.server_port = ops->remote_port >> 16;
	f.client_port = htons((__u16)ops->local_port);
	if (bpf_map_update_elem(&flows, &f, o, BPF_ANY))
		return leave(FLOW_FULL, 1);
	return leave(FLOW_NOTED, 1);
}

/* What the socket's client meant, by the flow the first time, and by the
 * socket from then on. */
static __always_inline struct origin *origin_of(struct bpf_sockopt *ctx, struct bpf_sock *sk)
{
	struct origin *o = bpf_sk_storage_get(&accepted, sk, 0, 0), *kept;
	__u32 server4, client4;
	struct flow f = {};

	if (o)
		return o;
	f.server.word[0] = READ(sk->src_ip6[0]);
	f.server.word[1] = READ(sk->src_ip6[1]);
	f.server.word[2] = READ(sk->src_ip6[2]);
	f.server.word[3] = READ(sk->src_ip6[3]);
	f.client.word[0] = READ(sk->dst_ip6[0]);
	f.client.word[1] = READ(sk->dst_ip6[1]);
	f.client.word[2] = READ(sk->dst_ip6[2]);
	f.client.word[3] = READ(sk->dst_ip6[3]);
	server4 = READ(sk->src_ip4);
	client4 = READ(sk->dst_ip4);
	if (sk->family == AF_INET) {
		map4(&f.server, server4);
		map4(&f.client, client4);
	}
	f.netns = bpf_get_netns_cookie(ctx);
	f.server_port = htons((__u16)sk->src_port);
	f.client_port = sk->dst_port;
	o = bpf_map_lookup_elem(&flows, &f);
	if (!o)
		return 0;
	kept = bpf_sk_storage_get(&accepted, sk, o, BPF_SK_STORAGE_GET_F_CREATE);
	if (!kept)
		return o; /* no memory: the entry stays for the next call */
	bpf_map_delete_elem(&flows, &f);
	return kept;
}

struct sockaddr4 {
	__u16 family;
	__be16 port;
	__u32 address;
	__u64 zero;
};

struct sockaddr6 {
	__u16 family;
	__be16 port;
	__u32 flow;
	__u32 address[4];
	__u32 scope;
};

/* For accepting programs that ask as if a REDIRECT rule had brought the
 * connection. conntrack, where it is, has answered ENOENT or our own address. */
SEC("cgroup/getsockopt")
int route_getsockopt(struct bpf_sockopt *ctx)
{
	void *value = ctx->optval, *end = ctx->optval_end;
	struct bpf_sock *sk = ctx->sk;
	struct origin *o;

	if (ctx->optlen > 4096)
		ctx->optlen = 0; /* the kernel shows a page at most: its own answer stands */
	if (ctx->optname != SO_ORIGINAL_DST || (ctx->level != SOL_IP && ctx->level != SOL_IPV6))
		return 1; /* another question */
	if (!sk || sk->protocol != IPPROTO_TCP)
		return leave(ORIGIN_OTHER, 1);
	o = origin_of(ctx, sk);
	if (!o)
		return leave(ORIGIN_OTHER, 1);
	if (mapped(&o->address) != (ctx->level == SOL_IP))
		return leave(ORIGIN_FAMILY, 1);
	if (ctx->level == SOL_IP) {
		struct sockaddr4 *a = value;

		if ((void *)(a + 1) > end)
			return leave(ORIGIN_SHORT, 1);
		a->family = AF_INET;
		a->port = o->port;
		a->address = o->address.word[3];
		a->zero = 0;
		ctx->optlen = sizeof(*a);
	} else {
		struct sockaddr6 *a = value;

		if ((void *)(a + 1) > end)
			return leave(ORIGIN_SHORT, 1);
		a->family = AF_INET6;
		a->port = o->port;
		a->flow = 0;
		__builtin_memcpy(a->address, &o->address, sizeof(a->address));
		a->scope = 0;
		ctx->optlen = sizeof(*a);
	}
	ctx->retval = 0;
	return leave(ORIGIN_ANSWERED, 1);
}

char _license[] SEC("license") = "Dual MIT/GPL";
