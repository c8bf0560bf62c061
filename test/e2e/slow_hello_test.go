package e2e

import (
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/test/peer"
)

// A client that sends its first bytes one at a time: bytes that were looked at
// stay in the socket, and a loop that forgot that would spin.
func TestAByteAtATimeCostsFewSystemCalls(t *testing.T) {
	needRoot(t)
	counter, err := bpf.CountSyscalls()
	if err != nil {
		t.Fatal(err)
	}
	defer counter.Close()
	to := free(t)
	address := at(to.String())
	p := start(t, sluice, `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  listeners:
  - {name: l, `+address+`, listener_filters: [{name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}], `+proxyChain("c")+`}
  clusters:
  - `+staticCluster("c", echo(t, peer.Echo).Addr().String())+`
`, nil)
	c := dial(t, to)
	if err := counter.Watch(p.cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	// A record of 300 bytes that never ends.
	hello := append([]byte("\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03"), make([]byte, 289)...)
	// What the runtime does by the clock is counted first, and taken off.
	count := func(write bool) uint64 {
		before, err := counter.Count(p.cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range hello {
			if write {
				if _, err := c.Write([]byte{b}); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Millisecond) // not a wait for anything: the client is slow
		}
		after, err := counter.Count(p.cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		return after - before
	}
	idle := count(false)
	n := count(true)
	n -= min(idle, n)
	t.Logf("%d system calls for %d bytes", n, len(hello))
	if n == 0 || n >= uint64(5*len(hello)) {
		t.Errorf("%d system calls for %d bytes", n, len(hello))
	}
}
