# The BPF objects come out the same everywhere only with these very compilers.
export BPF2GO_CC ?= clang-14
export BPF2GO_STRIP ?= llvm-strip-14

GO ?= go
RACE ?=

all: build

build:
	$(GO) build -o bin/sluice ./cmd/sluice

# The main job on this machine, with a table, in under half a minute.
demo: build
	bin/sluice demo $(DEMOFLAGS)

# Everything; as root the BPF programs are really loaded. RACE=-race for the race
# detector. One package at a time: some count and some wait, and two CPUs are
# soon busy: the longest takes five minutes of one, more of a busy machine. Uncached,
# because the floor plan is read from the source at run time.
test:
	$(GO) test -count=1 -p 1 -timeout 20m $(RACE) ./...

# Each decoder, for a while each.
FUZZTIME ?= 5m
FUZZED ?= ./api/substitution ./dataplane/route ./dataplane/tunnel ./dataplane/filter/tlsinspector ./dataplane/filter/httpinspector ./dataplane/filter/proxyprotocol ./xds ./xds/ads ./xds/assemble ./xds/resource ./xds/bootstrap ./xds/file ./xds/transport
fuzz:
	for p in $(FUZZED); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep ^Fuzz); do \
	    $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$p || exit 1; done; done

fuzzed:
	@echo $(FUZZED)

# Pairs under everything at once, by seed (0: the clock's). `make test` does a minute of it.
SEED ?= 0
TIME ?= 1m
torture:
	$(GO) test -count=1 -v -timeout 0 -run '^TestTorture$$' ./test/torture -seed $(SEED) -time $(TIME)

# Each rule of splice and graft broken, and the test that has to see it. MUTANTS="-some 5"
# for five, others each day; "-only 03,14" by number.
mutants:
	$(GO) run ./test/torture/mutants $(MUTANTS)

# Sluice and what one would use in its place, side by side; needs root. Within an
# hour; QUICK=1 five minutes; FULL=1 every cell, going on where it was stopped.
bench: build
	$(GO) build -o bin/bench/bench ./test/bench
	test/bench/install.sh bin/bench
	bin/bench/bench $(if $(QUICK),-quick) $(if $(FULL),-full) $(BENCHFLAGS)

# The README's table and pictures, from the last make bench.
bench-readme:
	$(GO) run ./test/bench readme README.md bench

# Where the time of each path goes, by linux-perf: bench/profile.md.
profile: build
	$(GO) build -o bin/bench/bench ./test/bench
	test/bench/install.sh bin/bench
	bin/bench/bench profile

# Go's own benchmarks of single functions.
microbench:
	$(GO) test -run '^$$' -bench . -benchmem ./dataplane/... ./api/...

# One big push beside Envoy: time, memory, one changed endpoint, the relay's p99.
bench-push: build
	$(GO) run ./test/push

# Captured connections beside Envoy behind an nftables REDIRECT rule: connect, one
# request, close. Needs root, nft and SLUICE_ENVOY (or -envoy ""): bench/capture.md.
bench-capture: build
	$(GO) build -o bin/bench/capture ./test/capture
	bin/bench/capture $(if $(SLUICE_ENVOY),-envoy $(SLUICE_ENVOY)) $(CAPTUREFLAGS)

generate:
	$(GO) generate ./bpf

lint:
	test -z "$$(gofmt -l $$(git ls-files '*.go'))"
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

clean:
	rm -rf bin

.PHONY: all build demo test fuzz fuzzed torture mutants bench bench-capture bench-push bench-readme profile microbench generate lint clean
