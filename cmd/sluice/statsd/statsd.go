// Package statsd tells a statsd, dog_statsd or graphite server what the store
// counts, by UDP or on a TCP connection.
package statsd

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/sluice-proxy/sluice/api/stats"
)

// Dialect is where tags stand.
type Dialect uint8

// The dialects: Plain has full names and no tags.
const (
	Plain Dialect = iota
	Dog
	Graphite
)

// Options of a Sink.
type Options struct {
	Dialect Dialect
	Prefix  string
	// Max bounds a datagram of several figures; 0: each has its own. A stream has
	// no bound.
	Max int
	// Dial connects: to a datagram socket, or, if Stream, to a server of streams.
	Dial   func(context.Context) (net.Conn, error)
	Stream bool
	Log    *slog.Logger
}

// dialTimeout bounds what a flush may wait for a connection, and for its bytes.
const dialTimeout = time.Second

// Sink is for one goroutine.
type Sink struct {
	o    Options
	conn net.Conn
	told map[string]uint64 // what was told of each counter
	buf  bytes.Buffer      // of a stream or datagram that is not sent yet
	mute bool              // the failure is told
}

// New returns a sink that connects when it has something to say.
func New(o Options) *Sink { return &Sink{o: o, told: map[string]uint64{}} }

// Flush tells what counters have grown by since the last time, and what gauges are
// now; of those only that were ever used.
func (s *Sink) Flush(all []stats.Stat) {
	told := make(map[string]uint64, len(s.told))
	for i := range all {
		x := &all[i]
		if !x.Used {
			continue
		}
		switch x.Kind {
		case stats.KindCounter:
			grown := x.Value
			if was := s.told[x.Name]; was <= grown { // else it was reset
				grown -= was
			}
			told[x.Name] = x.Value
			s.line(x, strconv.FormatUint(grown, 10), "|c")
		case stats.KindGauge:
			s.line(x, strconv.FormatUint(x.Value, 10), "|g")
		}
	}
	s.told = told
	s.send()
}

// Record tells of a value of a histogram. On a stream it waits for the next flush.
func (s *Sink) Record(x *stats.Stat, v float64) {
	if !s.o.Stream {
		defer s.send()
	}
	s.line(x, strconv.FormatFloat(v, 'f', -1, 64), "|ms")
}

// maxStream is what a stream that takes nothing may leave to be told.
const maxStream = 1 << 20

func (s *Sink) line(x *stats.Stat, value, kind string) {
	l := s.format(x, value, kind)
	switch {
	case s.o.Stream:
		if s.buf.Len()+len(l) < maxStream {
			s.buf.WriteString(l + "\n")
		}
		return
	case s.buf.Len() > 0 && s.buf.Len()+1+len(l) > s.o.Max:
		s.send()
	}
	if s.buf.Len() > 0 {
		s.buf.WriteByte('\n')
	}
	s.buf.WriteString(l)
}

func (s *Sink) format(x *stats.Stat, value, kind string) string {
	b := []byte(s.o.Prefix + ".")
	if s.o.Dialect == Plain {
		return string(b) + x.Name + ":" + value + kind
	}
	b = append(b, x.TagName...)
	if s.o.Dialect == Graphite {
		for _, t := range x.Tags {
			b = append(b, ";"+t.Name+"="+t.Value...)
		}
		return string(b) + ":" + value + kind
	}
	b = append(b, ":"+value+kind...)
	for i, t := range x.Tags {
		sep := ","
		if i == 0 {
			sep = "|#"
		}
		b = append(b, sep+t.Name+":"+t.Value...)
	}
	return string(b)
}

// send sends what is there; what cannot be sent is lost, as with any statsd.
func (s *Sink) send() {
	if s.buf.Len() == 0 {
		return
	}
	defer s.buf.Reset()
	if s.conn == nil {
		ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
		defer cancel()
		conn, err := s.o.Dial(ctx)
		if err != nil {
			s.failed(err)
			return
		}
		s.conn = conn
	}
	_ = s.conn.SetWriteDeadline(time.Now().Add(dialTimeout))
	if _, err := s.conn.Write(s.buf.Bytes()); err != nil {
		s.failed(err)
		if s.o.Stream { // the rest would begin in the midst of a line
			s.Close()
		}
		return
	}
	s.mute = false
}

func (s *Sink) failed(err error) {
	if !s.mute {
		s.o.Log.Warn("stats sink cannot be told; this is said once", "err", err)
	}
	s.mute = true
}

// Close ends the connection.
func (s *Sink) Close() {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}
