package bpf

import (
	"fmt"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

const hookLookup = "sk_lookup"

var inboundHooks = []string{hookLookup}

func (in *Inbound) hook(ns *os.File) hook {
	return hook{
		name: hookLookup, program: in.objects.InboundLookup, at: in.netns,
		attach: func() (link.Link, error) {
			l, err := link.AttachNetNs(int(ns.Fd()), in.objects.InboundLookup)
			if err != nil {
				return nil, fmt.Errorf("attach sk_lookup to %s: %w", in.netns, err)
			}
			return l, nil
		},
		here: func(i *link.Info) bool {
			at := i.NetNs()
			return at != nil && fmt.Sprintf("net:[%d]", at.NetnsInode) == in.netns
		},
	}
}

// pinned are the maps that outlive the process. The sockets of listeners leave
// theirs with it.
func (in *Inbound) pinned() map[string]*ebpf.Map {
	m := &in.objects.inboundMaps
	return map[string]*ebpf.Map{
		inboundMapLife: m.Life, inboundMapListeners: m.Listeners, inboundMapOutcomes: m.Outcomes, inboundMapOwn: m.Own,
		inboundMapSetting: m.Setting, inboundMapTables: m.Tables,
	}
}

// loadInbound opens what the process before pinned.
func (p *pinDirectory) loadInbound() (*pinnedObjects, error) {
	spec, err := loadInbound()
	if err != nil {
		return nil, fmt.Errorf("read inbound object: %w", err)
	}
	return p.load(spec.Maps, inboundHooks, func(maps map[string]*ebpf.Map) error {
		var was inboundSettings
		if err := maps[inboundMapSetting].Lookup(uint32(0), &was); err != nil {
			return fmt.Errorf("read settings: %w", err)
		}
		if was.Layout != pinLayout {
			return fmt.Errorf("layout %d, not %d", was.Layout, pinLayout)
		}
		return nil
	})
}
