package stream

import "strings"

// Flags are Envoy's response flags.
type Flags uint32

// Those that can be set at layer 4, in the order in which they are printed
// (access_log/usage.rst, %RESPONSE_FLAGS%; CoreResponseFlag).
const (
	NoHealthyUpstream Flags = 1 << iota
	LocalReset
	UpstreamRemoteReset
	UpstreamConnectionFailure
	UpstreamConnectionTermination
	UpstreamOverflow
	NoRouteFound
	RateLimited
	UnauthorizedExternalService
	DownstreamConnectionTermination
	UpstreamRetryLimitExceeded
	StreamIdleTimeout
	DurationTimeout
	NoClusterFound
	OverloadManager
)

// flagNames are short and long, in the order of the bits.
func flagNames() [15][2]string {
	return [...][2]string{
		{"UH", "NoHealthyUpstream"},
		{"LR", "LocalReset"},
		{"UR", "UpstreamRemoteReset"},
		{"UF", "UpstreamConnectionFailure"},
		{"UC", "UpstreamConnectionTermination"},
		{"UO", "UpstreamOverflow"},
		{"NR", "NoRouteFound"},
		{"RL", "RateLimited"},
		{"UAEX", "UnauthorizedExternalService"},
		{"DC", "DownstreamConnectionTermination"},
		{"URX", "UpstreamRetryLimitExceeded"},
		{"SI", "StreamIdleTimeout"},
		{"DT", "DurationTimeout"},
		{"NC", "NoClusterFound"},
		{"OM", "OverloadManagerTerminated"},
	}
}

// Set sets flags.
func (f *Flags) Set(g Flags) { *f |= g }

// Has tells whether all of g are set.
func (f Flags) Has(g Flags) bool { return f&g == g }

// String is what %RESPONSE_FLAGS% prints: short names, comma-separated, or "-".
func (f Flags) String() string { return f.join(0) }

// Long is what %RESPONSE_FLAGS_LONG% prints.
func (f Flags) Long() string { return f.join(1) }

// Short are the short names of the flags that are set.
func (f Flags) Short() []string { return f.names(0) }

func (f Flags) join(column int) string {
	if f == 0 {
		return "-"
	}
	return strings.Join(f.names(column), ",")
}

func (f Flags) names(column int) []string {
	var out []string
	for i, n := range flagNames() {
		if f&(1<<i) != 0 {
			out = append(out, n[column])
		}
	}
	return out
}

// legacy are the bits that Envoy had them in before they had names.
func (f Flags) legacy() int64 {
	bits := [...]uint8{1, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 22, 24, 25}
	var out int64
	for i, b := range bits {
		if f&(1<<i) != 0 {
			out |= 1 << b
		}
	}
	return out
}
