package als

import (
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// Log is one access log in force. Safe for concurrent use.
type Log struct {
	to     *sender
	config *api.ServiceLog
	tags   []tag
}

// Close gives the log back.
func (l *Log) Close() { l.to.services.release(l.to) }

// Write queues what is known of a connection.
func (l *Log) Write(m stream.Moment) {
	i := m.Info
	c := common(m)
	for _, key := range l.config.FilterState {
		o, ok := i.State()[key]
		if !ok {
			continue
		}
		if v, err := anypb.New(wrapperspb.String(o.Value)); err == nil {
			if c.FilterStateObjects == nil {
				c.FilterStateObjects = map[string]*anypb.Any{}
			}
			c.FilterStateObjects[key] = v
		}
	}
	for n := range l.tags {
		t := &l.tags[n]
		if v := t.of(m); v != "" {
			if c.CustomTags == nil {
				c.CustomTags = map[string]string{}
			}
			c.CustomTags[t.name] = v
		}
	}
	l.to.add(&datav3.TCPAccessLogEntry{CommonProperties: c,
		ConnectionProperties: &datav3.ConnectionProperties{ReceivedBytes: i.Received, SentBytes: i.Sent}})
}

// common is filled in as Envoy 1.40 does it for TCP.
func common(m stream.Moment) *datav3.AccessLogCommon {
	i := m.Info
	u := &i.Upstream
	c := &datav3.AccessLogCommon{
		DownstreamRemoteAddress:        address(i.Remote(), i.Pipe()),
		DownstreamLocalAddress:         address(i.Local(), i.Pipe()),
		DownstreamDirectRemoteAddress:  address(i.DirectRemote(), i.Pipe()),
		StartTime:                      timestamppb.New(i.Start.Truncate(time.Microsecond)),
		UpstreamRemoteAddress:          address(u.Addr(), ""),
		UpstreamLocalAddress:           address(u.Local(), ""),
		ResponseFlags:                  flags(i.Flags),
		Metadata:                       metadata(i.Metadata()),
		UpstreamTransportFailureReason: i.Reasons().UpstreamFailure,
		TlsProperties:                  secured(i),

		DownstreamTransportFailureReason: i.Reasons().DownstreamFailure,

		ConnectionTerminationDetails: i.Reasons().Termination,
		UpstreamRequestAttemptCount:  uint32(len(i.Attempts())),
		StreamId:                     uuid.NewString(),
		DownstreamWireBytesReceived:  i.Received,
		DownstreamWireBytesSent:      i.Sent,
		UpstreamWireBytesSent:        u.Sent,
		AccessLogType:                datav3.AccessLogType(datav3.AccessLogType_value[m.Type]),
	}
	if u.ConnectionID != 0 {
		c.UpstreamWireBytesReceived = i.Sent
	}
	if u.Cluster != nil {
		c.UpstreamCluster = u.Cluster.Stat
	}
	if i.Lasted > 0 {
		c.Duration = durationpb.New(i.Lasted)
	} else {
		//lint:ignore SA1019 Envoy 1.40 still says it
		c.IntermediateLogEntry = true
	}
	return c
}

func address(a netip.AddrPort, pipe string) *corev3.Address {
	if a.IsValid() {
		return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: a.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())}}}}
	}
	if pipe != "" {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: pipe}}}
	}
	return nil
}

// flags are nil if none is set.
func flags(f stream.Flags) *datav3.ResponseFlags {
	if f == 0 {
		return nil
	}
	r := &datav3.ResponseFlags{
		NoHealthyUpstream:               f.Has(stream.NoHealthyUpstream),
		LocalReset:                      f.Has(stream.LocalReset),
		UpstreamRemoteReset:             f.Has(stream.UpstreamRemoteReset),
		UpstreamConnectionFailure:       f.Has(stream.UpstreamConnectionFailure),
		UpstreamConnectionTermination:   f.Has(stream.UpstreamConnectionTermination),
		UpstreamOverflow:                f.Has(stream.UpstreamOverflow),
		NoRouteFound:                    f.Has(stream.NoRouteFound),
		RateLimited:                     f.Has(stream.RateLimited),
		DownstreamConnectionTermination: f.Has(stream.DownstreamConnectionTermination),
		UpstreamRetryLimitExceeded:      f.Has(stream.UpstreamRetryLimitExceeded),
		StreamIdleTimeout:               f.Has(stream.StreamIdleTimeout),
		DurationTimeout:                 f.Has(stream.DurationTimeout),
		NoClusterFound:                  f.Has(stream.NoClusterFound),
		OverloadManager:                 f.Has(stream.OverloadManager),
	}
	if f.Has(stream.UnauthorizedExternalService) {
		r.UnauthorizedDetails = &datav3.ResponseFlags_Unauthorized{Reason: datav3.ResponseFlags_Unauthorized_EXTERNAL_SERVICE}
	}
	return r
}

func metadata(md stream.Metadata) *corev3.Metadata {
	if len(md) == 0 {
		return nil
	}
	out := &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{}}
	for name, values := range md {
		// What JSON has not cannot be said here.
		if s, err := structpb.NewStruct(values); err == nil {
			out.FilterMetadata[name] = s
		}
	}
	return out
}

// tag is a custom tag.
type tag struct {
	name, fallback string
	value          *stream.Formatter
}

func newTags(in []api.LogTag) []tag {
	out := make([]tag, len(in))
	for n, t := range in {
		out[n] = tag{name: t.Name, fallback: t.Default, value: stream.NewText(t.Value, true)}
	}
	return out
}

// of is empty where the tag is to be left out.
func (t *tag) of(m stream.Moment) string {
	if b := t.value.Append(nil, m); len(b) > 0 {
		return string(b)
	}
	return t.fallback
}
