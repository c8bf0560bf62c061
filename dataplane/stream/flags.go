package stream

import "strings"

// Flags are Envoy's response flags.
type Flags uint32

// Those that can be set at layer 4 (access_log/usage.rst, %RESPONSE_FLAGS%).
const (
	NoHealthyUpstream Flags = 1 << iota
	UpstreamConnectionFailure
	UpstreamOverflow
	NoRouteFound
	UpstreamRetryLimitExceeded
	NoClusterFound
	DurationTimeout
	DownstreamConnectionTermination
	UpstreamConnectionTermination
	LocalReset
	UpstreamRemoteReset
	StreamIdleTimeout
	UnauthorizedExternalService
	RateLimited
	OverloadManager
)

// names are short and long, in the order of the bits.
var names = [...]struct{ short, long string }{
	{"UH", "NoHealthyUpstream"},
	{"UF", "UpstreamConnectionFailure"},
	{"UO", "UpstreamOverflow"},
	{"NR", "NoRouteFound"},
	{"URX", "UpstreamRetryLimitExceeded"},
	{"NC", "NoClusterFound"},
	{"DT", "DurationTimeout"},
	{"DC", "DownstreamConnectionTermination"},
	{"UC", "UpstreamConnectionTermination"},
	{"LR", "LocalReset"},
	{"UR", "UpstreamRemoteReset"},
	{"SI", "StreamIdleTimeout"},
	{"UAEX", "UnauthorizedExternalService"},
	{"RL", "RateLimited"},
	{"OM", "OverloadManagerTerminated"},
}

// Set sets flags.
func (f *Flags) Set(g Flags) { *f |= g }

// Has tells whether all of g are set.
func (f Flags) Has(g Flags) bool { return f&g == g }

// String is what %RESPONSE_FLAGS% prints: short names, comma-separated, or "-".
func (f Flags) String() string { return f.join(func(i int) string { return names[i].short }) }

// Long is what %RESPONSE_FLAGS_LONG% prints.
func (f Flags) Long() string { return f.join(func(i int) string { return names[i].long }) }

func (f Flags) join(name func(int) string) string {
	if f == 0 {
		return "-"
	}
	var out []string
	for i := range names {
		if f&(1<<i) != 0 {
			out = append(out, name(i))
		}
	}
	return strings.Join(out, ",")
}
