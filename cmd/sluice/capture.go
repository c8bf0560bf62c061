package main

import (
	"errors"
	"fmt"

	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/dataplane/route"
)

var errCaptureOff = errors.New("read --capture-ports, --capture-exclude, --capture-exclude-ports, --capture-accept-cgroup, --capture-pin, --on-exit: they mean nothing without --capture-cgroup")

// capture reads the flags of capture; nil means that it is off.
func (o *options) capture() (*route.Options, error) {
	policy, err := route.ParsePolicy(o.capturePorts, o.captureExcludePorts, o.captureExclude)
	if err != nil {
		return nil, err
	}
	onExit, err := bpf.ParseOnExit(o.onExit)
	if err != nil {
		return nil, fmt.Errorf("read --on-exit: %w", err)
	}
	if policy.WhenFull, err = route.ParseWhenFull(o.captureWhenFull); err != nil {
		return nil, fmt.Errorf("read --capture-when-full: %w", err)
	}
	if o.captureCgroup == "" {
		if o.capturePin != "" || onExit != bpf.ExitOpen || o.capturePorts != "all" || o.captureExcludePorts != "" || o.captureExclude != "" || o.captureAcceptCgroup != "" {
			return nil, errCaptureOff
		}
		return nil, nil
	}
	if o.captureMaxRoutes == 0 || o.captureMaxRoutes > bpf.MaxRoutes {
		return nil, fmt.Errorf("read --capture-max-routes: %d is not from 1 to %d", o.captureMaxRoutes, bpf.MaxRoutes)
	}
	if onExit != bpf.ExitOpen && o.capturePin == "" {
		return nil, fmt.Errorf("read --on-exit: %s needs --capture-pin: %w", onExit, bpf.ErrNeedsPins)
	}
	return &route.Options{
		Cgroup: o.captureCgroup, AcceptCgroup: o.captureAcceptCgroup, OnExit: onExit, Pin: o.capturePin,
		MaxRoutes: int(o.captureMaxRoutes), Policy: policy,
	}, nil
}

var errInboundOff = errors.New("read --capture-inbound-exclude-ports: it means nothing without --capture-inbound-ports")

// inbound reads the flags of inbound capture; nil means that it is off.
func (o *options) inbound() (*route.InboundPolicy, error) {
	if o.inboundPorts == "" {
		if o.inboundExcludePorts != "" {
			return nil, errInboundOff
		}
		return nil, nil
	}
	policy, err := route.ParseInboundPolicy(o.inboundPorts, o.inboundExcludePorts)
	if err != nil {
		return nil, err
	}
	return &policy, nil
}
