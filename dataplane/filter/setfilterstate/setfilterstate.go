// Package setfilterstate is envoy.filters.network.set_filter_state: it prints what
// is known of a connection into filter state objects, which other filters read.
package setfilterstate

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// Values set filter state objects, in order. They are safe for concurrent use.
type Values []value

type value struct {
	key    string
	kind   api.ObjectKind
	skip   bool
	shared stream.Sharing
	format *stream.Formatter
}

// NewValues makes values ready.
func NewValues(in []api.FilterStateValue) Values {
	out := make(Values, len(in))
	for i := range in {
		v := &in[i]
		out[i] = value{key: v.Key, kind: v.Kind, skip: v.SkipIfEmpty, shared: stream.Sharing(v.Shared)}
		if v.JSON != nil {
			out[i].format = stream.NewJSON(*v.JSON, v.OmitEmpty)
		} else {
			out[i].format = stream.NewText(v.Text, v.OmitEmpty)
		}
	}
	return out
}

// Set sets the objects of a connection.
func (vs Values) Set(i *stream.Info) {
	for j := range vs {
		v := &vs[j]
		s := string(v.format.Append(nil, stream.Moment{Info: i, Now: time.Now()}))
		if s == "" && v.skip {
			continue
		}
		if o, ok := object(v.kind, s); ok {
			o.Shared = v.shared
			i.SetState(v.key, o)
		}
	}
}

// object makes an object of a value, if it takes that.
func object(k api.ObjectKind, s string) (o stream.Object, ok bool) {
	var err error
	o.Value = s
	// What Envoy's objects are hashable: measured on 1.40.
	o.Hashable = k == api.ObjectHashable || k == api.ObjectAddress
	switch k {
	case api.ObjectNumber:
		_, err = strconv.ParseUint(s, 10, 64)
	case api.ObjectIP:
		var a netip.Addr
		a, err = netip.ParseAddr(s)
		// Envoy's addresses always have a port.
		o.Value, o.Address = netip.AddrPortFrom(a, 0).String(), true
	case api.ObjectAddress:
		var a netip.AddrPort
		a, err = netip.ParseAddrPort(s)
		o.Value, o.Address = a.String(), true
	}
	return o, err == nil
}

// Factory is one filter of a chain. It has no statistics.
type Factory struct{ onConnection, onData Values }

// New makes the factory of one chain.
func New(c *api.SetFilterState) *Factory {
	return &Factory{onConnection: NewValues(c.OnConnection), onData: NewValues(c.OnData)}
}

// New makes the filter of a connection.
func (f *Factory) New(c *filter.Connection) filter.Filter { return session{factory: f, conn: c} }

// Watch says whether something is to be set at the first bytes.
func (f *Factory) Watch() filter.Watch {
	if len(f.onData) > 0 {
		return filter.FirstByte
	}
	return filter.Nothing
}

// Release does nothing.
func (*Factory) Release() {}

type session struct {
	filter.Base
	factory *Factory
	conn    *filter.Connection
}

// NewConnection sets what is to be set at once.
func (s session) NewConnection() filter.Status {
	s.factory.onConnection.Set(s.conn.Info)
	return filter.Continue
}

// Data sets what is to be set when the first bytes came.
func (s session) Data(bool) filter.Status {
	s.factory.onData.Set(s.conn.Info)
	return filter.Continue
}
