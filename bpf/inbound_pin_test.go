package bpf

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The application listens all the time; whether what comes from outside reaches
// it while the proxy is gone is for the policy to say.
func TestPinnedInboundFollowsThePolicyUntilItIsTakenOver(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: loads BPF programs")
	}
	const app, refused = "app [::ffff:10.9.0.2]:80", "connection refused"
	for exit, want := range map[OnExit]string{ExitOpen: app, ExitClosed: refused, ExitKeep: app} {
		t.Run(exit.String(), func(t *testing.T) {
			w := newInboundWorld(t)
			if err := w.in.Close(); err != nil {
				t.Fatal(err)
			}
			pin := filepath.Join(bpffs(t), "pins")
			port := func(v Verdict, socket int) *InboundTable {
				return &InboundTable{Entries: []InboundEntry{{To: netip.AddrPortFrom(any4, 80), Verdict: v, Socket: socket}}}
			}
			options := InboundOptions{OnExit: exit, Pin: pin}
			if exit == ExitClosed {
				options.First = port(VerdictRefuse, 0)
			}
			begin := func(taken string) (in *Inbound) {
				t.Helper()
				if err := w.server.Do(func() (err error) { in, err = LoadInbound(options); return err }); err != nil {
					t.Fatal(err)
				}
				if !strings.HasPrefix(in.Taken(), taken) {
					t.Errorf("pins: %q, want %q", in.Taken(), taken)
				}
				w.in = in
				return in
			}
			answered := func(want string) {
				t.Helper()
				if got := word(w.dial(w.client, "", "10.9.0.2:80")); !strings.HasSuffix(got, want) {
					t.Errorf("answered by %q, want %q", got, want)
				}
			}
			serve := func() (stop func()) {
				t.Helper()
				s, stop := w.listen("proxy", "tcp4", "127.0.0.1:15006", 2)
				table := port(VerdictCapture, 0)
				table.Sockets = s[:1]
				w.swap(table)
				return stop
			}
			w.listen("app", "tcp", "[::]:80", 1)
			in := begin("no pins were there")
			if err := in.SetOwn(netip.MustParseAddr("10.9.0.2"), true); err != nil {
				t.Fatal(err)
			}
			answered(want)
			stop := serve()
			answered("proxy 10.9.0.2:80")
			status := func(alive bool) PinStatus {
				t.Helper()
				s, err := ReadPins(pin)
				if err != nil || len(s) != 1 || s[0].Part != partInbound || s[0].Alive != alive || s[0].OnExit != exit || s[0].Entries != 1 || len(s[0].Hooks) != 1 || !strings.HasPrefix(s[0].Hooks[0].At, "net:[") {
					t.Fatalf("status %+v, %v", s, err)
				}
				return s[0]
			}
			was := status(true)

			// Killed: its descriptors are closed.
			stop()
			in.onExit = ExitKeep
			if err := in.Close(); err != nil {
				t.Fatal(err)
			}
			answered(want)
			// From here the application is reached under every policy.
			if got := word(w.dial(w.server, "", "10.9.0.2:80")); got != app {
				t.Errorf("from the namespace itself: %q", got)
			}
			status(false)

			in = begin("taken over")
			if own, err := in.Own(); err != nil || len(own) != 1 || own[0] != netip.MustParseAddr("10.9.0.2") {
				t.Errorf("own addresses that were taken over: %v, %v", own, err)
			}
			answered(want)
			stop = serve()
			answered("proxy 10.9.0.2:80")
			if now := status(true); now.Hooks[0].LinkID != was.Hooks[0].LinkID {
				t.Errorf("another link than before: %+v, %+v", now, was)
			}
			stop()
			if err := in.Close(); err != nil {
				t.Fatal(err)
			}
			answered(want)
			if exit != ExitOpen {
				if err := ClearPins(pin); err != nil {
					t.Fatal(err)
				}
			}
			answered(app)
			if _, err := os.Lstat(pin); !os.IsNotExist(err) {
				t.Errorf("the directory of pins is left: %v", err)
			}
		})
	}
}
