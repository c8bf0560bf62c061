package admin

import (
	"net/http"
	"os"
	"runtime/pprof"
)

// defaultProfilePath is bootstrap.proto's admin.profile_path.
const defaultProfilePath = "/var/log/envoy/envoy.prof"

// enabled reads the one parameter of a profiler; false if it has answered.
func enabled(a *answer, q query) (on, ok bool) {
	v := q.value("enable")
	if len(q) != 1 || v != "y" && v != "n" {
		a.fail(http.StatusBadRequest, "?enable=<y|n>\n")
		return false, false
	}
	return v == "y", true
}

// cpuProfiler writes a profile in pprof's form to admin.profile_path, from one
// request to the next.
func (s *Server) cpuProfiler(a *answer, q query) {
	on, ok := enabled(a, q)
	switch {
	case !ok:
		return
	case on && !s.startProfile():
		a.fail(http.StatusInternalServerError, "failure to start the profiler")
		return
	case !on:
		s.stopProfile()
	}
	a.WriteString("OK\n")
}

func (s *Server) startProfile() bool {
	if s.profile != nil {
		return false
	}
	path := s.o.Bootstrap.GetAdmin().GetProfilePath()
	if path == "" {
		path = defaultProfilePath
	}
	f, err := os.Create(path)
	if err == nil {
		if err = pprof.StartCPUProfile(f); err == nil {
			s.profile = f
			return true
		}
		f.Close()
	}
	s.o.Log.Warn("start CPU profile", "error", err)
	return false
}

func (s *Server) stopProfile() {
	if s.profile == nil {
		return
	}
	pprof.StopCPUProfile()
	if err := s.profile.Close(); err != nil {
		s.o.Log.Warn("write CPU profile", "error", err)
	}
	s.profile = nil
}

// endProfile completes a profile that nobody has ended.
func (s *Server) endProfile() {
	s.rendering.Lock()
	defer s.rendering.Unlock()
	s.stopProfile()
}

// heapProfiler and allocProfiler are tcmalloc's; the heap can be dumped at any
// time without them.
func (s *Server) heapProfiler(a *answer, q query) {
	if _, ok := enabled(a, q); ok {
		a.fail(http.StatusNotImplemented, "The current build does not support heap profiler")
	}
}

func (s *Server) allocProfiler(a *answer, q query) {
	if _, ok := enabled(a, q); ok {
		a.fail(http.StatusNotImplemented, "The current build does not support allocation profiler")
	}
}

// heapDump is a profile of what is on the heap, in pprof's form.
func (s *Server) heapDump(a *answer, _ query) {
	if err := pprof.Lookup("heap").WriteTo(a, 0); err != nil {
		a.fail(http.StatusInternalServerError, "%v", err)
	}
}

func (s *Server) contention(a *answer, _ query) {
	a.WriteString("Mutex contention tracing is not enabled. To enable, run Envoy with flag --enable-mutex-tracing.")
}

// recentLookups: no stat is looked up by its name while it is counted, so that
// there is never anything to show.
func (s *Server) recentLookups(a *answer, _ query) {
	if s.lookups {
		a.WriteString("   Count Lookup\n\ntotal: 0\n")
		return
	}
	a.WriteString("Lookup tracking is not enabled. Use /stats/recentlookups/enable to enable.\n\ntotal: 0\n")
}

func (s *Server) trackLookups(on bool) func(*answer, query) {
	return func(a *answer, _ query) {
		s.lookups = on
		a.WriteString("OK\n")
	}
}

func (s *Server) clearLookups(a *answer, _ query) { a.WriteString("OK\n") }

func (s *Server) reopenLogs(a *answer, _ query) {
	s.o.Plane.ReopenLogs()
	a.WriteString("OK\n")
}
