package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sluice-proxy/sluice/test/bench/peers"
)

// kind is a proxy that is compared.
type kind struct {
	name   string
	label  string
	sluice bool
	// needs is the tool that it is run by.
	needs  func(tools) string
	file   string // its configuration in peers
	splice bool   // HAProxy's
	env    []string
	args   func(t tools, v peers.Values, file string) []string
}

// kinds are all of them; direct is not one, as it has no process.
func kinds() []kind {
	haproxy := func(t tools, _ peers.Values, file string) []string {
		return []string{t.haproxy, "-db", "-f", file}
	}
	sluice := func(mode string) kind { return sluiceKind("sluice-", mode, func(t tools) string { return t.sluice }) }
	return []kind{
		{name: "haproxy", label: "HAProxy, splice off", file: "haproxy.cfg", needs: func(t tools) string { return t.haproxy }, args: haproxy},
		{name: "haproxy-splice", label: "HAProxy, splice on", file: "haproxy.cfg", splice: true, needs: func(t tools) string { return t.haproxy }, args: haproxy},
		{name: "nginx", label: "nginx stream", file: "nginx.conf", needs: func(t tools) string { return t.nginx },
			args: func(t tools, v peers.Values, file string) []string {
				return []string{t.nginx, "-p", v.Dir, "-e", "stderr", "-c", file}
			}},
		{name: "envoy", label: "Envoy", file: "envoy.yaml", needs: func(t tools) string { return t.envoy },
			args: func(t tools, v peers.Values, file string) []string {
				return []string{t.envoy, "-c", file, "--concurrency", fmt.Sprint(v.Workers), "-l", "error", "--disable-hot-restart"}
			}},
		{name: "go", label: "Go io.Copy", needs: func(t tools) string { return t.self },
			args: func(t tools, v peers.Values, _ string) []string {
				return []string{t.self, "copy", v.Listen.String(), v.Server.String()}
			}},
		sluice("auto"), sluice("always"), sluice("off"), ungrafted(),
	}
}

// ungrafted is Sluice without what goes further than the splice, whose rule then has
// every pair.
func ungrafted() kind {
	k := sluiceKind("sluice-", "splice", func(t tools) string { return t.sluice })
	k.label = "Sluice auto, no graft"
	k.args = func(t tools, v peers.Values, file string) []string {
		return []string{t.sluice, "-c", file, "--concurrency", fmt.Sprint(v.Workers), "-l", "warning", "--splice", "auto", "--graft", "off"}
	}
	return k
}

func sluiceKind(prefix, mode string, binary func(tools) string) kind {
	return kind{name: prefix + mode, label: "Sluice " + mode, sluice: true, file: "envoy.yaml", needs: binary,
		args: func(t tools, v peers.Values, file string) []string {
			return []string{binary(t), "-c", file, "--concurrency", fmt.Sprint(v.Workers), "-l", "warning", "--splice", mode}
		}}
}

// earlier are the same of another binary, to be told apart by their names.
func earlier(binary string) (k []kind) {
	for _, mode := range []string{"auto", "always", "off"} {
		k = append(k, sluiceKind("before-", mode, func(tools) string { return binary }))
	}
	return k
}

// proxy is one of them in a world.
type proxy struct {
	kind
	w               *world
	tools           tools
	address, server netip.AddrPort
	process         *process
}

// start returns when the proxy takes connections.
func (p *proxy) start(ctx context.Context) (err error) {
	dir := filepath.Join(p.w.dir, p.name)
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o755); err != nil {
		return fmt.Errorf("make directory of %s: %w", p.name, err)
	}
	v := peers.Values{Listen: p.address, Server: p.server, Workers: p.w.setting.CPUs, Dir: dir, Splice: p.splice, Module: p.tools.nginxModule}
	file := filepath.Join(dir, p.file)
	if p.file != "" {
		text, err := peers.Configuration(p.file, v)
		if err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write configuration of %s: %w", p.name, err)
		}
	}
	p.process, err = p.w.spawn.launch(p.name, dir, p.w.proxy, p.env, false, p.args(p.tools, v, file)...)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		c, err := p.w.client.ns.Dial(ctx, "tcp", p.address.String())
		if err == nil {
			c.Close()
			break
		}
		select {
		case <-p.process.ended:
			return fmt.Errorf("start %s: it ended: %s", p.name, p.process.tail())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("start %s: it does not listen on %s after 20 s: %s", p.name, p.address, p.process.tail())
		}
	}
	return p.process.settle()
}

// wake lets the proxy run; all others are stopped meanwhile, so that none of
// them disturbs. One that has ended is started anew.
func (p *proxy) wake(ctx context.Context) error {
	select {
	case <-p.process.ended:
		return p.start(ctx)
	default:
		p.process.signal(syscall.SIGCONT)
		return p.process.settle()
	}
}

func (p *proxy) sleep() { p.process.signal(syscall.SIGSTOP) }
