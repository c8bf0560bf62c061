package launch

import (
	"bufio"
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sluice-proxy/sluice/test/pki"
)

// patience is how long a story waits for what must happen.
const patience = 20 * time.Second

type key struct{}

var worldKey key

// world is what belongs to one story.
type world struct {
	planes map[string]*double
	held   map[string]net.Conn
}

func newWorld(e *testscript.Env) *world {
	w := &world{planes: map[string]*double{}, held: map[string]net.Conn{}}
	e.Defer(func() {
		for _, c := range w.held {
			c.Close()
		}
		for _, p := range w.planes {
			p.stop()
		}
	})
	return w
}

func of(ts *testscript.TestScript) *world { return ts.Value(worldKey).(*world) }

func need(ts *testscript.TestScript, neg bool, args []string, n int, usage string) {
	if neg || len(args) < n {
		ts.Fatalf("usage: %s", usage)
	}
}

// lastPort walks below the range that the kernel gives to connections and to
// listeners without a port: what is free now is free later.
var lastPort atomic.Uint32 // above 10000 and something that differs by process

// ports NAME...: free TCP ports of 127.0.0.1 in variables, each given out once.
func ports(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "ports NAME...")
	for _, name := range args {
		for {
			port := 10000 + uint32(os.Getpid())*37%10000 + lastPort.Add(1)
			if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
				l.Close()
				ts.Setenv(name, fmt.Sprint(port))
				break
			}
		}
	}
}

// expand FILE...: ${NAME} in files becomes the variable.
func expand(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "expand FILE...")
	re := regexp.MustCompile(`\$\{(\w+)\}`)
	for _, name := range args {
		out := re.ReplaceAllStringFunc(ts.ReadFile(name), func(m string) string { return ts.Getenv(m[2 : len(m)-1]) })
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(out), 0o600))
	}
}

// fatal lets helpers for tests report to a story.
type fatal struct {
	testing.TB
	ts *testscript.TestScript
}

func (f fatal) Helper()                           {}
func (f fatal) Fatalf(format string, args ...any) { f.ts.Fatalf(format, args...) }
func (f fatal) Fatal(args ...any)                 { f.ts.Fatalf("%s", fmt.Sprint(args...)) }

// ca DIR NAME=SAN,SAN...: an authority DIR/ca.pem and certificates DIR/NAME.pem
// with DIR/NAME.key. $CA_BASE64 and $CA_LINES (\n for newlines) hold the authority.
func ca(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "ca DIR NAME=SAN,...")
	tb, dir := fatal{ts: ts}, ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	c := pki.New(tb, "ca")
	pki.Write(tb, filepath.Join(dir, "ca.pem"), c.PEM)
	ts.Setenv("CA_BASE64", base64.StdEncoding.EncodeToString(c.PEM))
	ts.Setenv("CA_LINES", strings.ReplaceAll(string(c.PEM), "\n", `\n`))
	for _, a := range args[1:] {
		name, sans, _ := strings.Cut(a, "=")
		leaf := c.Issue(strings.Split(sans, ","))
		pki.Write(tb, filepath.Join(dir, name+".pem"), leaf.PEM)
		pki.Write(tb, filepath.Join(dir, name+".key"), leaf.Key)
	}
}

// backend NAME: a server that answers every line with its name and the line.
// $NAME is its port.
func backend(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "backend NAME")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { answer(ctx, c, args[0]) })
		}
	})
	ts.Defer(func() { cancel(); l.Close(); all.Wait() })
}

func answer(ctx context.Context, c net.Conn, name string) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		fmt.Fprintf(c, "%s: %s", name, line)
	}
}

func talk(c net.Conn, say string) (string, error) {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, say+"\n"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSuffix(line, "\n"), err
}

// dial PORT SAY WANT: a connection is served, once the listener is there.
func dial(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3, "dial PORT SAY WANT")
	retry(ts, func() error {
		c, err := net.Dial("tcp", "127.0.0.1:"+args[0])
		if err != nil {
			return err
		}
		defer c.Close()
		got, err := talk(c, args[1])
		if err == nil && got != args[2] {
			err = fmt.Errorf("answer %q", got)
		}
		return err
	})
}

// hold NAME PORT WANT: a connection that stays open; still NAME WANT uses it.
func hold(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 3, "hold NAME PORT WANT")
	c, err := net.Dial("tcp", "127.0.0.1:"+args[1])
	ts.Check(err)
	of(ts).held[args[0]] = c
	still(ts, false, []string{args[0], args[2]})
}

func still(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "still NAME WANT")
	got, err := talk(of(ts).held[args[0]], "held")
	ts.Check(err)
	if got != args[1] {
		ts.Fatalf("held connection %s answers %q", args[0], got)
	}
}

func retry(ts *testscript.TestScript, f func() error) {
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("gave up: %v", err)
		}
		time.Sleep(10 * time.Millisecond) // between two looks at a condition
	}
}

// ask METHOD (PORT|SOCKET) PATH PATTERN...: the admin server is asked as launchers
// do, the path as it is written, until it answers 200 and all patterns match.
// `! ask` wants another status.
func ask(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, false, args, 3, "ask METHOD PORT|SOCKET PATH PATTERN...")
	var body string
	retry(ts, func() (err error) {
		var code int
		if code, body, err = get(ts, args[0], args[1], args[2]); err != nil {
			return err
		}
		if (code == http.StatusOK) == neg {
			return fmt.Errorf("status %d\n%s", code, body)
		}
		for _, p := range args[3:] {
			if !regexp.MustCompile(`(?m)` + p).MatchString(body) {
				return fmt.Errorf("%q is not in the answer:\n%s", p, body)
			}
		}
		return nil
	})
	fmt.Fprint(ts.Stdout(), body)
}

func get(ts *testscript.TestScript, method, to, target string) (int, string, error) {
	network, address := "tcp", "127.0.0.1:"+to
	switch {
	case strings.ContainsRune(to, ':'):
		address = to
	case strings.ContainsAny(to, "/."):
		network, address = "unix", ts.MkAbs(to)
	}
	c, err := net.DialTimeout(network, address, 5*time.Second)
	if err != nil {
		return 0, "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, "", err
	}
	// By hand: net/http would escape the regular expressions that launchers do not.
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", method, target)
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, string(b), err
}

// closes PORT: a connection is taken and ended without a byte.
func closes(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "closes PORT")
	retry(ts, func() error {
		c, err := net.DialTimeout("tcp", "127.0.0.1:"+args[0], 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		ts.Check(c.SetDeadline(time.Now().Add(5 * time.Second)))
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			ts.Fatalf("read %d bytes, %v", n, err)
		}
		return nil
	})
}

// agent NAME PATH: a server that answers requests for PATH, as an agent does.
// $NAME is its port.
func agent(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "agent NAME PATH")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+args[1], func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "agent: %s %s\n", r.Method, r.URL) })
	s := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // ends with the story
	}()
	ts.Defer(func() { s.Close(); <-done })
}

// options of a plane.
func planeFlags(args []string) (o doubleOptions, err error) {
	f := flag.NewFlagSet("plane", flag.ContinueOnError)
	f.StringVar(&o.listen, "listen", "", "unix:PATH or tcp:PORT")
	f.StringVar(&o.cert, "cert", "", "certificate, its key beside it")
	f.StringVar(&o.clientCA, "client-ca", "", "authority of clients, which are needed then")
	f.StringVar(&o.header, "header", "", "NAME=VALUE that a stream must bring")
	f.StringVar(&o.refusal, "refusal", "", "CODE:TEXT for who does not")
	f.StringVar(&o.node, "node", "", "what node.id must match, else InvalidArgument")
	f.StringVar(&o.resources, "resources", "", "file: resources of all types")
	f.StringVar(&o.version, "version", "1", "of every resource (delta); may be empty")
	f.BoolVar(&o.deltaOnly, "delta-only", false, "state of the world is not implemented")
	f.BoolVar(&o.oneAtATime, "one-at-a-time", false, "nothing more is sent before the last response is answered")
	f.DurationVar(&o.delay, "delay", 0, "before the first answer")
	return o, f.Parse(args)
}

// plane NAME FLAG...: a control plane. push NAME FILE gives it other resources.
func plane(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "plane NAME FLAG...")
	o, err := planeFlags(args[1:])
	ts.Check(err)
	for _, p := range []*string{&o.cert, &o.clientCA} {
		if *p != "" {
			*p = ts.MkAbs(*p)
		}
	}
	if path, ok := strings.CutPrefix(o.listen, "unix:"); ok {
		path = ts.MkAbs(path)
		ts.Check(os.MkdirAll(filepath.Dir(path), 0o700))
		o.listen = "unix:" + path
	}
	d := newDouble(o)
	ts.Check(d.set(ts.ReadFile(o.resources)))
	ts.Check(d.start())
	of(ts).planes[args[0]] = d
}

func push(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 2, "push NAME FILE")
	ts.Check(of(ts).planes[args[0]].set(ts.ReadFile(args[1])))
}

// requests NAME PATTERN...: prints what was asked of a plane, once every pattern
// is among it.
func requests(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, "requests NAME PATTERN...")
	var seen string
	retry(ts, func() error {
		seen = of(ts).planes[args[0]].seen()
		for _, p := range args[1:] {
			if !regexp.MustCompile(`(?m)` + p).MatchString(seen) {
				return fmt.Errorf("%q was not asked:\n%s", p, seen)
			}
		}
		return nil
	})
	fmt.Fprint(ts.Stdout(), seen)
}
