package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/test/netns"
)

// startIn starts sluice in a network namespace.
func startIn(t *testing.T, ns *netns.NS, bootstrap string, flags ...string) *proxy {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "bootstrap.yaml")
	if err := os.WriteFile(config, []byte(bootstrap), 0o644); err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, log: filepath.Join(dir, "log"), admin: "127.0.0.1:9901"}
	p.client = &http.Client{Transport: &http.Transport{DialContext: ns.Dial, DisableKeepAlives: true}}
	args := append([]string{"--net=" + ns.Path(), sluice, "-c", config, "--concurrency", "2", "--log-path", p.log}, flags...)
	p.cmd = exec.Command("nsenter", args...)
	p.cmd.Stderr = os.Stderr
	// No Pdeathsig: it comes when the thread ends that started the process, and
	// threads that were in a namespace do end.
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		if t.Failed() {
			b, _ := os.ReadFile(p.log)
			t.Logf("log of the proxy:\n%s", b)
		}
	})
	p.await("the proxy is ready", func() bool { code, _ := p.get("/ready"); return code == 200 })
	return p
}

// nft runs a script in a namespace.
func nft(t *testing.T, ns *netns.NS, script string) {
	t.Helper()
	cmd := exec.Command("nsenter", "--net="+ns.Path(), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
}

func ip(t *testing.T, ns *netns.NS, args ...string) {
	t.Helper()
	if out, err := exec.Command("nsenter", append([]string{"--net=" + ns.Path(), "ip"}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v\n%s", args, err, out)
	}
}

// banners are servers in a namespace whose address is their greeting.
func banners(t *testing.T, ns *netns.NS, addrs ...string) {
	t.Helper()
	for _, a := range addrs {
		ln, err := ns.Listen(t.Context(), "tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				fmt.Fprintln(c, a)
				c.Close()
			}
		}()
	}
}

// greeting dials from a namespace and returns the first line.
func greeting(t *testing.T, ns *netns.NS, addr string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := ns.Dial(ctx, "tcp", addr)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 200)
	n, err := c.Read(b)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[:n]))
}

func proxyChain(cluster string) string {
	return `filter_chains: [{filters: [{name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: ` + cluster + `, cluster: ` + cluster + `}}]}]`
}

func staticCluster(name, addr string) string {
	ap := netip.MustParseAddrPort(addr)
	return fmt.Sprintf(`{name: %s, type: STATIC, load_assignment: {cluster_name: %s, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: "%s", port_value: %d}}}}]}]}}`, name, name, ap.Addr(), ap.Port())
}

func at(addr string) string {
	ap := netip.MustParseAddrPort(addr)
	return fmt.Sprintf(`address: {socket_address: {address: "%s", port_value: %d}}`, ap.Addr(), ap.Port())
}

// sidecar is what Istio and Kuma configure: one listener that takes all that is
// redirected, and others, without sockets, that it hands it to by the original
// destination.
func sidecar(v6 bool) string {
	all, service, wildcard := "0.0.0.0:15001", "10.99.0.1:80", "0.0.0.0:81"
	if v6 {
		all, service, wildcard = "[::]:15001", "[fd99::1]:80", "[::]:81"
	}
	log := `access_log: [{name: f, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: LOG, log_format: {text_format_source: {inline_string: "%DOWNSTREAM_LOCAL_ADDRESS% %UPSTREAM_CLUSTER%\n"}}}}]`
	return `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
static_resources:
  listeners:
  - {name: all, ` + at(all) + `, use_original_dst: true, ` + log + `, ` + proxyChain("passthrough") + `}
  - {name: service, ` + at(service) + `, bind_to_port: false, ` + log + `, ` + proxyChain("service") + `}
  - {name: wildcard, ` + at(wildcard) + `, bind_to_port: false, ` + log + `, ` + proxyChain("wildcard") + `}
  clusters:
  - ` + staticCluster("passthrough", "127.0.0.1:7001") + `
  - ` + staticCluster("service", "127.0.0.1:7002") + `
  - ` + staticCluster("wildcard", "127.0.0.1:7003") + `
`
}

func TestRedirectedConnectionsReachTheListenerOfTheirDestination(t *testing.T) {
	needRoot(t)
	for _, v6 := range []bool{false, true} {
		name, host, any := "v4", "10.99.0.%d:%d", "127.0.0.1"
		if v6 {
			name, host, any = "v6", "[fd99::%d]:%d", "[::1]"
		}
		t.Run(name, func(t *testing.T) {
			ns := netns.ForTest(t)
			log := filepath.Join(t.TempDir(), "access")
			banners(t, ns, "127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003")
			if v6 {
				ip(t, ns, "-6", "route", "add", "local", "fd99::/64", "dev", "lo")
				nft(t, ns, "table ip6 t { chain out { type nat hook output priority -100; ip6 daddr fd99::/64 tcp dport 1-1000 redirect to :15001; }; }")
			} else {
				ip(t, ns, "route", "add", "local", "10.99.0.0/16", "dev", "lo")
				nft(t, ns, "table ip t { chain out { type nat hook output priority -100; ip daddr 10.99.0.0/16 tcp dport 1-1000 redirect to :15001; }; }")
			}
			p := startIn(t, ns, strings.ReplaceAll(sidecar(v6), "LOG", log), "--file-flush-interval-msec", "20")
			var want []string
			for _, tt := range []struct{ to, cluster, greets string }{
				{fmt.Sprintf(host, 1, 80), "service", "127.0.0.1:7002"},
				{fmt.Sprintf(host, 2, 81), "wildcard", "127.0.0.1:7003"},
				{fmt.Sprintf(host, 2, 80), "passthrough", "127.0.0.1:7001"}, // no listener has that address
				{any + ":15001", "passthrough", "127.0.0.1:7001"},           // not redirected at all
			} {
				if got := greeting(t, ns, tt.to); got != tt.greets {
					t.Errorf("%s: greeted by %q, want %q", tt.to, got, tt.greets)
				}
				want = append(want, tt.to+" "+tt.cluster)
			}
			slices.Sort(want)
			p.await("the log says where they meant to go", func() bool {
				b, _ := os.ReadFile(log)
				got := strings.Fields(strings.ReplaceAll(string(b), " ", "~"))
				for i := range got {
					got[i] = strings.ReplaceAll(got[i], "~", " ")
				}
				slices.Sort(got) // two workers
				return slices.Equal(got, want)
			})
		})
	}
}

// With TPROXY the socket's own address is the original destination.
func TestTransparentlyProxiedConnectionsKeepTheirDestination(t *testing.T) {
	needRoot(t)
	for _, v6 := range []bool{false, true} {
		name, family, net4, host := "v4", "ip", "10.99.0.0/16", "10.99.0.%d:%d"
		client, server, listen, service := "10.1.0.1/24", "10.1.0.2/24", "0.0.0.0:15006", "10.99.0.1:80"
		if v6 {
			name, family, net4, host = "v6", "ip6", "fd99::/64", "[fd99::%d]:%d"
			client, server, listen, service = "fd01::1/64", "fd01::2/64", "[::]:15006", "[fd99::1]:80"
		}
		t.Run(name, func(t *testing.T) {
			a, b := netns.ForTest(t), netns.ForTest(t)
			if err := netns.Connect(netns.End{NS: a, Name: "v0", Addrs: []netip.Prefix{netip.MustParsePrefix(client)}}, netns.End{NS: b, Name: "v1", Addrs: []netip.Prefix{netip.MustParsePrefix(server)}}, 0); err != nil {
				t.Fatal(err)
			}
			if err := a.Route(netip.MustParsePrefix(net4), netip.MustParsePrefix(server).Addr()); err != nil {
				t.Fatal(err)
			}
			banners(t, b, "127.0.0.1:7001", "127.0.0.1:7002")
			flag := []string{}
			if v6 {
				flag = []string{"-6"}
			}
			ip(t, b, append(flag, "rule", "add", "fwmark", "1", "lookup", "100")...)
			everything := "0.0.0.0/0"
			if v6 {
				everything = "::/0"
			}
			ip(t, b, append(flag, "route", "add", "local", everything, "dev", "lo", "table", "100")...)
			nft(t, b, fmt.Sprintf("table %s t { chain pre { type filter hook prerouting priority -150; %s daddr %s meta l4proto tcp tproxy to :15006 meta mark set 1 accept; }; }", family, family, net4))
			log := filepath.Join(t.TempDir(), "access")
			bootstrap := `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
static_resources:
  listeners:
  - {name: all, ` + at(listen) + `, transparent: true, use_original_dst: true, listener_filters: [{name: o, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}], access_log: [{name: f, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: ` + log + `, log_format: {text_format_source: {inline_string: "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\n"}}}}], ` + proxyChain("passthrough") + `}
  - {name: service, ` + at(service) + `, bind_to_port: false, ` + proxyChain("service") + `}
  clusters:
  - ` + staticCluster("passthrough", "127.0.0.1:7001") + `
  - ` + staticCluster("service", "127.0.0.1:7002") + `
`
			p := startIn(t, b, bootstrap, "--file-flush-interval-msec", "20")
			to := fmt.Sprintf(host, 7, 443)
			if got := greeting(t, a, to); got != "127.0.0.1:7001" {
				t.Errorf("greeted by %q", got)
			}
			if got := greeting(t, a, fmt.Sprintf(host, 1, 80)); got != "127.0.0.1:7002" {
				t.Errorf("an address with a listener: greeted by %q", got)
			}
			want := to + " " + netip.MustParsePrefix(client).Addr().String() + "\n"
			p.await("the log says where it meant to go", func() bool { got, _ := os.ReadFile(log); return string(got) == want })
		})
	}
}

// With original_src the server sees the client's own address, and its answers
// find their way back through the proxy.
func TestServersSeeTheClientsOwnAddress(t *testing.T) {
	needRoot(t)
	for _, v6 := range []bool{false, true} {
		name, flag, everything := "v4", []string{}, "0.0.0.0/0"
		client, near, far, server := "10.1.0.1/24", "10.1.0.2/24", "10.2.0.2/24", "10.2.0.1/24"
		clients := "10.1.0.0/24"
		if v6 {
			name, flag, everything = "v6", []string{"-6"}, "::/0"
			client, near, far, server = "fd01::1/64", "fd01::2/64", "fd02::2/64", "fd02::1/64"
			clients = "fd01::/64"
		}
		t.Run(name, func(t *testing.T) {
			a, b, c := netns.ForTest(t), netns.ForTest(t), netns.ForTest(t)
			end := func(ns *netns.NS, name, addr string) netns.End {
				return netns.End{NS: ns, Name: name, Addrs: []netip.Prefix{netip.MustParsePrefix(addr)}}
			}
			if err := netns.Connect(end(a, "v0", client), end(b, "v1", near), 0); err != nil {
				t.Fatal(err)
			}
			if err := netns.Connect(end(b, "v2", far), end(c, "v3", server), 0); err != nil {
				t.Fatal(err)
			}
			if err := c.Route(netip.MustParsePrefix(clients), netip.MustParsePrefix(far).Addr()); err != nil {
				t.Fatal(err)
			}
			// What the server sends back is for a socket here.
			ip(t, b, append(flag, "rule", "add", "iif", "v2", "lookup", "100")...)
			ip(t, b, append(flag, "route", "add", "local", everything, "dev", "lo", "table", "100")...)
			at0 := func(prefix string, port uint16) string {
				return netip.AddrPortFrom(netip.MustParsePrefix(prefix).Addr(), port).String()
			}
			ln, err := c.Listen(t.Context(), "tcp", at0(server, 7000))
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go func() {
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					fmt.Fprintln(conn, netip.MustParseAddrPort(conn.RemoteAddr().String()).Addr())
					conn.Close()
				}
			}()
			startIn(t, b, `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
static_resources:
  listeners:
  - {name: l, `+at(at0(near, 8000))+`, listener_filters: [{name: s, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_src.v3.OriginalSrc, mark: 7}}], `+proxyChain("server")+`}
  clusters:
  - `+staticCluster("server", at0(server, 7000))+`
`)
			if got, want := greeting(t, a, at0(near, 8000)), netip.MustParsePrefix(client).Addr().String(); got != want {
				t.Errorf("the server saw %q, want %q", got, want)
			}
		})
	}
}
