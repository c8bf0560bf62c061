package dataplane

import (
	"reflect"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/tls"
	"github.com/sluice-proxy/sluice/dataplane/upstream"
)

// handshakes bounds those that compute at once, of each side: with more threads that
// want CPU all the time the loops would wait for their turn. Clients cannot take the
// hosts' turns away.
type handshakes struct{ servers, clients *tls.Limiter }

func newHandshakes(workers int) handshakes {
	n := max(1, workers/2)
	return handshakes{servers: tls.NewLimiter(n), clients: tls.NewLimiter(n)}
}

func (h handshakes) wait() {
	h.servers.Wait()
	h.clients.Wait()
}

// upstreamTLS is what clusters need for TLS.
func (p *Plane) upstreamTLS() *upstream.TLS {
	return &upstream.TLS{Secrets: p.secretsNow, Limiter: p.handshakes.clients, Log: p.log}
}

func (p *Plane) secretsNow() api.Secrets {
	if s := p.secrets.Load(); s != nil {
		return *s
	}
	return nil
}

// secretsInLocked puts the snapshot's secrets in force, for handshakes to come.
// Established connections are left alone, and nothing drains.
func (p *Plane) secretsInLocked(s *api.Snapshot) {
	if reflect.ValueOf(s.Secrets).Pointer() == reflect.ValueOf(p.secretsNow()).Pointer() {
		return
	}
	p.secrets.Store(&s.Secrets)
	for _, l := range p.listeners {
		for _, c := range l.chains {
			if c.TLS == nil {
				continue
			}
			if err := c.TLS.Update(s.Secrets); err != nil {
				p.log.Error("update TLS context", "listener", l.config.Name, "chain", c.Name, "error", err)
			}
		}
	}
	p.eachCluster(func(u *upstream.Cluster) { u.Refresh(s.Secrets) })
}
