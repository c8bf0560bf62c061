package resolve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/sluice-proxy/sluice/api"
)

// What c-ares reads.
const (
	resolvConf = "/etc/resolv.conf"
	hostsFile  = "/etc/hosts"
)

// errServers says that nobody can be asked.
var errServers = errors.New("no DNS server")

// servers asks DNS servers as c-ares does: /etc/hosts first, then each server in
// turn, all of them again with twice the patience, for each name of the search
// list.
type servers struct {
	api.Resolver
	conf, hosts string // files, which are read for each question
	turn        atomic.Uint32
}

func newServers(c api.Resolver) *servers {
	if c.Timeout == 0 {
		c.Timeout = api.DefaultDNSQueryTimeout
	}
	if c.Tries == 0 {
		c.Tries = api.DefaultDNSQueryTries
	}
	return &servers{Resolver: c, conf: resolvConf, hosts: hostsFile}
}

func (s *servers) addresses(ctx context.Context, name string, six bool) ([]Address, error) {
	if local(name) {
		if six {
			return []Address{{Addr: netip.IPv6Loopback()}}, nil
		}
		return []Address{{Addr: netip.AddrFrom4([4]byte{127, 0, 0, 1})}}, nil
	}
	if found := inHosts(s.hosts, name, six); len(found) > 0 {
		return found, nil
	}
	conf, err := dns.ClientConfigFromFile(s.conf)
	if err != nil {
		conf = &dns.ClientConfig{Ndots: 1, Port: "53"}
	}
	asked := s.order(conf)
	if len(asked) == 0 {
		return nil, errServers
	}
	names := []string{dns.Fqdn(name)}
	if !s.NoSearch {
		names = conf.NameList(name)
	}
	for _, n := range names {
		found, err := s.ask(ctx, asked, n, six)
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			return found, nil
		}
	}
	return nil, nil
}

// local: RFC 6761, 6.3.
func local(name string) bool {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

func (s *servers) order(conf *dns.ClientConfig) []string {
	var own, system []string
	for _, a := range s.Servers {
		own = append(own, a.String())
	}
	for _, a := range conf.Servers {
		system = append(system, net.JoinHostPort(a, conf.Port))
	}
	out := own
	switch {
	case len(own) == 0:
		out = system
	case s.Fallback && len(system) > 0:
		out = system
	}
	if n := len(out); s.Rotate && n > 1 {
		at := int(s.turn.Add(1)) % n
		out = append(append([]string(nil), out[at:]...), out[:at]...)
	}
	return out
}

// ask asks one question until a server gives an answer.
func (s *servers) ask(ctx context.Context, asked []string, name string, six bool) ([]Address, error) {
	kind := dns.TypeA
	if six {
		kind = dns.TypeAAAA
	}
	q := new(dns.Msg).SetQuestion(name, kind)
	if s.Payload > 0 {
		q.SetEdns0(s.Payload, false)
	}
	var failed error
	late := 0
	wait := s.Timeout
	for range s.Tries {
		for _, server := range asked {
			a, err := s.exchange(ctx, q, server, wait)
			switch {
			case ctx.Err() != nil:
				return nil, fmt.Errorf("ask %s for %s: %w", server, name, ctx.Err())
			case err != nil:
				failed = fmt.Errorf("ask %s for %s: %w", server, name, err)
				if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
					late++
					failed = &timedOut{failed, late}
				}
			case a.Rcode == dns.RcodeSuccess || a.Rcode == dns.RcodeNameError:
				return addresses(a, kind), nil
			default:
				// Another server may know more; to ask this one again helps nobody.
				failed = refusal{server, name, dns.RcodeToString[a.Rcode]}
			}
		}
		if errors.As(failed, new(refusal)) {
			break
		}
		wait *= 2
	}
	return nil, failed
}

type refusal struct{ server, name, code string }

func (r refusal) Error() string { return fmt.Sprintf("ask %s for %s: %s", r.server, r.name, r.code) }

// exchange asks by UDP, and by TCP if the answer did not fit.
func (s *servers) exchange(ctx context.Context, q *dns.Msg, server string, wait time.Duration) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	c := dns.Client{Timeout: wait}
	if s.TCP {
		c.Net = "tcp"
	}
	q = q.Copy()
	q.Id = dns.Id()
	a, _, err := c.ExchangeContext(ctx, q, server)
	if err == nil && a.Truncated && !s.TCP {
		c.Net = "tcp"
		a, _, err = c.ExchangeContext(ctx, q, server)
	}
	return a, err
}

// addresses are those of an answer, whatever names lie between.
func addresses(a *dns.Msg, kind uint16) []Address {
	var out []Address
	for _, rr := range a.Answer {
		h := rr.Header()
		if h.Rrtype != kind {
			continue
		}
		var ip netip.Addr
		switch v := rr.(type) {
		case *dns.A:
			ip, _ = netip.AddrFromSlice(v.A.To4())
		case *dns.AAAA:
			ip, _ = netip.AddrFromSlice(v.AAAA)
		}
		if ip.IsValid() {
			out = append(out, Address{Addr: ip, TTL: time.Duration(h.Ttl) * time.Second})
		}
	}
	return out
}
