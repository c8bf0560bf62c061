package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/sluice-proxy/sluice/test/netns"
)

// Setting is where a cell is measured.
type Setting struct {
	Topology string // loopback, or namespaces: client, proxy and server apart
	CPUs     int    // 2, or everything on 1
}

func (s Setting) String() string {
	if s.CPUs == 1 {
		return s.Topology + ", one CPU"
	}
	return s.Topology + ", two CPUs"
}

// Topologies.
const (
	loopback   = "loopback"
	namespaces = "namespaces"
)

// world is a setting in being: its namespaces, the server and the proxies.
type world struct {
	warm                  bool // every proxy has had traffic
	setting               Setting
	dir                   string
	cpus                  string
	client, proxy, server place
	proxyAddr, serverAddr netip.Addr
	backend               *process
	self                  string
	proxies               []*proxy
	spawn                 spawner
	namespaces            []*netns.NS
}

const serverPort, firstProxyPort = 9000, 9001

// newWorld builds the setting. cpus are the numbers of the CPUs to use.
func newWorld(ctx context.Context, s Setting, dir string, cpus []int, spawn spawner, kinds []kind, tools tools) (*world, error) {
	w := &world{setting: s, dir: dir, spawn: spawn, self: tools.self, cpus: fmt.Sprint(cpus[0])}
	for _, c := range cpus[1:s.CPUs] {
		w.cpus += fmt.Sprintf(",%d", c)
	}
	if err := w.build(ctx, kinds, tools); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) build(ctx context.Context, kinds []kind, tools tools) error {
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return fmt.Errorf("make directory of the setting: %w", err)
	}
	if w.setting.Topology == loopback {
		if err := w.buildLoopback(); err != nil {
			return err
		}
	} else if err := w.buildNamespaces(); err != nil {
		return err
	}
	if err := w.startBackend(ctx); err != nil {
		return err
	}
	for i, k := range kinds {
		p := &proxy{kind: k, w: w, tools: tools, address: netip.AddrPortFrom(w.proxyAddr, uint16(firstProxyPort+i)), server: w.backendAddr()}
		w.proxies = append(w.proxies, p)
		if err := p.start(ctx); err != nil {
			return err
		}
		p.sleep()
	}
	return nil
}

func (w *world) backendAddr() netip.AddrPort { return netip.AddrPortFrom(w.serverAddr, serverPort) }

func (w *world) startBackend(ctx context.Context) (err error) {
	w.backend, err = w.spawn.launch("server", w.dir, w.server, leanly, true, w.self, "serve", w.backendAddr().String(), fmt.Sprint(w.setting.CPUs))
	if err != nil {
		return err
	}
	_, err = w.backend.hear(ctx, 10*time.Second)
	return err
}

// leanly keeps Go's scheduler from interrupting the load's threads.
var leanly = []string{"GODEBUG=asyncpreemptoff=1"}

func (w *world) newNS() (*netns.NS, error) {
	ns, err := netns.New()
	if err == nil {
		w.namespaces = append(w.namespaces, ns)
	}
	return ns, err
}

func (w *world) buildLoopback() error {
	ns, err := w.newNS()
	if err != nil {
		return err
	}
	at := place{ns, w.cpus}
	w.client, w.proxy, w.server = at, at, at
	w.proxyAddr = netip.MustParseAddr("127.0.0.1")
	w.serverAddr = w.proxyAddr
	return nil
}

// buildNamespaces joins client and server by way of the proxy's namespace, which
// also forwards packets: direct traffic takes the same links.
func (w *world) buildNamespaces() error {
	var ns [3]*netns.NS
	for i := range ns {
		var err error
		if ns[i], err = w.newNS(); err != nil {
			return err
		}
	}
	w.client, w.proxy, w.server = place{ns[0], w.cpus}, place{ns[1], w.cpus}, place{ns[2], w.cpus}
	end := func(n *netns.NS, name, addr string) netns.End {
		return netns.End{NS: n, Name: name, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}}
	}
	w.proxyAddr, w.serverAddr = netip.MustParseAddr("10.77.1.2"), netip.MustParseAddr("10.77.2.2")
	return errors.Join(
		netns.Connect(end(ns[0], "c0", "10.77.1.1/24"), end(ns[1], "p0", "10.77.1.2/24"), 0),
		netns.Connect(end(ns[1], "p1", "10.77.2.1/24"), end(ns[2], "s0", "10.77.2.2/24"), 0),
		ns[0].Route(netip.MustParsePrefix("10.77.2.0/24"), w.proxyAddr),
		ns[2].Route(netip.MustParsePrefix("10.77.1.0/24"), netip.MustParseAddr("10.77.2.1")),
		ns[1].Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644) }),
	)
}

func (w *world) close() {
	for _, p := range w.proxies {
		p.process.kill()
	}
	w.backend.kill()
	for _, ns := range w.namespaces {
		ns.Close()
	}
}
