package xds

import (
	"maps"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/xds/assemble"
	"github.com/sluice-proxy/sluice/xds/bootstrap"
)

// Dump is the configuration as the client knows it, for /config_dump.
type Dump struct {
	// Resources by type URL (listener, cluster, endpoint), sorted by name but for
	// listeners, which stand as they came, and for those of the bootstrap that no
	// traffic goes through, which come last.
	Resources map[string][]ResourceDump
	// VersionInfo is, by type URL, the version last accepted.
	VersionInfo map[string]string
}

// ResourceDump is one resource in its versions.
type ResourceDump struct {
	Name string
	// Static says that it came from the bootstrap.
	Static bool
	// Version and Updated belong to Active, or to Warming if nothing is active.
	Version string
	Updated time.Time
	// Active is in force, Warming waits for its endpoints; either may be nil.
	Active, Warming *anypb.Any
	// Failed is the last update that was rejected, nil if the last one was good.
	Failed *FailedUpdate
}

// FailedUpdate is an update that was rejected (envoy.admin.v3.UpdateFailureState).
type FailedUpdate struct {
	Attempted *anypb.Any
	Version   string
	At        time.Time
	Details   string
}

// Dump may be called at any time, from any goroutine.
func (c *Client) Dump() Dump {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return Dump{
		Resources: map[string][]ResourceDump{
			listenerURL:  dumps(c.model.Listeners()),
			clusterURL:   append(dumps(c.model.Clusters()), c.idle(c.o.Bootstrap.Reserved)...),
			endpointURL:  dumps(c.model.Endpoints()),
			extensionURL: dumps(c.model.Extensions()),
			secretURL:    c.secretDumps(),
		},
		VersionInfo: maps.Clone(c.versions),
	}
}

// secretDumps dates what did not come yet by the start.
func (c *Client) secretDumps() []ResourceDump {
	out := dumps(c.model.Secrets())
	for i := range out {
		if out[i].Updated.IsZero() {
			out[i].Updated = c.made
		}
	}
	return out
}

// idle shows static resources that are in the file and not in the model.
func (c *Client) idle(list []bootstrap.Idle) []ResourceDump {
	out := make([]ResourceDump, 0, len(list))
	for _, i := range list {
		out = append(out, ResourceDump{Name: i.Name, Static: true, Updated: c.made, Active: i.Any})
	}
	return out
}

func dumps(views []assemble.View) []ResourceDump {
	out := make([]ResourceDump, 0, len(views))
	for _, v := range views {
		d := ResourceDump{
			Name: v.Name, Static: v.Static, Version: v.Version, Updated: v.Updated,
			Active: v.Active, Warming: v.Warming,
		}
		if f := v.Failed; f != nil {
			d.Failed = &FailedUpdate{Attempted: f.Attempted, Version: f.Version, At: f.At, Details: f.Err.Error()}
		}
		out = append(out, d)
	}
	return out
}
