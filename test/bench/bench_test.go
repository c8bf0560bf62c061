package main

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/test/bench/load"
	"github.com/sluice-proxy/sluice/test/bench/peers"
)

// The test binary is the benchmark's as well: its load processes are.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{"serve", "load", "copy", "forward"}, os.Args[1]) {
		main()
		return
	}
	os.Exit(m.Run())
}

// made is a cell in which each proxy made so many thousand operations a second,
// round by round.
func made(c Cell, k map[string][]float64) *Measured {
	m := &Measured{Cell: c}
	for name, v := range k {
		for round, n := range v {
			m.Runs = append(m.Runs, Run{Proxy: name, Round: round, PerSecond: n * 1e3, P50: 1e9 / n, P99: 1e9 / n, MachineCPU: 1e9 / n})
		}
	}
	return m
}

var pingPong = Cell{Setting{loopback, 2}, load.Requests, 64, 1}

func TestRatiosAreOfTheSameRound(t *testing.T) {
	m := made(pingPong, map[string][]float64{direct: {100, 10, 50}, "envoy": {50, 5, 25}})
	if got, ok := m.ratio("envoy", direct, perSecond); !ok || got != 0.5 {
		t.Errorf("ratio %v, %v; want 0.5: what slowed a round slowed both", got, ok)
	}
	m.Runs = append(m.Runs, Run{Proxy: "nginx", Round: 0, Error: "it broke"})
	if _, ok := m.ratio("nginx", direct, perSecond); ok {
		t.Error("a run that failed has a ratio")
	}
	if got := m.best(perSecond, false); got != "envoy" {
		t.Errorf("best peer %q, want envoy", got)
	}
}

func TestUnfairRunsAreVoid(t *testing.T) {
	fair := map[string][]float64{direct: {88}, "haproxy": {36}, "haproxy-splice": {36}, "nginx": {31}, "envoy": {26}, "go": {32}}
	if why := made(pingPong, fair).unfair(); len(why) > 0 {
		t.Errorf("the table's own figures are void: %v", why)
	}
	fair["envoy"] = []float64{25} // 0.28 of direct; 0.9 * 28/88 = 0.286
	why := made(pingPong, fair).unfair()
	if len(why) != 1 || !strings.Contains(why[0], "Envoy") {
		t.Errorf("got %q, want Envoy named", why)
	}
	if why := made(pingPong, map[string][]float64{direct: {30}, "haproxy": {36}, "haproxy-splice": {30}, "nginx": {31}, "envoy": {26}, "go": {30}}).unfair(); len(why) != 1 || !strings.Contains(why[0], "disturbed") {
		t.Errorf("a peer is faster than direct, and got %q", why)
	}
	other := pingPong
	other.Setting = Setting{namespaces, 2}
	if why := made(other, fair).unfair(); len(why) > 0 {
		t.Errorf("the table does not know of %v: %v", other.Setting, why)
	}
}

func TestGoalsCanBeMetAndMissed(t *testing.T) {
	verdicts := func(own float64) (met, short []string) {
		m := made(pingPong, map[string][]float64{direct: {88}, "haproxy": {40}, "nginx": {45}, "envoy": {30}, judged: {own}, "sluice-always": {own}})
		for _, g := range goals() {
			if !g.cells(m.Cell) || strings.HasPrefix(g.what, "system calls") {
				continue
			}
			if shown, v := g.verdict(m); v == "met" {
				met = append(met, g.what+": "+shown)
			} else {
				short = append(short, g.what+": "+shown)
			}
		}
		return met, short
	}
	if met, short := verdicts(60); len(short) > 0 || len(met) != 5 {
		t.Errorf("60 k against 45 k: short %q, met %q", short, met)
	}
	if met, short := verdicts(40); len(met) > 0 || len(short) != 5 {
		t.Errorf("40 k against 45 k: met %q, short %q", met, short)
	}
	busy := &Measured{Cell: pingPong, Runs: []Run{{Proxy: "sluice-always", PerSecond: 1, SystemCalls: 0.01}}}
	if _, met := idle(busy); met {
		t.Error("one system call in 200 messages passes for less than one in 1000")
	}
	busy.Void = []string{"unfair"}
	if _, v := goals()[0].verdict(busy); v != "void" {
		t.Errorf("verdict of a void cell: %s", v)
	}
}

func TestPlansHoldEveryCellOnceAndFitTheirTime(t *testing.T) {
	for p, most := range map[*plan]time.Duration{new(quickPlan()): 6 * time.Minute, new(defaultPlan()): time.Hour, new(fullPlan()): 3 * time.Hour} {
		seen := map[string]bool{}
		for _, c := range p.Cells {
			if seen[c.String()] {
				t.Errorf("%s: %s twice", p.Name, c)
			}
			seen[c.String()] = true
		}
		if d := p.duration(len(kinds())); d > most {
			t.Errorf("%s takes %v, more than %v", p.Name, d, most)
		}
	}
	if n := len(fullPlan().Cells); n != 4*(16+4+1) {
		t.Errorf("FULL has %d cells", n)
	}
}

func TestReportNamesWhatIsVoidAndWhatFailed(t *testing.T) {
	m := made(pingPong, map[string][]float64{direct: {88, 80}, "haproxy": {40, 41}, judged: {60, 61}})
	m.Runs = append(m.Runs, Run{Proxy: "go", Error: "it | broke"})
	m.Void = []string{"HAProxy had no chance"}
	r := &Result{Plan: quickPlan(), Cells: []Measured{*m}, Versions: map[string]string{}}
	text := r.markdown()
	for _, want := range []string{"**Void:** HAProxy had no chance.", "| Go io.Copy | failed: it / broke |", "1 of 11 cells", "| HAProxy, splice off | 40.5 k (40.0 k to 41.0 k) | 0.48 | 1.00 |"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if svg := r.pictures()["requests.svg"]; !strings.Contains(svg, "failed") || !strings.Contains(svg, "(void)") {
		t.Error("the picture hides what is void or failed")
	}
}

func TestReadmeIsRewrittenBetweenItsMarks(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "README.md")
	if err := os.WriteFile(path, []byte("head\n"+readmeBegin+"\nold\n"+readmeEnd+"\ntail\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := readme(path, dir); err == nil {
		t.Error("a README was written without results")
	}
	m := made(pingPong, map[string][]float64{direct: {88}, "nginx": {40}, judged: {60}})
	if err := (&Result{Cells: []Measured{*m}, Versions: map[string]string{}}).save(filepath.Join(dir, "results.json")); err != nil {
		t.Fatal(err)
	}
	if err := readme(path, dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"head\n", "| 88.0 |", "| 1.50, nginx stream |", "requests.svg", "\ntail\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the README lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "old") || strings.Contains(string(text), "bulk.svg") {
		t.Errorf("the README has what it should not:\n%s", text)
	}
	if err := os.WriteFile(path, []byte("no marks"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := readme(path, dir); err == nil {
		t.Error("a README without marks was written")
	}
}

func TestResultsAreResumed(t *testing.T) {
	dir := t.TempDir()
	b := &bench{out: dir}
	old := &Result{Key: "a", Cells: []Measured{{Cell: pingPong}}}
	if err := old.save(b.statePath()); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]int{"a": 1, "b": 0} {
		r := &Result{Key: key}
		if err := b.resume(r); err != nil || len(r.Cells) != want {
			t.Errorf("key %s: %d cells resumed, error %v, want %d", key, len(r.Cells), err, want)
		}
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

func addrOf(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
}

// The peers' own checks take their configurations.
func TestConfigurationsAreValid(t *testing.T) {
	tl, _, err := findTools(os.Args[0], t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	check := map[string]func(file, dir string) []string{
		"haproxy.cfg": func(f, _ string) []string { return []string{tl.haproxy, "-c", "-f", f} },
		"nginx.conf":  func(f, d string) []string { return []string{tl.nginx, "-t", "-p", d, "-e", "stderr", "-c", f} },
		"envoy.yaml":  func(f, _ string) []string { return []string{tl.envoy, "--mode", "validate", "-c", f} },
	}
	for file, argv := range check {
		for _, splice := range []bool{false, true} {
			dir := t.TempDir()
			text, err := peers.Configuration(file, peers.Values{Listen: addrOf(1), Server: addrOf(2), Workers: 2, Dir: dir, Splice: splice, Module: tl.nginxModule})
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, file)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := argv(path, dir)
			if cmd[0] == "" {
				t.Logf("%s: its proxy is not installed", file)
				continue
			}
			if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s", file, err, out)
			}
		}
	}
}

// A whole world with one proxy: what is measured is there, and nothing is left
// when it is closed.
func TestOneProxyIsMeasured(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: namespaces, and BPF to count system calls")
	}
	tl, _, err := findTools(os.Args[0], t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cpus, err := firstCPUs(1)
	if err != nil {
		t.Fatal(err)
	}
	p := plan{Rounds: 1, Warm: 10 * time.Millisecond, Window: 100 * time.Millisecond, Count: 50 * time.Millisecond}
	b := &bench{plan: p, spawn: newSpawner(), tools: tl, cpus: cpus}
	for _, k := range kinds() {
		if k.name == "go" {
			b.kinds = append(b.kinds, k)
		}
	}
	// The collector would close what was forgotten. There are 18 load processes;
	// the runtime has a few files of its own that come and go.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	before := openFiles(t)
	defer func() {
		if after := openFiles(t); after > before+6 {
			t.Errorf("%d files are open, %d were before", after, before)
		}
	}()
	for _, topology := range []string{loopback, namespaces} {
		t.Run(topology, func(t *testing.T) {
			s := Setting{topology, 1}
			w, err := newWorld(t.Context(), s, t.TempDir(), cpus, b.spawn, b.kinds, tl)
			if err != nil {
				t.Fatal(err)
			}
			defer w.close()
			for _, c := range []Cell{{s, load.Requests, 64, 1}, {s, load.Bulk, 0, 2}, {s, load.Duplex, 0, 1}, {s, load.Connections, 64, 4}} {
				seen := map[string]Run{}
				b.costs = c.Kind == load.Requests
				if err := b.measure(context.Background(), w, c, func(r Run) { seen[r.Proxy] = r }); err != nil {
					t.Fatal(err)
				}
				for _, name := range []string{direct, "go"} {
					r := seen[name]
					if r.Error != "" || r.PerSecond == 0 || r.MachineCPU == 0 || r.LoadCPU == 0 {
						t.Errorf("%s, %s: %+v", c.Title(), name, r)
					}
				}
				if r := seen["go"]; r.SystemCalls == 0 || r.ProxyCPU == 0 || r.PSS == 0 || b.costs && (r.Spent == nil || r.Spent.Wakeups == 0) {
					t.Errorf("%s: nothing counted: %+v", c.Title(), r)
				}
			}
		})
	}
}
