package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sluice-proxy/sluice/test/control"
	"github.com/sluice-proxy/sluice/test/netns"
)

// pod is a namespace with an application and its sidecar, at the end of a wire.
type pod struct {
	t            *testing.T
	outside, ns  *netns.NS
	client, addr netip.Addr
}

// inEachFamily runs a test with a pod for IPv4 and for IPv6.
func inEachFamily(t *testing.T, f func(*pod)) {
	needRoot(t)
	for _, v6 := range []bool{false, true} {
		name, client, server := "v4", "10.1.0.1/24", "10.1.0.2/24"
		if v6 {
			name, client, server = "v6", "fd01::1/64", "fd01::2/64"
		}
		t.Run(name, func(t *testing.T) {
			p := &pod{t: t, outside: netns.ForTest(t), ns: netns.ForTest(t), client: netip.MustParsePrefix(client).Addr(), addr: netip.MustParsePrefix(server).Addr()}
			if err := netns.Connect(netns.End{NS: p.outside, Name: "v0", Addrs: []netip.Prefix{netip.MustParsePrefix(client)}}, netns.End{NS: p.ns, Name: "v1", Addrs: []netip.Prefix{netip.MustParsePrefix(server)}}, 0); err != nil {
				t.Fatal(err)
			}
			f(p)
		})
	}
}

// at is an address of the pod's.
func (p *pod) at(port uint16) string { return netip.AddrPortFrom(p.addr, port).String() }

// serve is the application: it says its port and who it sees, and echoes.
func (p *pod) serve(ports ...uint16) {
	for _, port := range ports {
		ln, err := p.ns.Listen(p.t.Context(), "tcp", p.at(port))
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					fmt.Fprintf(c, "%d %s\n", port, c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr())
					io.Copy(c, c)
				}()
			}
		}()
	}
}

// direct and proxied are what the application's ports say.
func (p *pod) direct(port uint16) string  { return fmt.Sprintf("%d %v", port, p.client) }
func (p *pod) proxied(port uint16) string { return fmt.Sprintf("%d %v", port, p.addr) }

func (p *pod) sysctl(name, value string) {
	p.t.Helper()
	if out, err := exec.Command("nsenter", "--net="+p.ns.Path(), "sysctl", "-w", name+"="+value).CombinedOutput(); err != nil {
		p.t.Fatalf("set %s: %v\n%s", name, err, out)
	}
}

// inboundSidecar is what Istio (filter chains by destination_port) and Kuma
// (listeners without sockets) configure for what comes in. The clusters lead to
// the application by the pod's own address, and by the port that was meant.
func (p *pod) inboundSidecar(log, catch string) string {
	accessLog := `access_log: [{name: f, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: ` + log + `, log_format: {text_format_source: {inline_string: "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\n"}}}}]`
	chain := func(match, cluster string) string {
		return `{filter_chain_match: {` + match + `}, filters: [{name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: ` + cluster + `, cluster: ` + cluster + `}}]}`
	}
	at4, at6 := "0.0.0.0:15006", "[::]:15006"
	if catch == byFilter {
		at4, at6 = "127.0.0.1:15006", "[::1]:15006"
	}
	return `
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
static_resources:
  listeners:
  - {name: virtualInbound, ` + at(at4) + `, additional_addresses: [{` + at(at6) + `}], traffic_direction: INBOUND, ` + catch + `, ` + accessLog + `,
     filter_chains: [` + chain("destination_port: 15006", "blackhole") + `, ` + chain("destination_port: 80", "http") + `, ` + chain("", "other") + `]}
  - {name: handed, ` + at(p.at(82)) + `, bind_to_port: false, traffic_direction: INBOUND, ` + accessLog + `, ` + proxyChain("handed") + `}
  - {name: own, ` + at(p.at(85)) + `, ` + proxyChain("handed") + `}
  clusters:
  - {name: blackhole, type: STATIC, load_assignment: {cluster_name: blackhole}}
  - ` + staticCluster("http", p.at(80)) + `
  - ` + staticCluster("handed", p.at(82)) + `
  - ` + staticCluster("other", p.at(83)) + `
`
}

const (
	byFlag = `use_original_dst: true, listener_filters: [{name: o, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}]`
	// Without hand-over, and bound where nobody from outside gets to.
	byFilter = `listener_filters: [{name: o, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}]`
)

type inboundDump struct {
	Inbound struct {
		Namespace string
		Idle      string
		Entries   []struct {
			Prefix, Verdict, Listener, Target string
			Port                              uint16
		}
		Swaps    uint64
		Outcomes map[string]uint64
	}
}

func (p *proxy) inbound() (d inboundDump) {
	p.t.Helper()
	_, b := p.get("/routes")
	if err := json.Unmarshal([]byte(b), &d); err != nil {
		p.t.Fatalf("read /routes: %v\n%s", err, b)
	}
	return d
}

// counted is how the look-ups ended since before, but for UDP and for loopback,
// by which the tests ask.
func (p *proxy) counted(before map[string]uint64) map[string]uint64 {
	out := map[string]uint64{}
	for name, n := range p.inbound().Inbound.Outcomes {
		if d := n - before[name]; d > 0 && name != "inbound.not_tcp" && name != "inbound.loopback" {
			out[strings.TrimPrefix(name, "inbound.")] = d
		}
	}
	return out
}

// shows says whether look-ups ended so, and in no other way. How often is for the
// tests of bpf: a SYN that is sent again, and a stray of the proxy's own connection
// before, are looked up too.
func shows(got map[string]uint64, want ...string) bool {
	for _, w := range want {
		if got[w] == 0 {
			return false
		}
	}
	for name := range got {
		if name != "from_own_address" && !slices.Contains(want, name) {
			return false
		}
	}
	return true
}

func TestWhatComesFromOutsideReachesTheInboundListener(t *testing.T) {
	for name, catch := range map[string]string{"use_original_dst": byFlag, "filter only": byFilter} {
		t.Run(name, func(t *testing.T) {
			inEachFamily(t, func(pod *pod) { inboundArrives(pod, catch) })
		})
	}
}

func inboundArrives(pod *pod, catch string) {
	t := pod.t
	log := filepath.Join(t.TempDir(), "access")
	pod.serve(80, 81, 82, 83, 84)
	p := startIn(t, pod.ns, pod.inboundSidecar(log, catch), "--file-flush-interval-msec", "20", "--capture-inbound-ports", "all", "--capture-inbound-exclude-ports", "81,9901")
	hands := catch == byFlag
	handed := pod.proxied(83)
	if hands {
		handed = pod.proxied(82)
	}
	var logged []string
	for _, tt := range []struct {
		port  uint16
		want  string
		count string
	}{
		{80, pod.proxied(80), "captured"}, // and the proxy's own dial to that very address passes
		{81, pod.direct(81), "passed"},
		{82, handed, "captured"},
		{84, pod.proxied(83), "captured"},
		{9, pod.proxied(83), "captured"}, // nobody of the application's listens there
		{85, pod.proxied(82), "passed"},  // a socket of the proxy's
	} {
		before := p.inbound().Inbound.Outcomes
		if got := greeting(t, pod.outside, pod.at(tt.port)); got != tt.want {
			t.Errorf("port %d: greeted by %q, want %q", tt.port, got, tt.want)
		}
		want := []string{tt.count, "from_own_address"}
		if tt.port == 81 {
			want = want[:1]
		}
		if got := p.counted(before); !shows(got, want...) {
			t.Errorf("port %d: counted %v, want %v", tt.port, got, want)
		}
		if tt.count == "captured" {
			logged = append(logged, pod.at(tt.port)+" "+pod.client.String())
		}
	}
	// Who connects to the listener itself means nothing behind it; where its sockets
	// cannot be reached from outside, the port is one like any other.
	itself := "captured"
	if hands {
		itself = "passed"
	}
	before := p.inbound().Inbound.Outcomes
	if got := greeting(t, pod.outside, pod.at(15006)); got != "EOF" && !strings.Contains(got, "reset by peer") {
		t.Errorf("15006 itself: greeted by %q", got)
	}
	if got := p.counted(before); !shows(got, itself) {
		t.Errorf("15006 itself: counted %v", got)
	}
	logged = append(logged, pod.at(15006)+" "+pod.client.String())
	p.await("the log says where they meant to go", func() bool {
		b, _ := os.ReadFile(log)
		for _, want := range logged {
			if !strings.Contains(string(b), want+"\n") {
				return false
			}
		}
		return strings.Count(string(b), "\n") == len(logged)
	})

	// Programs in the namespace reach the application.
	before = p.inbound().Inbound.Outcomes
	if got := greeting(t, pod.ns, pod.at(80)); got != pod.proxied(80) {
		t.Errorf("from inside: greeted by %q", got)
	}
	if got := p.counted(before); !shows(got, "from_own_address") {
		t.Errorf("from inside: counted %v", got)
	}

	_, b := p.get("/routes?inbound=" + pod.at(82))
	want := []string{`"verdict": "capture"`, `"listener": "virtualInbound"`, `"cluster": "other"`}
	if hands {
		want = []string{`"verdict": "capture"`, `"listener": "handed"`, `"cluster": "handed"`}
	}
	for _, want := range want {
		if !strings.Contains(b, want) {
			t.Errorf("/routes?inbound says %s, without %s", b, want)
		}
	}
	for _, args := range [][]string{{"routes"}, {"routes", "get", "--inbound", pod.at(81)}} {
		out, err := exec.Command("nsenter", append([]string{"--net=" + pod.ns.Path(), sluice}, args...)...).CombinedOutput()
		want := "inbound.captured: "
		if len(args) > 1 {
			want = "pass"
		}
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("sluice %v says %s, %v", args, out, err)
		}
	}
	if _, b := p.get("/stats?filter=^capture"); !strings.Contains(b, "capture.inbound.captured: ") {
		t.Errorf("/stats says %s", b)
	}
}

// Whatever goes with a listening socket in a sockmap, what it accepts is spliced
// as ever.
func TestInboundConnectionsAreSpliced(t *testing.T) {
	inEachFamily(t, func(pod *pod) {
		pod.serve(80)
		p := startIn(t, pod.ns, pod.inboundSidecar("/dev/null", byFlag), "--capture-inbound-ports", "80", "--splice", "always")
		p.t = pod.t
		c, err := pod.outside.Dial(pod.t.Context(), "tcp", pod.at(80))
		if err != nil {
			pod.t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		want := pod.proxied(80) + "\n"
		for range 1000 {
			b := make([]byte, len(want))
			if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
				pod.t.Fatalf("read %q, %v", b, err)
			}
			if _, err := c.Write(b); err != nil {
				pod.t.Fatal(err)
			}
		}
		if !p.allSpliced(1) {
			pod.t.Errorf("not spliced: %+v", p.connections())
		}
	})
}

// However the proxy ends, what comes then finds the application, and nothing
// stays in the kernel.
func TestAfterTheProxyTheApplicationIsReached(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			inEachFamily(t, func(pod *pod) {
				pod.serve(80, 83)
				p := startIn(pod.t, pod.ns, pod.inboundSidecar("/dev/null", byFlag), "--capture-inbound-ports", "all")
				if got := greeting(pod.t, pod.outside, pod.at(80)); got != pod.proxied(80) {
					pod.t.Errorf("greeted by %q", got)
				}
				out, err := exec.Command("bpftool", "link", "show").CombinedOutput()
				if err != nil || !strings.Contains(string(out), "sk_lookup") {
					pod.t.Errorf("bpftool shows no link: %s, %v", out, err)
				}
				p.cmd.Process.Signal(signal)
				p.cmd.Wait()
				p.await("the program is gone", func() bool {
					out, err := exec.Command("bpftool", "prog", "show", "name", "inbound_lookup").CombinedOutput()
					return err != nil || len(strings.TrimSpace(string(out))) == 0
				})
				for range 20 {
					if got := greeting(pod.t, pod.outside, pod.at(80)); got != pod.direct(80) {
						pod.t.Fatalf("after the proxy: greeted by %q", got)
					}
				}
			})
		})
	}
}

func TestInboundCaptureIsRefusedWithAReason(t *testing.T) {
	needRoot(t)
	config := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(config, []byte(static(free(t), free(t), "")), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		drop string
		args []string
		want string
	}{
		{"-bpf,-sys_admin", []string{"--capture-inbound-ports", "80"}, "start inbound capture: load sk_lookup: "},
		{"-net_admin,-sys_admin", []string{"--capture-inbound-ports", "80"}, "start inbound capture: load sk_lookup: "},
		{"", []string{"--capture-inbound-ports", "http"}, `read --capture-inbound-ports: "http" is no port`},
		{"", []string{"--capture-inbound-ports", "9-8"}, `read --capture-inbound-ports: "9-8" ends before it begins`},
		{"", []string{"--capture-inbound-ports", "all", "--capture-inbound-exclude-ports", "70000"}, `read --capture-inbound-exclude-ports: "70000" is no port`},
		{"", []string{"--capture-inbound-exclude-ports", "80"}, "means nothing without --capture-inbound-ports"},
	} {
		args := append([]string{sluice, "-c", config}, tt.args...)
		if tt.drop != "" {
			args = append([]string{"setpriv", "--bounding-set", tt.drop, "--inh-caps", tt.drop}, args...)
		}
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), tt.want) || tt.drop != "" && !strings.Contains(string(out), "operation not permitted") {
			t.Errorf("%v without %s: says %q, %v, want %q", tt.args, tt.drop, out, err, tt.want)
		}
	}
}

// virtualInbound is the listener of push g: by turns its chain leads elsewhere,
// it has another address beside, and another name.
func virtualInbound(t *testing.T, g int) *listenerv3.Listener {
	l := tcpListener(t, "virtualInbound", netip.MustParseAddrPort("0.0.0.0:15006"), []string{"a", "b"}[g%2])
	if g/4%2 == 1 {
		l.Name = "virtualInbound-again"
	}
	l.AdditionalAddresses = []*listenerv3.AdditionalAddress{{Address: socketAddress(netip.MustParseAddrPort("[::]:15006"))}}
	if g/2%2 == 1 {
		l.AdditionalAddresses = append(l.AdditionalAddresses, &listenerv3.AdditionalAddress{Address: socketAddress(netip.MustParseAddrPort("127.0.0.1:15007"))})
	}
	l.TrafficDirection = corev3.TrafficDirection_INBOUND
	l.UseOriginalDst = wrapperspb.Bool(true)
	l.ListenerFilters = []*listenerv3.ListenerFilter{{Name: "o", ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: pack(t, &originaldstv3.OriginalDst{})}}}
	return l
}

// pushed starts the sidecar with a control plane that sends its listeners, and
// clusters a (port 80 of the application) and b (83). push returns when what it
// sent is in force.
func (pod *pod) pushed() (cp *control.Server, p *proxy, push func(g int, ls ...types.Resource)) {
	t := pod.t
	pod.serve(80, 83)
	if err := pod.ns.Do(func() error { cp = control.StartServer(t, control.Hooks{}); return nil }); err != nil {
		t.Fatal(err)
	}
	update := func(g int, ls ...types.Resource) {
		cp.Update(t, control.Resources{Version: strconv.Itoa(g), Listeners: ls,
			Clusters:  []types.Resource{edsCluster("a"), edsCluster("b")},
			Endpoints: []types.Resource{assignment("a", netip.AddrPortFrom(pod.addr, 80)), assignment("b", netip.AddrPortFrom(pod.addr, 83))}})
	}
	update(0, virtualInbound(t, 0))
	p = startIn(t, pod.ns, strings.ReplaceAll(dynamic(cp.Addr(), "GRPC"), "port_value: 0}", "port_value: 9901}"), "--capture-inbound-ports", "all")
	p.await("the first listener serves", func() bool { return greeting(t, pod.outside, pod.at(7000)) == pod.proxied(80) })
	return cp, p, func(g int, ls ...types.Resource) {
		update(g, ls...)
		cp.Await(t, "push "+strconv.Itoa(g), func(r control.Request) bool {
			return r.TypeURL == resourcev3.ListenerType && r.Version == strconv.Itoa(g) && r.Error == nil
		})
	}
}

// An address whose socket options change gets other sockets, and the address may
// change itself: what is connected after the push is given to those. Meanwhile a
// handshake may be lost with the socket that it was with, but nothing is ever
// given to the application.
func TestInboundFollowsTheListenersSockets(t *testing.T) {
	inEachFamily(t, func(pod *pod) {
		_, p, push := pod.pushed()
		stop, lost := make(chan struct{}), 0
		var wg sync.WaitGroup
		wg.Go(func() {
			err := pod.outside.Do(func() error {
				for {
					select {
					case <-stop:
						return nil
					default:
					}
					switch got := quickGreeting(pod.at(80)); got {
					case pod.proxied(80):
					case pod.direct(80):
						return errors.New("the application was reached itself")
					default:
						lost++
					}
				}
			})
			if err != nil {
				pod.t.Error(err)
			}
		})
		for g := 1; g <= 30; g++ {
			l := virtualInbound(pod.t, 0)
			l.SocketOptions = []*corev3.SocketOption{{Level: syscall.IPPROTO_IP, Name: syscall.IP_TOS, Value: &corev3.SocketOption_IntValue{IntValue: int64(g % 3 * 8)}}}
			if g%4 == 0 {
				l.Address, l.AdditionalAddresses[0].Address = socketAddress(netip.MustParseAddrPort("127.0.0.1:15016")), socketAddress(netip.MustParseAddrPort("[::1]:15016"))
			}
			push(g, l)
			for range 20 {
				if got := greeting(pod.t, pod.outside, pod.at(7000)); got != pod.proxied(80) {
					pod.t.Fatalf("after push %d: greeted by %q", g, got)
				}
			}
		}
		close(stop)
		wg.Wait()
		pod.t.Logf("%d handshakes lost", lost)
		d := p.inbound().Inbound
		if n := d.Outcomes["inbound.passed_listener_gone"]; n != 0 || d.Swaps < 30 {
			pod.t.Errorf("%d swaps, %d connections found nobody", d.Swaps, n)
		}
	})
}

// With a cookie in every SYN's answer, the ACK is looked up anew: a swap between
// the two must not lead it elsewhere. PUSHES=1000 for more.
func TestInboundDuringPushesWithSYNCookies(t *testing.T) {
	pushes := 300
	if n, err := strconv.Atoi(os.Getenv("PUSHES")); err == nil {
		pushes = n
	}
	inEachFamily(t, func(pod *pod) { inboundPushes(pod, pushes) })
}

func inboundPushes(pod *pod, pushes int) {
	t := pod.t
	pod.sysctl("net.ipv4.tcp_syncookies", "2")
	cp, p, push := pod.pushed()
	swaps := p.inbound().Inbound.Swaps
	var (
		stop   = make(chan struct{})
		wg     sync.WaitGroup
		served [2]atomic.Int64
		mu     sync.Mutex
		failed []string
	)
	for i := range 3 {
		wg.Go(func() {
			err := pod.outside.Do(func() error {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return nil
					default:
					}
					switch got := quickGreeting(pod.at(uint16(7000 + i))); got {
					case pod.proxied(80):
						served[0].Add(1)
					case pod.proxied(83):
						served[1].Add(1)
					default:
						mu.Lock()
						failed = append(failed, fmt.Sprintf("client %d, connection %d: %s", i, n, got))
						mu.Unlock()
					}
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	for g := 1; g <= pushes; g++ {
		before := served[0].Load() + served[1].Load()
		l := virtualInbound(t, g)
		if g%3 == 1 { // a socket of the proxy's, which passes
			push(g, l, tcpListener(t, "own", netip.AddrPortFrom(pod.addr, 85), "a"))
		} else {
			push(g, l)
		}
		p.await("connections are served", func() bool { return served[0].Load()+served[1].Load() > before+3 })
	}
	close(stop)
	wg.Wait()
	d := p.inbound().Inbound
	total := served[0].Load() + served[1].Load()
	t.Logf("%d pushes, %d swaps, %d connections served (%d, %d), %d failed; %v", pushes, d.Swaps-swaps, total, served[0].Load(), served[1].Load(), len(failed), p.counted(nil))
	for _, r := range cp.Requests() {
		if r.Error != nil {
			t.Errorf("the proxy refused a push: %v", r)
		}
	}
	if len(failed) > 0 {
		t.Errorf("%d connections failed, as %q", len(failed), failed[:min(5, len(failed))])
	}
	if served[0].Load() == 0 || served[1].Load() == 0 || d.Swaps-swaps < uint64(pushes)/2 {
		t.Error("the pushes did not take effect")
	}
	if got := d.Outcomes["inbound.captured"]; got < 2*uint64(total) {
		t.Errorf("%d look-ups captured for %d connections: the ACKs did not come by", got, total)
	}
	for _, name := range []string{"passed_listener_gone", "not_assigned", "no_entry", "taken_by_another_program"} {
		if n := d.Outcomes["inbound."+name]; n != 0 {
			t.Errorf("%s: %d", name, n)
		}
	}
}

// quickGreeting is greeting on a thread that is in its namespace already.
func quickGreeting(addr string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[:n]))
}
