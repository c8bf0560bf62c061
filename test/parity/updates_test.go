package parity

// updates are the stories in which the control plane changes its mind.
var updates []scenario
