package accesslog

import (
	"bufio"
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/expression"
	"github.com/sluice-proxy/sluice/api/runtime"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/api/substitution"
	"github.com/sluice-proxy/sluice/dataplane/stream"
	"github.com/sluice-proxy/sluice/test/celtext"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type world struct {
	*Files
	t     *testing.T
	store *stats.Store
}

func newWorld(t *testing.T, interval time.Duration) *world {
	w := &world{t: t, store: stats.New()}
	w.Files = NewFiles(w.store, interval, 0, nil, nil, slog.New(slog.DiscardHandler))
	t.Cleanup(w.Close)
	return w
}

func (w *world) value(name string) uint64 {
	s, _ := w.store.Lookup("filesystem." + name)
	return s.Value
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

func content(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

func TestLinesAreWrittenByTheTimerAndAtTheEnd(t *testing.T) {
	w := newWorld(t, 5*time.Millisecond)
	path := filepath.Join(t.TempDir(), "log")
	f, err := w.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("one\n"))
	eventually(t, "the timer writes", func() bool { return content(path) == "one\n" })
	if w.value("flushed_by_timer") == 0 || w.value("write_completed") == 0 {
		t.Error("not counted")
	}
	f.Write([]byte("two\n"))
	f.Close()
	eventually(t, "the rest is written", func() bool { return content(path) == "one\ntwo\n" })
	eventually(t, "nothing is counted as waiting", func() bool { return w.value("write_total_buffered") == 0 })
}

func TestOneFileServesAllLogsOfAPath(t *testing.T) {
	w := newWorld(t, time.Hour)
	path := filepath.Join(t.TempDir(), "log")
	a, _ := w.Open(path)
	b, _ := w.Open(path)
	if a != b {
		t.Fatal("two files")
	}
	a.Close()
	b.Write([]byte("still\n"))
	b.Close()
	eventually(t, "it is written", func() bool { return content(path) == "still\n" })
}

func TestReopenLeavesWhatWasMovedAway(t *testing.T) {
	w := newWorld(t, time.Hour)
	dir := t.TempDir()
	path, old := filepath.Join(dir, "log"), filepath.Join(dir, "log.1")
	f, _ := w.Open(path)
	if err := os.Rename(path, old); err != nil {
		t.Fatal(err)
	}
	w.Reopen()
	eventually(t, "there is a new file", func() bool { _, err := os.Stat(path); return err == nil })
	f.Write([]byte("new\n"))
	f.Close()
	eventually(t, "the new one is written to", func() bool { return content(path) == "new\n" })
	if content(old) != "" {
		t.Error("the old one was written to")
	}
}

// A disk that takes nothing: a fifo that nobody reads.
func TestASlowSinkNeverBlocksAndDropsAreCounted(t *testing.T) {
	w := newWorld(t, time.Millisecond)
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := w.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	line := bytes.Repeat([]byte{'x'}, 64<<10)
	lines := 2 * queueBytes / len(line)
	for range lines {
		f.Write(line)
	}
	if w.value("write_dropped") == 0 {
		t.Error("nothing was dropped")
	}
	if n := w.value("write_total_buffered"); n > 2*queueBytes {
		t.Errorf("%d bytes wait", n)
	}
	// Let the writer go, so that nothing stays behind.
	r, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f.Close()
	buf := make([]byte, 1<<20)
	for done := false; !done; {
		select {
		case <-f.done:
			done = true
		default:
			r.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			r.Read(buf)
		}
	}
}

func TestAUnixSocketIsConnectedToAgain(t *testing.T) {
	w := newWorld(t, time.Millisecond)
	path := filepath.Join(t.TempDir(), "socket")
	lines := make(chan string, 16)
	listen := func() net.Listener {
		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			for s := bufio.NewScanner(c); s.Scan(); {
				lines <- s.Text()
				if s.Text() == "last" {
					return
				}
			}
		}()
		return ln
	}
	ln := listen()
	f, err := w.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Write([]byte("last\n"))
	if got := <-lines; got != "last" {
		t.Fatal(got)
	}
	ln.Close()
	ln = listen()
	defer ln.Close()
	eventually(t, "the new listener gets a line", func() bool {
		f.Write([]byte("again\n"))
		select {
		case got := <-lines:
			return got == "again"
		default:
			return false
		}
	})
	f.Write([]byte("last\n"))
}

func TestAPathThatCannotBeOpenedIsNamed(t *testing.T) {
	w := newWorld(t, time.Hour)
	_, err := w.Logs([]*api.AccessLog{{Path: filepath.Join(t.TempDir(), "ok")}, {Path: "/no/such/folder/log"}})
	if err == nil || !strings.Contains(err.Error(), "unable to open file '/no/such/folder/log'") {
		t.Fatal(err)
	}
	if len(w.open) != 0 {
		t.Error("the first one stays open")
	}
}

func TestFilters(t *testing.T) {
	info := &stream.Info{Start: time.Unix(0, 0), Lasted: time.Second, Flags: stream.UpstreamConnectionFailure}
	info.SetMetadata("f", "k", "v")
	m := stream.Moment{Info: info, Type: End}
	flags := func(f ...string) *[]string { return &f }
	none := []string{}
	text := func(s string) *api.ValueMatch { return &api.ValueMatch{String: &api.StringMatch{Value: s}} }
	meta := func(filter, key string, v *api.ValueMatch, missing bool) api.LogFilter {
		return api.LogFilter{Metadata: &api.MetadataCondition{Filter: filter, Path: []string{key}, Value: v, Missing: missing}}
	}
	for _, tt := range []struct {
		what string
		f    api.LogFilter
		want bool
	}{
		{"nothing set", api.LogFilter{}, true},
		{"what HTTP decides", api.LogFilter{Nothing: true}, false},
		{"long enough", api.LogFilter{Duration: &api.Comparison{Op: "GE", Value: 1000}}, true},
		{"too short", api.LogFilter{Duration: &api.Comparison{Op: "GE", Value: 1001}}, false},
		{"short enough", api.LogFilter{Duration: &api.Comparison{Op: "LE", Value: 1000}}, true},
		{"the code is 0", api.LogFilter{StatusCode: &api.Comparison{Op: "EQ"}}, true},
		{"not the code", api.LogFilter{StatusCode: &api.Comparison{Op: "NE"}}, false},
		{"any flag", api.LogFilter{Flags: &none}, true},
		{"the flag", api.LogFilter{Flags: flags("NR", "UF")}, true},
		{"another flag", api.LogFilter{Flags: flags("NR")}, false},
		{"the type", api.LogFilter{Types: &api.LogTypes{Types: []string{End}}}, true},
		{"all types but this", api.LogFilter{Types: &api.LogTypes{Types: []string{End}, Exclude: true}}, false},
		{"all", api.LogFilter{And: []api.LogFilter{{}, {Nothing: true}}}, false},
		{"one", api.LogFilter{Or: []api.LogFilter{{Nothing: true}, {}}}, true},
		{"every time", api.LogFilter{Sample: &api.Fraction{Numerator: 100, Denominator: 100}}, true},
		{"never", api.LogFilter{Sample: &api.Fraction{Denominator: 100}}, false},
		{"metadata equal", meta("f", "k", text("v"), false), true},
		{"metadata by prefix", meta("f", "k", &api.ValueMatch{String: &api.StringMatch{Kind: api.MatchPrefix, Value: "v"}}, false), true},
		{"other metadata", meta("f", "k", text("w"), true), false},
		{"metadata missing", meta("f", "x", text("v"), true), true},
		{"metadata missing, and that counts", meta("g", "x", text("v"), false), false},
		{"metadata there, and nothing that it could be", meta("f", "k", nil, true), false},
	} {
		if got := pass(&tt.f, m); got != tt.want {
			t.Errorf("%s: %v", tt.what, got)
		}
	}
}

func TestALogWritesWhatItsFilterLetsPass(t *testing.T) {
	w := newWorld(t, time.Millisecond)
	path := filepath.Join(t.TempDir(), "log")
	f, err := substitution.Parse("%ACCESS_LOG_TYPE% %BYTES_SENT%\n")
	if err != nil {
		t.Fatal(err)
	}
	logs, err := w.Logs([]*api.AccessLog{{Path: path, Text: f, Filter: &api.LogFilter{Types: &api.LogTypes{Types: []string{End}}}}})
	if err != nil {
		t.Fatal(err)
	}
	info := &stream.Info{Sent: 7}
	logs.Write(info, Start)
	logs.Write(info, End)
	logs.Close()
	eventually(t, "one line", func() bool { return content(path) == "TcpConnectionEnd 7\n" })
}

func TestTheRuntimeChangesFilters(t *testing.T) {
	r, err := runtime.New([]runtime.Layer{{Name: "admin", Admin: true}})
	if err != nil {
		t.Fatal(err)
	}
	m := stream.Moment{Info: &stream.Info{Start: time.Unix(0, 0), Lasted: time.Second}}
	long, err := newFilter(&api.LogFilter{Duration: &api.Comparison{Op: "GE", Value: 1, Key: "long"}}, r)
	if err != nil {
		t.Fatal(err)
	}
	never, err := newFilter(&api.LogFilter{Sample: &api.Fraction{Denominator: 100, Key: "share"}}, r)
	if err != nil {
		t.Fatal(err)
	}
	if !long(m) || never(m) {
		t.Error("the configuration does not count where the runtime says nothing")
	}
	if err := r.Modify(map[string]string{"long": "1001", "share": "100"}); err != nil {
		t.Fatal(err)
	}
	if long(m) || !never(m) {
		t.Error("the runtime does not count")
	}
}

// pass makes a filter ready and runs it.
func pass(f *api.LogFilter, m stream.Moment) bool {
	p, err := newFilter(f, nil)
	if err != nil {
		panic(err)
	}
	return p(m)
}

func TestExpressionsFilter(t *testing.T) {
	is := func(text string) api.LogFilter { return api.LogFilter{Expression: celtext.Expression(t, text)} }
	m := stream.Moment{Info: stream.New(7, &stream.Listener{}, netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2"))}
	for _, tt := range []struct {
		filter api.LogFilter
		want   bool
	}{
		{is("connection.id == 7u"), true}, {is("connection.id == 8u"), false}, {is("nope"), false}, {is("1"), false},
		{api.LogFilter{And: []api.LogFilter{is("true"), is("source.port == 1")}}, true}, {api.LogFilter{And: []api.LogFilter{is("true"), is("false")}}, false},
		{api.LogFilter{Or: []api.LogFilter{is("nope"), is("destination.port == 2")}}, true},
	} {
		if got := pass(&tt.filter, m); got != tt.want {
			t.Errorf("%+v: %v", tt.filter, got)
		}
	}
	if _, err := newFilter(&api.LogFilter{Or: []api.LogFilter{{Expression: expression.Expression{Tree: "\xff"}}}}, nil); err == nil {
		t.Error("what is no tree is taken")
	}
}
