/* What the programs of capture share, outbound (route.bpf.c) and inbound. */

#ifndef CAPTURE_H
#define CAPTURE_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6

#define htons(x) __builtin_bswap16(x)
#define htonl(x) __builtin_bswap32(x)

/* Each field of a context is read where it is written: the verifier allows no
 * arithmetic on it, and clang merges loads into some. */
#define READ(field) (*(volatile typeof(field) *)&(field))

/* What connections get that are to be captured when the proxy is gone. */
enum on_exit {
	ON_EXIT_OPEN, /* they pass */
	ON_EXIT_CLOSED, /* they are refused */
	ON_EXIT_KEEP, /* they pass; steered ones would not notice */
};

/* IPv4 addresses are mapped (::ffff:a.b.c.d); network order. */
struct address {
	__u32 word[4];
};

/* A socket of the proxy, which the kernel takes out when it is closed: however
 * the process ended, and whoever has its number then. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} life SEC(".maps");

static __always_inline void map4(struct address *a, __u32 ip)
{
	a->word[0] = 0;
	a->word[1] = 0;
	a->word[2] = htonl(0xffff);
	a->word[3] = ip;
}

#endif
