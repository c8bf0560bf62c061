package e2e

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// program starts a server from a package and waits until it listens.
func program(t *testing.T, at netip.AddrPort, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("needs %s: %v", name, err)
	}
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	(&proxy{t: t}).await(name+" listens", func() bool {
		c, err := net.Dial("tcp", at.String())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func TestRedisThroughTheProxy(t *testing.T) {
	redis, at := free(t), free(t)
	program(t, redis, "redis-server", "--port", fmt.Sprint(redis.Port()), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	p := start(t, sluice, static(at, redis, ""), nil)
	cli := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("redis-cli", append([]string{"-p", fmt.Sprint(at.Port())}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("redis-cli %v: %v\n%s", args, err, out)
		}
		return string(bytes.TrimSpace(out))
	}
	if got := cli("set", "key", "value"); got != "OK" {
		t.Errorf("set says %q", got)
	}
	if got := cli("get", "key"); got != "value" {
		t.Errorf("get says %q", got)
	}
	// A conversation of 200 commands on one connection.
	if got := cli("-r", "200", "incr", "n"); got[len(got)-3:] != "200" {
		t.Errorf("incr ended with %q", got)
	}
	if os.Geteuid() == 0 {
		if _, stats := p.get("/stats?filter=upstream_cx_total"); stats != "cluster.c.upstream_cx_total: 3\n" {
			t.Errorf("stats say %q, want three connections", stats)
		}
	}
}

func TestNginxThroughTheProxy(t *testing.T) {
	nginx, at := free(t), free(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 3<<20)
	rand.Read(want)
	config := fmt.Sprintf(`daemon off; error_log stderr crit; pid %[1]s/pid;
events {}
http { access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
server { listen %[2]v; root %[1]s/www; } }
`, dir, nginx)
	if os.Geteuid() == 0 {
		config = "user root;\n" + config
	}
	for name, content := range map[string][]byte{"nginx.conf": []byte(config), "www/file": want} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	program(t, nginx, "nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"))
	start(t, sluice, static(at, nginx, ""), nil)
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	for range 30 { // on one connection, kept alive
		r, err := client.Get("http://" + at.String() + "/file")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, %v, want %d as they are", len(got), err, len(want))
		}
	}
}
