package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/bpf"
)

// machine is a procfs of one's own.
func machine(t *testing.T, files map[string]string) *doctor {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &doctor{proc: dir, needs: map[bpf.Use]bool{}}
}

func (d *doctor) find(t *testing.T, name string) check {
	t.Helper()
	for _, c := range d.out {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("%s was not looked at", name)
	return check{}
}

func TestTheDoctorReadsCapabilities(t *testing.T) {
	const sysAdminAndNetAdmin = "Name:\tx\nCapEff:\t0000000000201000\n"
	for _, tt := range []struct {
		name, status string
		needs        bpf.Use
		want         map[string]verdict
	}{
		{"all", "CapEff:\t000001ffffffffff\n", bpf.UseCapture, map[string]verdict{"CAP_BPF": ok, "CAP_NET_ADMIN": ok, "CAP_PERFMON": ok, "CAP_NET_RAW": ok}},
		{"none for capture", "CapEff:\t0000000000000000\n", bpf.UseCapture, map[string]verdict{"CAP_BPF": fail, "CAP_NET_ADMIN": fail, "CAP_PERFMON": warn, "CAP_NET_RAW": warn}},
		{"none for the splice", "CapEff:\t0000000000000000\n", bpf.UseSplice, map[string]verdict{"CAP_BPF": fail, "CAP_NET_ADMIN": fail, "CAP_PERFMON": fail}},
		{"the older capability", sysAdminAndNetAdmin, bpf.UseSplice, map[string]verdict{"CAP_BPF": ok, "CAP_NET_ADMIN": ok, "CAP_PERFMON": ok, "CAP_NET_RAW": warn}},
		{"unreadable", "Name: x\n", bpf.UseSplice, map[string]verdict{"capabilities": warn}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := machine(t, map[string]string{"self/status": tt.status})
			d.needs[tt.needs] = true
			d.capabilities()
			for name, want := range tt.want {
				if got := d.find(t, name); got.Result != want || (want != ok && name != "capabilities") != (got.Do != "") {
					t.Errorf("%+v, want %s", got, want)
				}
			}
		})
	}
}

func TestTheDoctorReadsSettings(t *testing.T) {
	d := machine(t, map[string]string{
		"sys/net/core/bpf_jit_enable":          "0\n",
		"sys/net/core/somaxconn":               "128\n",
		"sys/net/ipv4/ip_local_port_range":     "32768\t33000\n",
		"sys/net/ipv4/tcp_rmem":                "4096\t131072\t262144\n",
		"sys/net/ipv4/tcp_wmem":                "4096\t16384\t4194304\n",
		"sys/net/ipv4/tcp_mem":                 "1 2 3\n",
		"sys/net/core/optmem_max":              "what\n",
		"sys/net/ipv4/tcp_migrate_req_ignored": "0\n",
	})
	d.sysctls()
	for name, want := range map[string]verdict{
		"net.core.bpf_jit_enable": warn, "net.core.somaxconn": warn, "net.ipv4.ip_local_port_range": warn, "net.ipv4.tcp_rmem": warn,
		"net.ipv4.tcp_wmem": ok, "net.ipv4.tcp_mem": warn, "net.core.optmem_max": warn, "net.ipv4.tcp_migrate_req": ok,
	} {
		if got := d.find(t, name); got.Result != want {
			t.Errorf("%+v, want %s", got, want)
		}
	}
	if got := d.find(t, "net.ipv4.ip_local_port_range"); !strings.Contains(got.Do, "233 now") {
		t.Errorf("says %q", got.Do)
	}
}

func TestAnUnfitMachineIsAnError(t *testing.T) {
	var text bytes.Buffer
	d := &diagnosis{Fit: false, Checks: []check{{"a", ok, "", ""}, {"b", fail, "not there", "make it"}}}
	if err := d.print(&text, false); !errors.Is(err, errUnfit) {
		t.Errorf("got %v", err)
	}
	if got, want := text.String(), "ok    a\nfail  b: not there\n      -> make it\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	text.Reset()
	if err := d.print(&text, true); !errors.Is(err, errUnfit) {
		t.Errorf("got %v", err)
	}
	var back diagnosis
	if err := json.Unmarshal(text.Bytes(), &back); err != nil || back.Fit || len(back.Checks) != 2 || back.Checks[1].Do != "make it" {
		t.Errorf("got %+v, %v of %s", back, err, text.String())
	}
	if err := (&diagnosis{Fit: true}).print(&text, false); err != nil {
		t.Errorf("a fit machine: %v", err)
	}
}
