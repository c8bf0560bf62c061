package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

// copyProxy is what one writes in Go in ten minutes: two goroutines a
// connection and io.Copy, which uses splice(2).
func copyProxy(listen, server string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for {
		down, err := l.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go copyBoth(down.(*net.TCPConn), server)
	}
}

func copyBoth(down *net.TCPConn, server string) {
	defer down.Close()
	c, err := net.Dial("tcp", server)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	up := c.(*net.TCPConn)
	defer up.Close()
	done := make(chan struct{})
	go func() {
		copyOne(up, down)
		close(done)
	}()
	copyOne(down, up)
	<-done
}

func copyOne(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		// A broken connection ends both: the client closes by RST.
		_ = to.SetLinger(0)
		to.Close()
		from.Close()
		return
	}
	_ = to.CloseWrite()
}
