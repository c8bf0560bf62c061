//go:build ignore

/* Leaving the splice: the verdict is taken away from a source under that socket's
 * lock. From anywhere else a verdict may be running meanwhile, would find itself
 * gone, and the kernel would drop the skb in its hand (sk_psock_verdict_recv).
 *
 * sockops is where a program may delete from a sockhash with the lock held. Of its
 * calls the one about the length of TCP's options comes whenever a source sends:
 * an acknowledgement, soon after a backlog has overflowed, or nothing at all
 * (send(2) of no bytes), when user space wants the direction back. */

#include "splice.h"

#define SOL_TCP 6
#define TCP_BPF_SOCK_OPS_CB_FLAGS 1008

SEC("sockops")
int leave_sockops(struct bpf_sock_ops *ops)
{
	if (ops->op != BPF_SOCK_OPS_HDR_OPT_LEN_CB)
		return 1; /* another call */
	__u64 cookie = bpf_get_socket_cookie(ops);
	__u32 *slotp = bpf_map_lookup_elem(&slots, &cookie);
	if (!slotp)
		return 1; /* another program's socket */
	__u32 slot = *slotp;
	struct direction *d = bpf_map_lookup_elem(&directions, &slot);
	if (!d || d->called == CALL_LEFT || (!d->called && !*(volatile __u32 *)&d->recalled))
		return 1;
	/* An acknowledgement is also sent from within the verdict's own loop, which
	 * goes on while the queue has skbs (tcp_read_skb). */
	struct bpf_sock *sk = ops->sk;
	struct tcp_sock *source = sk ? bpf_skc_to_tcp_sock(sk) : 0;
	if (!source || source->inet_conn.icsk_inet.sk.sk_receive_queue.qlen) {
		count(&events, EVENT_LEAVE_LATER);
		return 1;
	}
	bpf_map_delete_elem(&intercepted, &cookie);
	d->called = CALL_LEFT;
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags & ~BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
	count(&events, EVENT_LEFT);
	return 1;
}

/* getsockname(2) of a source, which user space calls when it has a slot, asks for
 * that call from then on. */
static __always_inline int arm(struct bpf_sock_addr *ctx)
{
	__u64 cookie = bpf_get_socket_cookie(ctx);
	int flags = 0;

	if (!bpf_map_lookup_elem(&slots, &cookie))
		return 1; /* another program's socket */
	if (bpf_getsockopt(ctx, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags)))
		return 1;
	flags |= BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
	if (bpf_setsockopt(ctx, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags)) == 0)
		count(&events, EVENT_ARMED);
	return 1;
}

SEC("cgroup/getsockname4")
int leave_getsockname4(struct bpf_sock_addr *ctx) { return arm(ctx); }

SEC("cgroup/getsockname6")
int leave_getsockname6(struct bpf_sock_addr *ctx) { return arm(ctx); }

/* bpf_skc_to_tcp_sock asks for a GPL-compatible licence. */
char _license[] SEC("license") = "Dual MIT/GPL";
