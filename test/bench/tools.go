package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// tools are the programs that are compared; empty if one is not to be had.
type tools struct {
	self, sluice, haproxy, nginx, nginxModule, envoy string
}

// findTools looks for what test/bench/install.sh puts in place.
func findTools(sluice, dir string) (t tools, versions map[string]string, err error) {
	if t.self, err = os.Executable(); err != nil {
		return t, nil, fmt.Errorf("find this program: %w", err)
	}
	if t.sluice, err = filepath.Abs(sluice); err != nil {
		return t, nil, fmt.Errorf("find sluice: %w", err)
	}
	if _, err := os.Stat(t.sluice); err != nil {
		return t, nil, fmt.Errorf("find sluice: %w", err)
	}
	t.haproxy = find("haproxy", "/usr/sbin/haproxy")
	t.nginx = find("nginx", "/usr/sbin/nginx")
	if m := "/usr/lib/nginx/modules/ngx_stream_module.so"; exists(m) {
		t.nginxModule = m
	}
	t.envoy = find(os.Getenv("SLUICE_ENVOY"), filepath.Join(dir, "envoy/envoy/_bin/envoy"), "/opt/envoy/envoy/_bin/envoy")
	versions = map[string]string{}
	for name, argv := range map[string][]string{
		"haproxy": {t.haproxy, "-v"}, "nginx": {t.nginx, "-v"}, "envoy": {t.envoy, "--version"}, "go": {"go", "version"},
		"kernel": {"uname", "-r"}, "sluice": {"git", "-C", filepath.Dir(t.sluice), "log", "-1", "--format=%h"},
	} {
		if argv[0] == "" {
			continue
		}
		out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
		if err != nil {
			continue // the version is for the reader only
		}
		line, _, _ := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
		versions[name] = strings.Join(strings.Fields(string(line)), " ")
	}
	return t, versions, nil
}

func find(candidates ...string) string {
	for _, c := range candidates {
		if c == "" {
			continue
		}
		if p, err := exec.LookPath(c); err == nil {
			if p, err = filepath.Abs(p); err == nil {
				return p
			}
		}
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
