package api

import "time"

// Defaults of Envoy's http_connection_manager.proto.
const (
	DefaultServerName     = "envoy"
	DefaultMaxHeaderBytes = 60 << 10
	DefaultRouteTimeout   = 15 * time.Second
)

// HTTP is envoy.filters.network.http_connection_manager, for what is asked of a
// proxy of layer 4: probes, scrapes, and routes that are in the configuration
// and simple.
type HTTP struct {
	StatPrefix string
	// ServerName is the `server` header; KeepServer leaves the one of an upstream.
	ServerName string
	KeepServer bool
	// HTTP2 lets clients speak HTTP/2 in plaintext (codec_type AUTO and HTTP2),
	// HTTP1 lets them speak HTTP/1 (AUTO and HTTP1); HTTP10 admits 1.0.
	HTTP1, HTTP2, HTTP10 bool
	MaxHeaderBytes       uint32
	// IdleTimeout ends a connection without requests; RequestTimeout bounds the
	// arrival of a request, HeadersTimeout that of its headers. 0 means never.
	IdleTimeout, RequestTimeout, HeadersTimeout time.Duration
	// UseRemoteAddress has the client's address take part in x-forwarded-for,
	// which SkipXFF prevents.
	UseRemoteAddress, SkipXFF bool
	// RequestID adds an x-request-id where there is none.
	RequestID bool
	// Quiet leaves the x-envoy- headers out (suppress_envoy_headers).
	Quiet bool
	// HealthChecks answer by themselves, before any route.
	HealthChecks []HTTPHealthCheck
	// NormalizePath and MergeSlashes change a path before its route is found.
	NormalizePath, MergeSlashes bool
	// IgnorePort leaves the port out when a host finds its virtual host.
	IgnorePort   bool
	VirtualHosts []HTTPVirtualHost
	Headers      HTTPHeaders
}

// UnservedHTTP stands for an HTTP connection manager that asks for what is not
// built. Its chain's connections are closed; Why names the fields.
type UnservedHTTP struct{ StatPrefix, Why string }

// HTTPHealthCheck is envoy.filters.http.health_check without pass-through: 200,
// or 503 while the server's health checks are made to fail.
type HTTPHealthCheck struct{ Headers []HTTPHeaderMatch }

// HTTPVirtualHost is a VirtualHost. Domains are lower case: a name, `*.suffix`,
// `prefix.*` or `*`.
type HTTPVirtualHost struct {
	Name    string
	Domains []string
	Routes  []HTTPRoute
	Headers HTTPHeaders
}

// HTTPRoute is a Route: of Forward, Redirect and Direct one is set.
type HTTPRoute struct {
	Match    HTTPMatch
	Forward  *HTTPForward
	Redirect *HTTPRedirect
	Direct   *HTTPDirect
	Headers  HTTPHeaders
}

// HTTPMatch is a RouteMatch.
type HTTPMatch struct {
	Path HTTPPathMatch
	// Value is the path, the prefix or the expression.
	Value      string
	IgnoreCase bool
	Headers    []HTTPHeaderMatch
	// Query are parameters; one without Value has to be there.
	Query []HTTPQueryMatch
	// GRPC admits gRPC only.
	GRPC bool
}

// HTTPPathMatch says how a path is compared.
type HTTPPathMatch uint8

// The ways of a RouteMatch.
const (
	PathPrefix HTTPPathMatch = iota
	PathExact
	PathRegex
	// PathSeparatedPrefix is the prefix alone, or followed by a slash.
	PathSeparatedPrefix
)

// HTTPHeaderMatch is a HeaderMatcher: by Value, by Range, or else by presence.
type HTTPHeaderMatch struct {
	// Name is lower case; :path, :method and :authority are known too.
	Name           string
	Value          *StringMatch
	Range          *HTTPRange
	Absent         bool // it has to be missing
	Invert         bool
	MissingIsEmpty bool
}

// HTTPRange is start to end, end excluded.
type HTTPRange struct{ Start, End int64 }

// HTTPQueryMatch is a QueryParameterMatcher.
type HTTPQueryMatch struct {
	Name  string
	Value *StringMatch
}

// HTTPForward sends requests to a cluster.
type HTTPForward struct {
	// Cluster is empty if Clusters are given, of which one is drawn by weight.
	Cluster  string
	Clusters []WeightedCluster
	// NotFound is what is answered while the cluster is not there.
	NotFound int
	Rewrite  HTTPRewrite
	// Host replaces the host; AutoHost replaces it by the endpoint's name.
	Host     string
	AutoHost bool
	// Timeout bounds the whole answer, 0 means never.
	Timeout time.Duration
	// Upgrades are the protocols, in lower case, that a request may change to.
	Upgrades []string
}

// HTTPRewrite changes a path: Prefix replaces what the route has matched, or
// Regex is replaced by Substitution (with \1 …).
type HTTPRewrite struct {
	Prefix              string
	Regex, Substitution string
}

// HTTPRedirect is a RedirectAction.
type HTTPRedirect struct {
	Scheme, Host string
	Port         uint32
	// Path replaces path and query, Rewrite changes the path.
	Path       string
	Rewrite    HTTPRewrite
	Code       int
	StripQuery bool
}

// HTTPDirect is a DirectResponseAction.
type HTTPDirect struct {
	Code int
	Body string
}

// HTTPHeaders are what is added to and removed from headers.
type HTTPHeaders struct {
	Add, AddToResponse       []HTTPHeader
	Remove, RemoveOfResponse []string
}

// HTTPHeader is a header that is added.
type HTTPHeader struct {
	Key, Value string
	Action     HTTPAppend
	KeepEmpty  bool
}

// HTTPAppend is HeaderValueOption.HeaderAppendAction, with its numbers.
type HTTPAppend uint8

// What becomes of a header that is there already.
const (
	AppendOrAdd HTTPAppend = iota
	AddIfAbsent
	OverwriteOrAdd
	OverwriteIfPresent
)
