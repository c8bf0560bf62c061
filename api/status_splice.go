package api

// SpliceStatus says whether the kernel path is in use, and if not, why.
type SpliceStatus struct {
	// Mode is the operator's: auto, always or off.
	Mode string
	// Available is false when every pair relays; Reason then says why.
	Available bool
	Reason    string
	// SelfTest are the steps of its test at start, in order.
	SelfTest []SelfTestStep
	Graft    GraftStatus
}

// GraftStatus says the same of the graft.
type GraftStatus struct {
	// Mode is the operator's: auto or off.
	Mode      string
	Available bool
	Reason    string
	// SelfTest are the steps of its test, which the first pair that could be grafted
	// asks for.
	SelfTest []SelfTestStep
}

// SelfTestStep is one step of a self-test.
type SelfTestStep struct {
	Name string
	// Result is ok, failed or skipped; Detail says why.
	Result, Detail string
}
