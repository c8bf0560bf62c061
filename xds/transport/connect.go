package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

const defaultConnectTimeout = 5 * time.Second

// errNoEndpoint is Envoy's text for a cluster that has none.
var errNoEndpoint = errors.New("no healthy upstream")

// target is an endpoint with its address.
type target struct {
	Endpoint
	host string // that the address was resolved from
}

// wire is a connection that is ready for HTTP.
type wire struct {
	net.Conn
	to      target
	secured bool
}

// connect makes one attempt at one endpoint: of a name, at its addresses until one
// answers. alpn is what will be spoken.
func (p *peer) connect(ctx context.Context, alpn string) (*wire, error) {
	all, err := p.next(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to control plane: cluster %s: %w", p.Name, err)
	}
	var c net.Conn
	var to target
	for _, to = range all {
		if c, err = p.dial(ctx, to); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("connect to control plane: cluster %s: %w", p.Name, err)
	}
	if p.TLS == nil {
		return &wire{Conn: c, to: to}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout())
	defer cancel()
	s, err := p.TLS.secure(ctx, c, to.host, alpn)
	if err != nil {
		_ = c.Close() // the error that counts is err
		return nil, fmt.Errorf("connect to control plane: cluster %s: %w with %s: %w", p.Name, ErrTLS, to, err)
	}
	return &wire{Conn: alerting{s}, to: to, secured: true}, nil
}

func (p *peer) dial(ctx context.Context, to target) (net.Conn, error) {
	d := net.Dialer{Timeout: p.timeout(), KeepAliveConfig: p.TCP}
	if !p.TCP.Enable {
		d.KeepAlive = -1 // Go's own default is on
	}
	if to.Path != "" {
		return d.DialContext(ctx, "unix", to.Path)
	}
	if p.Source.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: p.Source.AsSlice()}
	}
	return d.DialContext(ctx, "tcp", to.String())
}

// next is whose turn it is, and behind it the other addresses of its name: where
// that has one of each family, often nobody listens at one of them (localhost).
func (p *peer) next(ctx context.Context) ([]target, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all, err := p.candidates(ctx)
	if err != nil {
		return nil, err
	}
	n := p.turn % len(all)
	p.turn++
	out := []target{all[n]}
	for i, t := range all {
		if i != n && t.host != "" && t.host == all[n].host && t.Addr.Port() == all[n].Addr.Port() {
			out = append(out, t)
		}
	}
	return out, nil
}

func (p *peer) timeout() time.Duration {
	if p.ConnectTimeout == 0 {
		return defaultConnectTimeout
	}
	return p.ConnectTimeout
}
