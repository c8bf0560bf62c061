package stream

import (
	"net/netip"
	"testing"
	"unsafe"
)

func TestAddressesComeOutAsTheyWentIn(t *testing.T) {
	for _, a := range []netip.AddrPort{
		{}, netip.MustParseAddrPort("10.1.2.3:0"), netip.MustParseAddrPort("0.0.0.0:65535"), netip.MustParseAddrPort("[::]:1"),
		netip.MustParseAddrPort("[2001:db8::1]:443"), netip.MustParseAddrPort("[::ffff:10.1.2.3]:80"),
	} {
		if got := pack(a).unpack(); got != a {
			t.Errorf("%v came out as %v", a, got)
		}
	}
}

func TestRestoredAddressesLeaveTheDirectOnes(t *testing.T) {
	remote, local, meant, client := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2"), netip.MustParseAddrPort("[2001:db8::3]:3"), netip.MustParseAddrPort("192.0.2.4:4")
	i := New(1, nil, remote, local)
	if i.LocalRestored() || i.DirectLocal() != local || i.DirectRemote() != remote {
		t.Errorf("at first: %v %v %v", i.LocalRestored(), i.DirectLocal(), i.DirectRemote())
	}
	i.RestoreRemote(client)
	if i.LocalRestored() || i.Remote() != client || i.DirectRemote() != remote || i.Local() != local || i.DirectLocal() != local {
		t.Error("the client's address does more than it should")
	}
	i.RestoreLocal(meant)
	if !i.LocalRestored() || i.Remote() != client || i.DirectRemote() != remote || i.Local() != meant || i.DirectLocal() != local {
		t.Error("the destination's address does more than it should")
	}
}

// There is one for each open connection, and the allocator has no size between
// 192 and 208 bytes: what is new and not every connection's belongs into rare.
func TestInfoIsSmall(t *testing.T) {
	if n := unsafe.Sizeof(Info{}); n > 192 {
		t.Errorf("%d bytes, want 192 at most", n)
	}
}
