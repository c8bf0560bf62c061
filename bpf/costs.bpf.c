//go:build ignore

/* Counts what chosen processes, and the kernel's workers for them, spend on
 * moving bytes: wake-ups, and bytes that the kernel copies. For the benchmark
 * only. Tracepoints, as some kernels refuse fentry (lockdown). */

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define PF_WQ_WORKER 0x00000020 /* include/linux/sched.h */

struct task_struct {
	unsigned int flags;
	int tgid;
} __attribute__((preserve_access_index));

struct sock_common {
	unsigned short skc_num; /* local port, host order */
} __attribute__((preserve_access_index));

struct sock {
	struct sock_common __sk_common;
} __attribute__((preserve_access_index));

struct sk_buff {
	unsigned int len, data_len;
	unsigned char *data;
} __attribute__((preserve_access_index));

struct cost {
	__u64 wakeups;
	__u64 received; /* bytes copied from skbs to user space */
	__u64 sent;	/* bytes given to a socket by a call that copies them */
	__u64 moved;	/* bytes given to a socket as pages: by splice(2), or by a worker */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32); /* thread group; 0: the workers of all workqueues */
	__type(value, struct cost);
} costs SEC(".maps");

/* The system call that each thread is in. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64); /* pid and tgid */
	__type(value, __u64);
} current_call SEC(".maps");

/* What came in for sockets of one local port: a worker that sends an skb on
 * copies its linear head (__skb_send_sock), and hands on the pages of the rest. */
struct arrival {
	__u64 payload; /* bytes */
	__u64 linear;  /* of them in the linear head */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32); /* port, host order */
	__type(value, struct arrival);
} arrivals SEC(".maps");

const volatile __u64 splice_call; /* number of splice(2) on this architecture */

static struct cost *cost_of(struct task_struct *task)
{
	__u32 key = task->flags & PF_WQ_WORKER ? 0 : task->tgid;

	return bpf_map_lookup_elem(&costs, &key);
}

SEC("tp_btf/sys_enter")
int note_call(__u64 *ctx)
{
	__u64 thread = bpf_get_current_pid_tgid(), call = ctx[1];

	if (cost_of(bpf_get_current_task_btf()))
		bpf_map_update_elem(&current_call, &thread, &call, BPF_ANY);
	return 0;
}

SEC("tp_btf/sched_wakeup")
int count_wakeup(__u64 *ctx)
{
	struct cost *c = cost_of((struct task_struct *)ctx[0]);

	if (c)
		__sync_fetch_and_add(&c->wakeups, 1);
	return 0;
}

/* (const struct sk_buff *skb, int len), in skb_copy_datagram_iter */
SEC("tp_btf/skb_copy_datagram_iovec")
int count_receive(__u64 *ctx)
{
	struct cost *c = cost_of(bpf_get_current_task_btf());

	if (c)
		__sync_fetch_and_add(&c->received, (__u32)ctx[1]);
	return 0;
}

/* (struct sock *sk, int ret, int flags), in sock_sendmsg */
SEC("tp_btf/sock_send_length")
int count_send(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 thread = bpf_get_current_pid_tgid(), *call;
	struct cost *c = cost_of(task);
	int sent = ctx[1];

	if (!c || sent <= 0)
		return 0;
	call = bpf_map_lookup_elem(&current_call, &thread);
	if (task->flags & PF_WQ_WORKER || (call && *call == splice_call))
		__sync_fetch_and_add(&c->moved, sent);
	else
		__sync_fetch_and_add(&c->sent, sent);
	return 0;
}

/* (struct sock *sk, struct sk_buff *skb), in tcp_rcv_established; skb->data is
 * the TCP header, whose length in words is the high half of byte 12. */
SEC("tp_btf/tcp_probe")
int count_arrival(__u64 *ctx)
{
	struct sock *sk = (struct sock *)ctx[0];
	struct sk_buff *skb = (struct sk_buff *)ctx[1];
	__u32 port = sk->__sk_common.skc_num, header;
	struct arrival *a = bpf_map_lookup_elem(&arrivals, &port);
	unsigned char words;

	if (!a || bpf_probe_read_kernel(&words, 1, skb->data + 12))
		return 0;
	header = (words >> 4) * 4;
	__sync_fetch_and_add(&a->payload, skb->len - header);
	__sync_fetch_and_add(&a->linear, skb->len - skb->data_len - header);
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
