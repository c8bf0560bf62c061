package selftest

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/pair"
)

// graftSteps are those of the graft.
var graftSteps = [...]step{
	{"graft", graftExchange},
	{"graft-bulk", graftBulk},
	{"graft-reset", graftReset},
	{"graft-kill", graftKill},
}

// joined grafts the pair and waits until its sockets hold nothing.
func (r *rig) joined() error {
	if err := r.exchange("before"); err != nil {
		return err
	}
	var c api.Connection
	r.worker.Do(func() { r.pair.Force(0, api.PathGraft); r.pair.Status(&c) })
	if c.GraftRefused != "" {
		return fmt.Errorf("refused: %s", c.GraftRefused)
	}
	if err := r.onPath(api.PathGraft); err != nil {
		return err
	}
	if err := r.exchange("while it drains"); err != nil {
		return err
	}
	frozen := false
	for deadline := time.Now().Add(patience); !frozen; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("its sockets did not come to rest")
		}
		r.worker.Do(func() { frozen = r.pair.Frozen() })
	}
	return r.exchange("at rest")
}

func graftExchange(r *rig) error {
	if err := r.joined(); err != nil {
		return err
	}
	return fin(r)
}

func graftBulk(r *rig) error {
	if err := r.joined(); err != nil {
		return err
	}
	return stall(r)
}

func graftReset(r *rig) error {
	if err := r.joined(); err != nil {
		return err
	}
	r.client.SetLinger(0)
	r.client.Close()
	if _, err := r.server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("after the client's RST: %w", orEOF(err))
	}
	return r.ends(pair.DownstreamReset)
}

// graftKill has the proxy end the pair, by sockets that do not know where their
// streams are.
func graftKill(r *rig) error {
	if err := r.joined(); err != nil {
		return err
	}
	r.worker.Do(r.pair.Kill)
	if _, err := r.server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("server of a killed pair: %w", orEOF(err))
	}
	if _, err := r.client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("client of a killed pair: %w", orEOF(err))
	}
	return r.ends(pair.Killed)
}

func orEOF(err error) error {
	if err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}
