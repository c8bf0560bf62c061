package dataplane

import (
	"context"
	"net"
	"reflect"
	"sync"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/health"
	"github.com/sluice-proxy/sluice/dataplane/tls"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// checkDialer opens the connections of one cluster's active checks, over TLS where
// its transport sockets are.
type checkDialer struct {
	plane *Plane
	stats *tls.Stats // nil: nothing is TLS

	mu      sync.Mutex
	clients map[*api.UpstreamTLS]*tls.Client
	secrets api.Secrets // that the clients have
}

func (p *Plane) newCheckDialer(c *api.Cluster) health.Dialer {
	d := &checkDialer{plane: p, clients: map[*api.UpstreamTLS]*tls.Client{}}
	encrypted := c.Socket.TLS != nil
	for i := range c.SocketMatches {
		encrypted = encrypted || c.SocketMatches[i].Socket.TLS != nil
	}
	if encrypted {
		d.stats = tls.NewClientStats(p.stats, c.StatName())
	}
	return d
}

// Dial connects, and makes the handshake if there is one.
func (d *checkDialer) Dial(ctx context.Context, t health.Target) (net.Conn, error) {
	// Checks come often enough to need no keep-alive.
	dialer := net.Dialer{KeepAlive: -time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", t.Endpoint.CheckAddr().String())
	if err != nil || d.stats == nil {
		return conn, err
	}
	socket := upstream.SocketOf(t.Cluster, t.Check.SocketMatch, t.Endpoint)
	if socket.TLS == nil {
		return conn, nil
	}
	secured, err := d.client(socket.TLS).Over(ctx, conn, t.Endpoint.Hostname, t.Check.ALPN...)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return secured, nil
}

// client is the one of a configuration, with the secrets in force.
func (d *checkDialer) client(c *api.UpstreamTLS) *tls.Client {
	d.mu.Lock()
	defer d.mu.Unlock()
	secrets := d.plane.secretsNow()
	if reflect.ValueOf(secrets).Pointer() != reflect.ValueOf(d.secrets).Pointer() {
		d.secrets = secrets
		for _, have := range d.clients {
			d.told(have.Update(secrets))
		}
	}
	have := d.clients[c]
	if have == nil {
		var err error
		have, err = tls.NewClient(c, secrets, d.stats, d.plane.handshakes.clients)
		d.told(err)
		d.clients[c] = have
	}
	return have
}

func (d *checkDialer) told(err error) {
	if err != nil {
		d.plane.log.Error("make TLS context of health checks", "error", err)
	}
}

// Close forgets the figures.
func (d *checkDialer) Close() {
	if d.stats != nil {
		d.stats.Release()
	}
}
