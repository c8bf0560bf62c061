package api

import "time"

// DefaultOverloadRefresh is overload.proto's refresh_interval.
const DefaultOverloadRefresh = time.Second

// Overload is Envoy's overload manager: which resources are measured, and what is
// done when too much of one is in use. Pressures and thresholds are between 0 and 1.
type Overload struct {
	// Refresh is how often the monitors are asked.
	Refresh  time.Duration
	Monitors []ResourceMonitor
	Actions  []OverloadAction
	Points   []LoadShedPoint
}

// ResourceMonitor measures one resource: exactly one pointer is set.
type ResourceMonitor struct {
	Name        string
	Heap        *HeapMonitor
	Cgroup      *CgroupMemoryMonitor
	CPU         *CPUMonitor
	Injected    *InjectedResource
	Connections *ConnectionsMonitor
}

// HeapMonitor is fixed_heap.
type HeapMonitor struct {
	Max uint64
	// RuntimeKey, if it is not empty, is asked for the maximum; Max is its default.
	RuntimeKey string
}

// CgroupMemoryMonitor is cgroup_memory: the memory of the container. Max bounds the
// limit that the kernel has; 0 leaves it.
type CgroupMemoryMonitor struct{ Max uint64 }

// CPUMonitor is cpu_utilization, of the machine or of the container.
type CPUMonitor struct{ Container bool }

// InjectedResource is a pressure that is read from a file, when the file was moved
// into its place.
type InjectedResource struct{ Path string }

// ConnectionsMonitor is global_downstream_max_connections. The limit itself is
// enforced where connections are accepted.
type ConnectionsMonitor struct{ Max uint64 }

// Trigger turns the pressure of a resource into the state of an action: 1 from
// Threshold on; or, if it is Scaled, 0 up to Threshold, 1 from Saturation on, and
// what lies between in between.
type Trigger struct {
	Resource              string
	Scaled                bool
	Threshold, Saturation float64
}

// OverloadAction is one of Envoy's well-known actions.
type OverloadAction struct {
	Name     string
	Triggers []Trigger
	// ConnectTimeout is how far reduce_timeouts may shorten
	// transport_socket_connect_timeout; nil leaves it alone.
	ConnectTimeout *TimerMinimum
	// Shrink is how shrink_heap goes about it; nil in other actions.
	Shrink *HeapShrinking
}

// The actions that have an effect.
const (
	StopAcceptingConnections  = "envoy.overload_actions.stop_accepting_connections"
	RejectIncomingConnections = "envoy.overload_actions.reject_incoming_connections"
	ShrinkHeap                = "envoy.overload_actions.shrink_heap"
	ReduceTimeouts            = "envoy.overload_actions.reduce_timeouts"
)

// TimerMinimum is the least that a timeout is shortened to: Time, or if that is
// negative Share of what is configured.
type TimerMinimum struct {
	Time  time.Duration
	Share float64
}

// HeapShrinking has free memory given back every Every while the action is active, if
// more than MaxUnfreed bytes of it are kept.
type HeapShrinking struct {
	Every      time.Duration
	MaxUnfreed uint64
}

// Envoy's defaults of a HeapShrinking.
const (
	DefaultShrinkInterval = 10 * time.Second
	DefaultMaxUnfreed     = 100 << 20
)

// LoadShedPoint is a place where work is refused, by chance as far as its triggers say.
type LoadShedPoint struct {
	Name     string
	Triggers []Trigger
}

// The points that have an effect: connections are closed when they are accepted, or when
// tcp_proxy gets bytes of theirs; no connection to a host is begun.
const (
	ShedAccept = "envoy.load_shed_points.tcp_listener_accept"
	ShedData   = "envoy.load_shed_points.tcp_proxy_on_data"
	ShedPool   = "envoy.load_shed_points.connection_pool_new_connection"
)
