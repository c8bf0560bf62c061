package admin

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

func (s *Server) quit(a *answer, _ query) {
	a.WriteString("OK\n")
	a.after = s.o.Quit
}

func (s *Server) resetCounters(a *answer, _ query) {
	// What the plane has not handed in yet was counted before the reset.
	s.o.Plane.Flush()
	s.o.Stats.ResetCounters()
	a.WriteString("OK\n")
}

func (s *Server) healthcheckFail(a *answer, _ query) {
	s.failed.Store(true)
	s.o.Plane.FailHealthChecks(true)
	a.WriteString("OK\n")
}

func (s *Server) healthcheckOK(a *answer, _ query) {
	s.failed.Store(false)
	s.o.Plane.FailHealthChecks(false)
	a.WriteString("OK\n")
}

// drainListeners: the parameters count by being there, whatever they say.
func (s *Server) drainListeners(a *answer, q query) {
	s.o.Plane.DrainListeners(q.has("inboundonly"), q.has("graceful"), q.has("skip_exit"))
	a.WriteString("OK\n")
}

// logging answers as Envoy's logs_handler.cc does: no parameter lists the
// levels, one changes them.
func (s *Server) logging(a *answer, q query) {
	if err := s.setLevels(q); err != nil {
		a.code = http.StatusBadRequest
		fmt.Fprintf(a, "error: %s\n\n", err)
		a.WriteString("usage: /logging?<name>=<level> (change single level)\n" +
			"usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n" +
			"usage: /logging?level=<level> (change all levels)\n" +
			"usage: /logging?group=<group_name>:<level> (change group of loggers)\n" +
			"levels: trace debug info warning error critical off \n")
	}
	a.WriteString("active loggers:\n")
	for _, l := range s.o.Loggers.Levels() {
		fmt.Fprintf(a, "  %s: %s\n", l[0], l[1])
	}
	a.WriteString("\n")
}

func (s *Server) setLevels(q query) error {
	switch len(q) {
	case 0:
		return nil
	case 1:
	default:
		return errors.New("invalid number of parameters")
	}
	name, value := q[0][0], q[0][1]
	switch {
	case value == "" && (name == "level" || name == "paths"):
		return nil // Envoy: an empty choice of the form changes nothing
	case name == "level":
		return s.o.Loggers.SetLevel("", value)
	case name == "group": // Envoy without --enable-fine-grain-logging
		return errors.New("group parameter requires fine-grain logging to be enabled")
	case name != "paths":
		return s.o.Loggers.SetLevel(name, value)
	}
	for _, p := range strings.Split(value, ",") {
		n, l, ok := strings.Cut(p, ":")
		if !ok || n == "" || l == "" {
			return errors.New("empty logger name or empty logger level")
		}
		if err := s.o.Loggers.SetLevel(n, l); err != nil {
			return err
		}
	}
	return nil
}
