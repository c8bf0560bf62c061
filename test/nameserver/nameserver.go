// Package nameserver is a DNS server for tests, whose answers can be changed while
// it runs.
package nameserver

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Record is what the server says of a name.
type Record struct {
	Addrs []netip.Addr
	TTL   uint32
	// Code is the response code, if it is not success.
	Code int
	// Silent leaves questions without an answer.
	Silent bool
	// Delay is waited before an answer.
	Delay time.Duration
	// Cut says by UDP that the answer does not fit.
	Cut bool
}

// Server is one server, on UDP and TCP.
type Server struct {
	Addr netip.AddrPort

	mu    sync.Mutex
	names map[string]Record
	asked map[string]int
}

// Start runs a server on addr, port 0 for any, until the test ends.
func Start(t testing.TB, addr string) *Server {
	t.Helper()
	pc, l := both(t, addr)
	s := &Server{Addr: pc.LocalAddr().(*net.UDPAddr).AddrPort(), names: map[string]Record{}, asked: map[string]int{}}
	for _, one := range []*dns.Server{{PacketConn: pc, Handler: s}, {Listener: l, Handler: s}} {
		up := make(chan struct{})
		var wg sync.WaitGroup
		one.NotifyStartedFunc = func() { close(up) }
		wg.Go(func() { _ = one.ActivateAndServe() }) // ends with Shutdown
		<-up
		t.Cleanup(func() { _ = one.Shutdown(); wg.Wait() })
	}
	return s
}

// both listens by UDP and TCP on one port, which may be taken for one of them.
func both(t testing.TB, addr string) (net.PacketConn, net.Listener) {
	t.Helper()
	for tries := 0; ; tries++ {
		pc, err := net.ListenPacket("udp", addr)
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			return pc, l
		}
		pc.Close()
		if tries == 20 {
			t.Fatal(err)
		}
	}
}

// Set puts addresses, with a TTL of 0, in the place of what was said of name.
func (s *Server) Set(name string, addrs ...string) {
	r := Record{}
	for _, a := range addrs {
		r.Addrs = append(r.Addrs, netip.MustParseAddr(a))
	}
	s.Put(name, r)
}

// Put says r of name.
func (s *Server) Put(name string, r Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[dns.Fqdn(name)] = r
}

// Remove makes name unknown.
func (s *Server) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, dns.Fqdn(name))
}

// Asked is how many questions came for name.
func (s *Server) Asked(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[dns.Fqdn(name)]
}

// ServeDNS answers one question.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	one := q.Question[0]
	name := strings.ToLower(one.Name)
	s.mu.Lock()
	r, known := s.names[name]
	s.asked[name]++
	s.mu.Unlock()
	time.Sleep(r.Delay)
	a := new(dns.Msg).SetReply(q)
	switch {
	case !known:
		a.Rcode = dns.RcodeNameError
	case r.Silent:
		return
	case r.Cut && w.RemoteAddr().Network() == "udp":
		a.Truncated = true
	case r.Code != dns.RcodeSuccess:
		a.Rcode = r.Code
	default:
		for _, addr := range r.Addrs {
			h := dns.RR_Header{Name: one.Name, Class: dns.ClassINET, Ttl: r.TTL}
			switch {
			case addr.Is4() && one.Qtype == dns.TypeA:
				h.Rrtype = dns.TypeA
				a.Answer = append(a.Answer, &dns.A{Hdr: h, A: addr.AsSlice()})
			case addr.Is6() && one.Qtype == dns.TypeAAAA:
				h.Rrtype = dns.TypeAAAA
				a.Answer = append(a.Answer, &dns.AAAA{Hdr: h, AAAA: addr.AsSlice()})
			}
		}
	}
	_ = w.WriteMsg(a) // the client asks again
}
