package admin

import (
	"encoding/json"
	"time"

	"github.com/sluice-proxy/sluice/api"
)

// The JSON of /connections and /splice is Sluice's own: names are part of the
// interface, in the words of api.Connection.
type connectionJSON struct {
	ID         uint64 `json:"id"`
	Listener   string `json:"listener"`
	Chain      string `json:"chain"`
	Cluster    string `json:"cluster"`
	Generation uint64 `json:"generation"`
	AgeMS      int64  `json:"age_ms"`
	Worker     int    `json:"worker"`
	State      string `json:"state"`
	// why the pair is not grafted, where that was asked
	GraftRefused string        `json:"graft_refused,omitempty"`
	Downstream   endsJSON      `json:"downstream"`
	Upstream     endsJSON      `json:"upstream"`
	Request      directionJSON `json:"request"`
	Response     directionJSON `json:"response"`
}

type endsJSON struct {
	Remote string `json:"remote"`
	Local  string `json:"local"`
}

type directionJSON struct {
	Path         string `json:"path"`
	Reason       string `json:"reason"`
	Bytes        uint64 `json:"bytes"`
	RelayedBytes uint64 `json:"relayed_bytes"`
	PipedBytes   uint64 `json:"piped_bytes"`
	SplicedBytes uint64 `json:"spliced_bytes"`
	GraftedBytes uint64 `json:"grafted_bytes,omitempty"`
	Changes      uint64 `json:"changes"`
	Ended        bool   `json:"ended"`
}

func ends(remote, local interface {
	IsValid() bool
	String() string
}) endsJSON {
	var e endsJSON // an address that is not known yet is ""
	if remote.IsValid() {
		e.Remote = remote.String()
	}
	if local.IsValid() {
		e.Local = local.String()
	}
	return e
}

func direction(d api.DirectionStatus) directionJSON {
	return directionJSON{
		Path: d.Path.String(), Reason: d.Reason,
		Bytes: d.Bytes, RelayedBytes: d.Relayed, PipedBytes: d.Piped, SplicedBytes: d.Spliced, GraftedBytes: d.Grafted,
		Changes: d.Changes, Ended: d.Ended,
	}
}

func (s *Server) connections(a *answer, _ query) {
	out := []connectionJSON{} // no connection is [], not null
	for _, c := range s.o.Plane.Connections() {
		out = append(out, connectionJSON{
			ID: c.ID, Listener: c.Listener, Chain: c.Chain, Cluster: c.Cluster,
			Generation: c.Generation, AgeMS: int64(c.Age / time.Millisecond),
			Worker: c.Worker, State: c.State, GraftRefused: c.GraftRefused,
			Downstream: ends(c.DownstreamRemote, c.DownstreamLocal),
			Upstream:   ends(c.UpstreamRemote, c.UpstreamLocal),
			Request:    direction(c.Request), Response: direction(c.Response),
		})
	}
	writeValue(a, out)
}

type spliceJSON struct {
	Mode      string     `json:"mode"`
	Available bool       `json:"available"`
	Reason    string     `json:"reason"`
	SelfTest  []stepJSON `json:"self_test"`
	Graft     *graftJSON `json:"graft,omitempty"` // if the operator asked for it
}

type graftJSON struct {
	Mode      string     `json:"mode"`
	Available bool       `json:"available"`
	Reason    string     `json:"reason"`
	SelfTest  []stepJSON `json:"self_test"`
}

type stepJSON struct {
	Name   string `json:"name"`
	Result string `json:"result"`
	Detail string `json:"detail"`
}

func (s *Server) splice(a *answer, _ query) {
	st := s.o.Plane.Splice()
	out := spliceJSON{Mode: st.Mode, Available: st.Available, Reason: st.Reason, SelfTest: []stepJSON{}}
	for _, step := range st.SelfTest {
		out.SelfTest = append(out.SelfTest, stepJSON(step))
	}
	if g := st.Graft; g.Mode != "" && g.Mode != "off" {
		out.Graft = &graftJSON{Mode: g.Mode, Available: g.Available, Reason: g.Reason, SelfTest: []stepJSON{}}
		for _, step := range g.SelfTest {
			out.Graft.SelfTest = append(out.Graft.SelfTest, stepJSON(step))
		}
	}
	writeValue(a, out)
}

func writeValue(a *answer, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		a.fail(500, "write JSON: %v\n", err)
		return
	}
	writeJSON(a, b)
}
