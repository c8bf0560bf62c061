package filter

// needWalk is the connection's walk, made if there is none.
func (c *Connection) needWalk() *walk {
	if c.walk == nil {
		c.walk = &walk{}
	}
	return c.walk
}

// watchTCP begins to keep the figures of the client's TCP, if the chain has them kept.
func (c *Connection) watchTCP() {
	if c.chain.TCP != nil {
		w := c.chain.TCP.Watch(c.Core.Worker, c.FD)
		w.Every(c.chain.TCPPeriod)
		c.needWalk().tcp = w
	}
}

// lookAtTCP comes before a close that the worker is not told of.
func (c *Connection) lookAtTCP() {
	if c.walk != nil {
		c.walk.tcp.Look()
	}
}

func (c *Connection) unwatchTCP() {
	if c.walk != nil {
		c.walk.tcp.End()
		c.walk.tcp = nil
	}
}
