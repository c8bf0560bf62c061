package main

import (
	"context"
	"net"

	"github.com/sluice-proxy/sluice/cmd/sluice/admin"
	"github.com/sluice-proxy/sluice/cmd/sluice/statsd"
	"github.com/sluice-proxy/sluice/dataplane"
	"github.com/sluice-proxy/sluice/xds/bootstrap"
)

// sinks are those of the bootstrap.
func sinks(of []bootstrap.StatsSink, plane *dataplane.Plane, log *logger) []admin.Sink {
	var out []admin.Sink
	for _, s := range of {
		o := statsd.Options{Prefix: s.Prefix, Max: s.Max, Stream: s.Cluster != "", Log: log.Logger}
		switch {
		case s.Dog:
			o.Dialect = statsd.Dog
		case s.Graphite:
			o.Dialect = statsd.Graphite
		}
		o.Dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			switch {
			case s.Cluster != "":
				return plane.Dial(ctx, s.Cluster)
			case s.Path != "":
				return d.DialContext(ctx, "unixgram", s.Path)
			}
			return d.DialContext(ctx, "udp", s.Addr.String())
		}
		out = append(out, statsd.New(o))
	}
	return out
}
