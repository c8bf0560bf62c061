//go:build ignore

/* Inbound capture: connections that come to this network namespace from outside
 * are given to a listener of ours, whatever port they are for. No packet is
 * rewritten: the accepted socket's own address is what the client meant.
 *
 * The program runs where the kernel looks for who listens: for a SYN, for the
 * ACK that answers a SYN cookie, and for strays. It is not told which. So what
 * it answers follows from addresses and table alone, and one socket stands for
 * all of a SO_REUSEPORT group, whose member the kernel then picks by a hash of
 * the connection: the ACK finds the listener that answered the SYN. */

#include "capture.h"

#define LOOPBACK_IFINDEX 1
#define EEXIST 17

#define MAX_ENTRIES 262144
#define MAX_SOCKETS 64
#define MAX_OWN 16384

enum verdict {
	VERDICT_PASS = 1,
	VERDICT_CAPTURE = 2,
	VERDICT_REFUSE = 4,
};

/* How a call ended; each end is counted once. */
enum outcome {
	INBOUND_CAPTURED,
	INBOUND_NOT_TCP,
	INBOUND_LOOPBACK,     /* to or from a loopback address */
	INBOUND_OWN,	      /* from an address of this namespace: the proxy's, to the application */
	INBOUND_NO_TABLE,     /* nothing is configured yet */
	INBOUND_PASSED,	      /* the entry says so */
	INBOUND_NO_ENTRY,     /* nothing is said of the port */
	INBOUND_GONE,	      /* nobody listens, and the connection passed */
	INBOUND_REFUSED,      /* nobody listens, or nobody can: the client gets a RST */
	INBOUND_TAKEN,	      /* by another program of the namespace */
	INBOUND_NOT_ASSIGNED, /* the kernel refuses: the socket is of another family */
	OUTCOME_MAX,
};

/* Key and entry have no tag: clang leaves a tagged struct that only an inner
 * map names undescribed. */
typedef struct {
	__u16 family; /* of the packet */
	__u16 port;   /* host order; 0 with address 0: any port */
	struct address address; /* 0: any address */
} table_key;

typedef struct {
	enum verdict verdict;
	__u32 socket; /* its place in listeners */
} table_entry;

struct own_address {
	struct address address;
	__u32 device; /* of a link-local one, which is another one on every link; else 0 */
};

/* One generation. */
struct table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ENTRIES);
	__type(key, table_key);
	__type(value, table_entry);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct table);
} tables SEC(".maps");

/* Listening sockets. It has no program, so nothing of theirs is intercepted; the
 * kernel takes a socket out that is closed. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, MAX_SOCKETS);
	__type(key, __u32);
	__type(value, __u64);
} listeners SEC(".maps");

/* Addresses of this namespace's devices. What is sent from here to one of them
 * comes by way of lo, but the kernel names the device that has the address as
 * the one that it arrived on (net/ipv4/route.c, ip_route_output_key_hash_rcu;
 * net/ipv6/ip6_input.c, ip6_rcv_core); so it is known by who sent it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_OWN);
	__type(key, struct own_address);
	__type(value, __u8);
} own SEC(".maps");

/* Maps may outlive the process that made them: see route.bpf.c, settings. */
struct settings {
	__u32 layout;
	enum on_exit on_exit;
	__u32 process;
	__u32 pad;
};

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

/* With SK_PASS and no socket assigned the kernel looks on as ever. */
static __always_inline int leave_with(enum outcome why, int answer)
{
	__u32 i = why;
	__u64 *n = bpf_map_lookup_elem(&outcomes, &i);

	if (n)
		*n += 1;
	return answer;
}

static __always_inline int leave(enum outcome why)
{
	return leave_with(why, SK_PASS);
}

/* Nobody listens. */
static __always_inline int gone(void)
{
	__u32 zero = 0;
	struct settings *s = bpf_map_lookup_elem(&setting, &zero);

	if (s && s->on_exit == ON_EXIT_CLOSED)
		return leave_with(INBOUND_REFUSED, SK_DROP);
	return leave(INBOUND_GONE);
}

SEC("sk_lookup")
int inbound_lookup(struct bpf_sk_lookup *ctx)
{
	table_key key = {};
	table_entry *e;
	struct own_address from = {};
	struct bpf_sock *sk;
	__u32 remote4, local4, zero = 0;
	void *table;
	long err;

	if (ctx->protocol != IPPROTO_TCP)
		return leave(INBOUND_NOT_TCP);
	if (ctx->ingress_ifindex == LOOPBACK_IFINDEX)
		return leave(INBOUND_LOOPBACK);
	remote4 = READ(ctx->remote_ip4);
	local4 = READ(ctx->local_ip4);
	from.address.word[0] = READ(ctx->remote_ip6[0]);
	from.address.word[1] = READ(ctx->remote_ip6[1]);
	from.address.word[2] = READ(ctx->remote_ip6[2]);
	from.address.word[3] = READ(ctx->remote_ip6[3]);
	key.address.word[0] = READ(ctx->local_ip6[0]);
	key.address.word[1] = READ(ctx->local_ip6[1]);
	key.address.word[2] = READ(ctx->local_ip6[2]);
	key.address.word[3] = READ(ctx->local_ip6[3]);
	if (ctx->family == AF_INET) {
		map4(&from.address, remote4);
		map4(&key.address, local4);
	}
	if (ctx->family == AF_INET && (remote4 & htonl(0xff000000)) == htonl(0x7f000000))
		return leave(INBOUND_LOOPBACK);
	if ((from.address.word[0] & htonl(0xffc00000)) == htonl(0xfe800000))
		from.device = ctx->ingress_ifindex;
	if (bpf_map_lookup_elem(&own, &from))
		return leave(INBOUND_OWN);
	table = bpf_map_lookup_elem(&tables, &zero);
	if (!table)
		return leave(INBOUND_NO_TABLE);

	key.family = ctx->family;
	key.port = ctx->local_port;
	e = bpf_map_lookup_elem(table, &key);
	if (!e) {
		__builtin_memset(&key.address, 0, sizeof(key.address));
		e = bpf_map_lookup_elem(table, &key);
	}
	if (!e) {
		key.port = 0;
		e = bpf_map_lookup_elem(table, &key);
	}
	if (!e)
		return leave(INBOUND_NO_ENTRY);
	if (e->verdict == VERDICT_REFUSE)
		return leave_with(INBOUND_REFUSED, SK_DROP);
	if (e->verdict != VERDICT_CAPTURE)
		return leave(INBOUND_PASSED);

	sk = bpf_map_lookup_elem(&listeners, &e->socket);
	if (!sk)
		return gone();
	err = bpf_sk_assign(ctx, sk, 0);
	bpf_sk_release(sk);
	if (err == -EEXIST)
		return leave(INBOUND_TAKEN);
	if (err)
		return leave(INBOUND_NOT_ASSIGNED);
	return leave(INBOUND_CAPTURED);
}

char _license[] SEC("license") = "Dual MIT/GPL";
