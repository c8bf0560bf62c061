package accesslog

import (
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

// The values of %ACCESS_LOG_TYPE% for TCP. That of a listener's log is empty:
// NotSet.
const (
	Start     = "TcpConnectionStart"
	Connected = "TcpUpstreamConnected"
	Periodic  = "TcpPeriodic"
	End       = "TcpConnectionEnd"
)

// Log is one access log in force. Safe for concurrent use.
type Log struct {
	to     logger
	passes filter
}

// logger is where a log goes; writing never waits.
type logger interface {
	Write(stream.Moment)
	Close()
}

// lines is a log in a file.
type lines struct {
	file   *File
	format *stream.Formatter
}

func (l *lines) Write(m stream.Moment) { l.file.Write(l.format.Append(nil, m)) }
func (l *lines) Close()                { l.file.Close() }

// Logs are the access logs of one place.
type Logs []*Log

// Logs opens the logs of a configuration, or none of them.
func (fs *Files) Logs(configs []*api.AccessLog) (Logs, error) {
	var out Logs
	for _, c := range configs {
		passes, err := newFilter(c.Filter, fs.runtime)
		if err != nil {
			out.Close()
			return nil, err
		}
		if c.Service != nil {
			out = append(out, &Log{to: fs.services.Open(c.Service), passes: passes})
			continue
		}
		f, err := fs.Open(c.Path)
		if err != nil {
			out.Close()
			return nil, err
		}
		l := &lines{file: f}
		if c.JSON != nil {
			l.format = stream.NewJSON(*c.JSON, c.OmitEmpty)
		} else {
			l.format = stream.NewText(c.Text, c.OmitEmpty)
		}
		out = append(out, &Log{to: l, passes: passes})
	}
	return out, nil
}

// Close gives the files and streams back.
func (ls Logs) Close() {
	for _, l := range ls {
		l.to.Close()
	}
}

// Write writes about a connection to every log whose filter lets it pass.
func (ls Logs) Write(info *stream.Info, kind string) {
	if len(ls) == 0 {
		return
	}
	m := stream.Moment{Info: info, Type: kind, Now: time.Now()}
	for _, l := range ls {
		if l.passes(m) {
			l.to.Write(m)
		}
	}
}
