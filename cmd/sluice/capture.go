package main

import (
	"errors"
	"fmt"

	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/dataplane/route"
)

var errCaptureOff = errors.New("read --capture-ports, --capture-exclude, --capture-exclude-ports, --capture-accept-cgroup: they mean nothing without --capture-cgroup")

// capture reads the flags of capture; nil means that it is off.
func (o *options) capture() (*route.Options, error) {
	policy, err := route.ParsePolicy(o.capturePorts, o.captureExcludePorts, o.captureExclude)
	if err != nil {
		return nil, err
	}
	onExit, err := o.survival()
	if err != nil {
		return nil, err
	}
	if policy.WhenFull, err = route.ParseWhenFull(o.captureWhenFull); err != nil {
		return nil, fmt.Errorf("read --capture-when-full: %w", err)
	}
	if o.captureCgroup == "" {
		if o.capturePorts != "all" || o.captureExcludePorts != "" || o.captureExclude != "" || o.captureAcceptCgroup != "" {
			return nil, errCaptureOff
		}
		return nil, nil
	}
	if o.captureMaxRoutes == 0 || o.captureMaxRoutes > bpf.MaxRoutes {
		return nil, fmt.Errorf("read --capture-max-routes: %d is not from 1 to %d", o.captureMaxRoutes, bpf.MaxRoutes)
	}
	return &route.Options{
		Cgroup: o.captureCgroup, AcceptCgroup: o.captureAcceptCgroup, OnExit: onExit, Pin: o.capturePin,
		MaxRoutes: int(o.captureMaxRoutes), Policy: policy,
	}, nil
}

var errNothingToPin = errors.New("read --capture-pin, --on-exit: they mean nothing without --capture-cgroup or --capture-inbound-ports")

// survival reads what stays of capture when the process is gone.
func (o *options) survival() (bpf.OnExit, error) {
	onExit, err := bpf.ParseOnExit(o.onExit)
	switch {
	case err != nil:
		return 0, fmt.Errorf("read --on-exit: %w", err)
	case o.captureCgroup == "" && o.inboundPorts == "" && (o.capturePin != "" || onExit != bpf.ExitOpen):
		return 0, errNothingToPin
	case onExit != bpf.ExitOpen && o.capturePin == "":
		return 0, fmt.Errorf("read --on-exit: %s needs --capture-pin: %w", onExit, bpf.ErrNeedsPins)
	}
	return onExit, nil
}

var errInboundOff = errors.New("read --capture-inbound-exclude-ports: it means nothing without --capture-inbound-ports")

// inbound reads the flags of inbound capture; nil means that it is off.
func (o *options) inbound() (*route.InboundOptions, error) {
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
	onExit, err := o.survival()
	if err != nil {
		return nil, err
	}
	return &route.InboundOptions{InboundPolicy: policy, OnExit: onExit, Pin: o.capturePin}, nil
}
