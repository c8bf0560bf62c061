//go:build ignore

/* Counts the system calls of chosen processes, from outside of them: the
 * figure that the splice is there to bring down. */

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32); /* thread group */
	__type(value, __u64);
} calls SEC(".maps");

SEC("raw_tp/sys_enter")
int count_syscall(void *ctx)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	__u64 *n = bpf_map_lookup_elem(&calls, &tgid);

	if (n)
		__sync_fetch_and_add(n, 1);
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
