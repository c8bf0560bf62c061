package transport

import (
	"context"
	"fmt"
	"net"
	"time"
)

const defaultConnectTimeout = 5 * time.Second

// wire is a connection that is ready for HTTP.
type wire struct {
	net.Conn
	to Endpoint
}

// connect makes one attempt at one endpoint.
func (p *peer) connect(ctx context.Context, _ string) (*wire, error) {
	to := p.next()
	d := net.Dialer{Timeout: p.timeout(), KeepAliveConfig: p.TCP}
	if !p.TCP.Enable {
		d.KeepAlive = -1 // Go's own default is on
	}
	network, address := "tcp", to.String()
	if to.Path != "" {
		network, address = "unix", to.Path
	} else if p.Source.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: p.Source.AsSlice()}
	}
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("connect to control plane: cluster %s: %w", p.Name, err)
	}
	return &wire{Conn: c, to: to}, nil
}

// next is the endpoint whose turn it is.
func (p *peer) next() Endpoint {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.Endpoints[p.turn%len(p.Endpoints)]
	p.turn++
	return e
}

func (p *peer) timeout() time.Duration {
	if p.ConnectTimeout == 0 {
		return defaultConnectTimeout
	}
	return p.ConnectTimeout
}
