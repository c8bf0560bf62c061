package bpf

// The objects are committed, so that building needs no clang. BPF2GO_CC and
// BPF2GO_STRIP name the pinned compiler (see the Makefile); -nostdinc and the
// vendored headers make the bytes the same on every machine.

//go:generate go tool bpf2go -tags linux -target bpfel -type exit -type event -type call -type basis -type direction -type budget splice splice.bpf.c -- -mcpu=v3 -O2 -nostdinc -Wall -Werror -Iheaders
//go:generate go tool bpf2go -tags linux -target bpfel -no-global-types leave leave.bpf.c -- -mcpu=v3 -O2 -nostdinc -Wall -Werror -Iheaders
//go:generate go tool bpf2go -tags linux -target bpfel syscalls syscalls.bpf.c -- -mcpu=v3 -O2 -nostdinc -Wall -Werror -Iheaders
//go:generate go tool bpf2go -tags linux -target bpfel -type cost -type arrival costs costs.bpf.c -- -mcpu=v3 -O2 -nostdinc -Wall -Werror -Iheaders
//go:generate go tool bpf2go -tags linux -target bpfel -type verdict -type kind -type on_exit -type outcome -type address -type route_key -type route -type origin -type flow -type settings route route.bpf.c -- -mcpu=v3 -O2 -nostdinc -Wall -Werror -Iheaders
//go:generate go tool bpf2go -tags linux -target bpfel -type verdict -type outcome -type address -type table_key -type table_entry -type on_exit -type settings inbound inbound.bpf.c -- -mcpu=v3 -O2 -nostdinc -Wall -Werror -Iheaders
//go:generate go tool bpf2go -tags linux -target bpfel -type state -type passage -type incident -type role -type fin -type tuple -type place -type way -type graft graft graft.bpf.c -- -mcpu=v3 -O2 -nostdinc -Wall -Werror -Iheaders
//go:generate go tool bpf2go -tags linux -target bpfel -no-global-types -type refusal join join.bpf.c -- -mcpu=v3 -O2 -nostdinc -Wall -Werror -Iheaders
//go:generate go tool bpf2go -tags linux -target bpfel -no-global-types -type parting part part.bpf.c -- -mcpu=v3 -O2 -nostdinc -Wall -Werror -Iheaders
