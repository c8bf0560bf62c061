package upstream

import (
	"maps"
	"slices"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/dnscache"
)

// named is a host that connections call by a name.
type named struct {
	host *Host
	name *dnscache.Name
}

// The ports of names that have none.
const (
	plainPort  = 80
	securePort = 443
)

// ChooseNamed is Choose for a cluster whose hosts are the names that its connections
// bring; an empty name is that of a connection that has none. A name that is not known
// is looked up, for those that come later: nobody waits here, as with Envoy's TCP.
func (u *Cluster) ChooseNamed(name string, port uint16, worker int) Choice {
	v := u.view.Load()
	if v.resources.full() {
		return u.overflow()
	}
	c, loading := u.named(v, name, port, worker)
	if c.Host == nil && !loading { // Envoy does not count one that may be there soon
		u.none()
	}
	return c
}

func (u *Cluster) named(v *view, name string, port uint16, worker int) (c Choice, loading bool) {
	if port == 0 {
		port = plainPort
		if v.sockets.secure() {
			port = securePort
		}
	}
	key := dnscache.Key(name, port)
	if n, ok := v.byName[key]; ok && n.host.Flags().Coarse() != api.HealthUnhealthy {
		n.name.Touch()
		return Choice{Host: n.host, view: v, worker: worker}, false
	}
	if v.cache != nil && key != "" && v.cache.Enter() {
		found, _ := v.cache.Load(name, port, nil, nil)
		v.cache.Leave()
		loading = found == dnscache.Loading
	}
	return Choice{err: ErrNoHealthyHost}, loading
}

// secure says whether a host of which nothing is known is spoken to by TLS.
func (s *sockets) secure() bool {
	return s != nil && s.find(&api.Endpoint{}, &api.Locality{}) != nil
}

// takeCache has the cluster use the cache that c names. It returns what begins to
// follow it, to be called when c is in force.
func (u *Cluster) takeCache(c *api.Cluster) (follow func()) {
	var next *dnscache.Cache
	if c.ByName != nil && c.ByName.Cache != nil && u.watch.Names != nil {
		next = u.watch.Names.Use(c.ByName.Cache)
	}
	if next == u.cache {
		if next != nil {
			next.Release() // it is used once already
		}
		return func() {}
	}
	u.dropCache()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.cache, u.names = next, nil
	return func() {
		if next != nil {
			u.unfollow = next.Watch(u.renamed)
		}
	}
}

func (u *Cluster) dropCache() {
	if u.cache != nil {
		u.unfollow()
		u.cache.Release()
	}
}

// renamed is told of names that have other addresses, or are gone.
func (u *Cluster) renamed(names map[string]*dnscache.Name) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.names == nil {
		u.names = map[string]*dnscache.Name{}
	}
	for key, n := range names {
		if n == nil {
			delete(u.names, key)
		} else {
			u.names[key] = n
		}
	}
	u.updateLocked(u.Config(), nil)
}

// withNamesLocked is c with the hosts of its cache.
func (u *Cluster) withNamesLocked(c *api.Cluster) *api.Cluster {
	if c.ByName == nil {
		return c
	}
	cp, as := *c, *c.Assignment
	l := api.Locality{Endpoints: make([]api.Endpoint, 0, len(u.names))}
	for _, key := range slices.Sorted(maps.Keys(u.names)) {
		addrs := u.names[key].Addrs
		l.Endpoints = append(l.Endpoints, api.Endpoint{Addr: addrs[0], Additional: addrs[1:], Hostname: key, Weight: 1})
	}
	as.Localities, cp.Assignment = []api.Locality{l}, &as
	return &cp
}

// nameLocked puts into v what its connections may call its hosts.
func (u *Cluster) nameLocked(v *view) {
	if v.config.ByName == nil {
		return
	}
	v.cache, v.byName = u.cache, make(map[string]named, len(u.names))
	for key, n := range u.names {
		v.byName[key] = named{u.hosts[hostKey{name: key}], n}
	}
}
