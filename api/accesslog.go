package api

import (
	"time"

	"github.com/sluice-proxy/sluice/api/expression"
	"github.com/sluice-proxy/sluice/api/substitution"
)

// AccessLog is where connections are written, which, and how.
type AccessLog struct {
	Name string
	// Path is a file, a fifo or a unix socket; /dev/stdout and /dev/stderr are
	// the process's own. It is not used if Service is set.
	Path string
	// Service, if it is not nil, is sent what is known of the connection; Text and
	// JSON have no meaning then.
	Service *ServiceLog
	// Text is used if JSON is nil.
	Text substitution.Format
	JSON *substitution.Node
	// OmitEmpty prints nothing where there is no value.
	OmitEmpty bool
	// Filter may be nil: everything is logged.
	Filter *LogFilter
}

// ServiceLog is a log that goes to a gRPC service
// (envoy.extensions.access_loggers.grpc.v3.CommonGrpcAccessLogConfig).
type ServiceLog struct {
	LogName string
	Service GRPCService
	// FlushInterval and BufferSize (bytes) say when entries are sent: when the
	// first is over, or when so many wait.
	FlushInterval time.Duration
	BufferSize    uint32
	// FilterState are the keys of objects that go with an entry.
	FilterState []string
	Tags        []LogTag
}

// LogTag is a custom tag. One without a value has its default; one that has
// neither is left out.
type LogTag struct {
	Name, Default string
	Value         substitution.Format
}

// LogFilter says which connections are logged. Exactly one field is set.
type LogFilter struct {
	And, Or []LogFilter
	// Duration compares milliseconds, StatusCode the response code, which is 0
	// on TCP.
	Duration, StatusCode *Comparison
	// Flags passes if one of them is set; an empty list, if any flag is.
	Flags *[]string
	// Types passes the types of log in it, or with Exclude all others.
	Types *LogTypes
	// Sample passes a share of all.
	Sample *Fraction
	// Metadata looks at dynamic metadata.
	Metadata *MetadataCondition
	// Expression passes what it holds of.
	Expression expression.Expression
	// Nothing passes nothing: what Envoy decides by HTTP headers.
	Nothing bool
}

// Comparison is one of EQ, GE, LE, NE and a value, which Key may override in the
// runtime.
type Comparison struct {
	Op    string
	Value uint64
	Key   string
}

// LogTypes are values of %ACCESS_LOG_TYPE%.
type LogTypes struct {
	Types   []string
	Exclude bool
}

// Fraction is Numerator, which Key may override in the runtime, of Denominator.
type Fraction struct {
	Numerator, Denominator uint32
	Key                    string
}

// MetadataCondition looks at the value of dynamic metadata at Path under Filter.
// Without a Value none is good.
type MetadataCondition struct {
	Filter  string
	Path    []string
	Value   *ValueMatch
	Missing bool // the verdict if there is no such value
}

// LogOptions say when a connection is logged besides at its end.
type LogOptions struct {
	OnStart, OnConnected bool
	Interval             time.Duration // 0 means not
}
