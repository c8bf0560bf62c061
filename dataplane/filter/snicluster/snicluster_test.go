package snicluster

import (
	"testing"

	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

func TestTheServerNameNamesTheCluster(t *testing.T) {
	for _, name := range []string{"", "db.example"} {
		c := &filter.Connection{Info: &stream.Info{}}
		if name != "" {
			c.Info.Found().ServerName = name
		}
		if s := (Factory{}).New(c).NewConnection(); s != filter.Continue {
			t.Errorf("%q: status %d", name, s)
		}
		o, ok := c.Info.State()["envoy.tcp_proxy.cluster"]
		if ok != (name != "") || o.Value != name {
			t.Errorf("%q: %+v, %t", name, o, ok)
		}
	}
}
