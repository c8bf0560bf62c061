package main

import (
	"errors"

	"github.com/sluice-proxy/sluice/dataplane/route"
)

var errCaptureOff = errors.New("read --capture-ports, --capture-exclude, --capture-exclude-ports, --capture-accept-cgroup: they mean nothing without --capture-cgroup")

// capture reads the flags of capture; nil means that it is off.
func (o *options) capture() (*route.Options, error) {
	policy, err := route.ParsePolicy(o.capturePorts, o.captureExcludePorts, o.captureExclude)
	if err != nil {
		return nil, err
	}
	if o.captureCgroup == "" {
		if o.capturePorts != "all" || o.captureExcludePorts != "" || o.captureExclude != "" || o.captureAcceptCgroup != "" {
			return nil, errCaptureOff
		}
		return nil, nil
	}
	return &route.Options{Cgroup: o.captureCgroup, AcceptCgroup: o.captureAcceptCgroup, Policy: policy}, nil
}
