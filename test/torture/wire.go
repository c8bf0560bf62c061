package torture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"

	"github.com/sluice-proxy/sluice/test/fault"
	"github.com/sluice-proxy/sluice/test/netns"
	"golang.org/x/sys/unix"
)

// wire is a way from client to proxy to server: the host's loopback, or three
// namespaces joined by veth or by middleboxes.
type wire struct {
	name                  string
	most                  int64 // bytes that a stream has at most
	client, proxy, server *netns.NS
	via                   *proxy
	boxes                 []*fault.Box
	beside                bool // the server is in the proxy's namespace, the client is not
	// of each family: where the proxy listens, where the server does.
	families [2]family
	wg       sync.WaitGroup

	// dialing is held from before a connection is opened until it is known
	// below: by clients, and by the proxy.
	dialing [2]sync.Mutex
	waiting sync.Map // *connection by the client's address
	serving sync.Map // *connection by the address that the proxy called from
}

type family struct {
	name          string
	front, behind net.Listener
}

var familyNames = [2]string{"tcp4", "tcp6"}

// plans of the middleboxes.
var plans = []fault.Plan{
	{Loss: .01, Duplicate: .01, Reorder: .02, Overlap: .2, Late: msec},
	{Loss: .003, Overlap: .5, Delay: msec / 2, Jitter: msec, Late: 3 * msec, Reorder: .01},
}

const msec = 1_000_000

func (r *run) makeWires() (wires []*wire, err error) {
	defer func() {
		if err != nil {
			for _, w := range wires {
				w.close()
			}
			wires = nil
		}
	}()
	add := func(name string, most int64, join joiner) error {
		if !strings.Contains(name, r.Wires) {
			return nil
		}
		w := &wire{name: name, most: most}
		wires = append(wires, w)
		if join == nil {
			ns, err := r.loopback()
			if err != nil {
				return err
			}
			w.client, w.proxy, w.server = ns, ns, ns
		} else if err := w.threeNamespaces(join); err != nil {
			return err
		}
		if err := w.through(r); err != nil {
			return err
		}
		return w.listen(r)
	}
	if err := add("loopback", 8<<20, nil); err != nil {
		return wires, err
	}
	for _, mtu := range []int{1500, 9000} {
		for _, offload := range []bool{true, false} {
			if err := add(fmt.Sprintf("veth %d offload %v", mtu, offload), 4<<20, veth(mtu, offload)); err != nil {
				return wires, err
			}
		}
	}
	if r.Soak {
		return wires, r.besides(add)
	}
	for i, plan := range plans {
		plan.Ethernet = r.Graft
		n := uint64(0)
		err := add(fmt.Sprintf("faults %d", i), 512<<10, func(w *wire, a, b netns.End) error {
			n++
			box, err := fault.Join(a, b, 1500, plan, r.Seed+n)
			if err == nil {
				w.boxes = append(w.boxes, box)
			}
			return err
		})
		if err != nil {
			return wires, err
		}
	}
	return wires, nil
}

// besides makes the wires of a client that comes by a device to a proxy whose server
// is beside it.
func (r *run) besides(add func(name string, most int64, join joiner) error) error {
	for _, offload := range []bool{true, false} {
		beside := func(w *wire, a, b netns.End) error {
			w.beside = true
			return veth(1500, offload)(w, a, b)
		}
		if err := add(fmt.Sprintf("beside, offload %v", offload), 4<<20, beside); err != nil {
			return err
		}
	}
	return nil
}

// joiner joins two namespaces of a wire.
type joiner func(w *wire, a, b netns.End) error

func veth(mtu int, offload bool) joiner {
	return func(_ *wire, a, b netns.End) error {
		if err := netns.Connect(a, b, mtu); err != nil {
			return err
		}
		for _, e := range []netns.End{a, b} {
			if err := e.Offload(offload); err != nil {
				return err
			}
		}
		return nil
	}
}

// loopback is where the wire without other devices is: the host, or for grafts,
// whose programs see every packet there, a namespace.
func (r *run) loopback() (*netns.NS, error) {
	if r.Graft {
		return netns.New()
	}
	return netns.Host()
}

// through has the wire's pairs made by the one proxy, or, for grafts, by one of its
// own in its namespace.
func (w *wire) through(r *run) (err error) {
	if w.via = r.proxy; r.Graft {
		w.via, err = newProxy(r, w.proxy)
	}
	return err
}

// threeNamespaces makes client, proxy and server a namespace each, and joins the
// proxy's to both others; a server beside the proxy is in the proxy's.
func (w *wire) threeNamespaces(join joiner) (err error) {
	for _, ns := range []**netns.NS{&w.client, &w.proxy, &w.server} {
		if *ns, err = netns.New(); err != nil {
			return err
		}
	}
	end := func(ns *netns.NS, name string, link, host int) netns.End {
		return netns.End{NS: ns, Name: name, Addrs: []netip.Prefix{
			netip.MustParsePrefix(fmt.Sprintf("10.7.%d.%d/24", link, host)),
			netip.MustParsePrefix(fmt.Sprintf("fd07:%d::%d/64", link, host)),
		}}
	}
	if err := join(w, end(w.client, "c", 1, 1), end(w.proxy, "pc", 1, 2)); err != nil {
		return err
	}
	if w.beside {
		err := w.server.Close()
		w.server = w.proxy
		return err
	}
	return join(w, end(w.proxy, "ps", 2, 1), end(w.server, "s", 2, 2))
}

func (w *wire) listen(r *run) error {
	addrs := [2][2]string{{"10.7.1.2:0", "10.7.2.2:0"}, {"[fd07:1::2]:0", "[fd07:2::2]:0"}}
	if w.client == w.server {
		addrs = [2][2]string{{"127.0.0.1:0", "127.0.0.1:0"}, {"[::1]:0", "[::1]:0"}}
	} else if w.server == w.proxy {
		addrs[0][1], addrs[1][1] = addrs[0][0], addrs[1][0]
	}
	for i := range w.families {
		f := &w.families[i]
		f.name = familyNames[i]
		var err error
		if f.front, err = w.proxy.Listen(context.Background(), f.name, addrs[i][0]); err != nil {
			return err
		}
		if f.behind, err = w.server.Listen(context.Background(), f.name, addrs[i][1]); err != nil {
			return err
		}
		w.wg.Go(func() { w.acceptFront(r, f) })
		w.wg.Go(func() { w.acceptBehind(r, f) })
	}
	return nil
}

// dialServer has the proxy connect to the server.
func (w *wire) dialServer(f *family) (c net.Conn, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if !w.beside {
			return nil
		}
		segment := 1500 - 40 // as at the client's device (pair.Set.Segment)
		if f.name == "tcp6" {
			segment -= 20
		}
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_TCP, unix.TCP_MAXSEG, segment) })
		return errors.Join(err, cerr)
	}}
	err = w.proxy.Do(func() (err error) {
		c, err = d.DialContext(ctx, f.name, f.behind.Addr().String())
		return err
	})
	return c, err
}

// known finds whose connection was accepted.
func known(dialing *sync.Mutex, m *sync.Map, c net.Conn) *connection {
	at := c.RemoteAddr().String()
	k, ok := m.LoadAndDelete(at)
	if !ok { // accepted before the dialer came back
		dialing.Lock()
		k, ok = m.LoadAndDelete(at)
		dialing.Unlock()
	}
	if !ok {
		return nil
	}
	return k.(*connection)
}

// acceptFront takes what clients open, and has the proxy make a pair of it.
func (w *wire) acceptFront(r *run, f *family) {
	for {
		c, err := f.front.Accept()
		if err != nil {
			return
		}
		k := known(&w.dialing[0], &w.waiting, c)
		if k == nil {
			c.Close() // the client gave up
			continue
		}
		w.wg.Go(func() { w.via.join(k, c.(*net.TCPConn)) })
	}
}

// acceptBehind takes what the proxy opens.
func (w *wire) acceptBehind(r *run, f *family) {
	for {
		c, err := f.behind.Accept()
		if err != nil {
			return
		}
		k := known(&w.dialing[1], &w.serving, c)
		if k == nil {
			c.Close()
			continue
		}
		k.server <- c.(*net.TCPConn)
	}
}

// close takes the wire down and says what its middleboxes did.
func (w *wire) close() (faults []string) {
	for _, f := range w.families {
		if f.front != nil {
			f.front.Close()
		}
		if f.behind != nil {
			f.behind.Close()
		}
	}
	w.wg.Wait()
	for _, b := range w.boxes {
		faults = append(faults, fmt.Sprintf("%s: %+v", w.name, b.Counts()))
		b.Close()
	}
	for _, ns := range []*netns.NS{w.client, w.proxy, w.server} {
		if ns != nil {
			ns.Close()
		}
	}
	return faults
}
