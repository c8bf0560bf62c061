package parity

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// sourceStories: resources that come by streams of their own, from files, and by
// polls.
var sourceStories = []story{
	{"own_streams_for_all", func(s *stream) {
		s.ldsFrom, s.cdsFrom = s.stream(), s.stream()
		s.open()
		s.cds("1", s.ownEDS("c"))
		s.eds("1", assignment("c", s.banner("one")))
		s.lds("1", proxyTo("l", "c"))
		s.serves("l", "one")
		s.eds("2", assignment("c", s.banner("two")))
		s.serves("l", "two")
		s.figures()
	}},
	{"own_stream_for_listeners", func(s *stream) {
		s.ldsFrom = s.stream()
		s.open()
		s.cds("1", cluster("c", s.banner("one")))
		s.lds("1", proxyTo("l", "c"), badAddress("bad"))
		s.serves("l", "one")
		s.figures()
	}},
	{"own_stream_for_endpoints", func(s *stream) {
		s.open()
		s.cds("1", s.ownEDS("c"), edsCluster("d"))
		s.push("EDS", "1", assignment("c", s.banner("one")))
		s.settle()
		s.figures()
	}},
	{"own_streams_cluster_removed", func(s *stream) {
		s.ldsFrom, s.cdsFrom = s.stream(), s.stream()
		s.open()
		s.cds("1", s.ownEDS("c"), cluster("d"))
		s.eds("1", assignment("c", nowhere(1)))
		s.lds("1")
		s.cds("2", gone("c"), cluster("d"))
		s.figures()
	}},
	{"own_stream_of_unknown_cluster", func(s *stream) {
		s.ready(nil)
		c := s.ownEDS("c")
		c["eds_cluster_config"].(obj)["eds_config"].(obj)["api_config_source"].(obj)["grpc_services"].([]obj)[0]["envoy_grpc"] = obj{"cluster_name": "nosuch"}
		s.cds("2", c)
		s.figures()
	}},
	// In state of the world Envoy sends the newest answer once for each that the
	// limit held back.
	{"rate_limit_delta_only", func(s *stream) {
		s.ldsFrom = s.stream()
		s.ldsFrom["api_config_source"].(obj)["rate_limit_settings"] = obj{"max_tokens": 2, "fill_rate": 4.0}
		s.open()
		s.cds("1")
		for _, v := range []string{"1", "2", "3", "4", "5"} {
			s.push("LDS", v)
		}
		s.settle()
		s.await("all answers", func() bool { return s.stats()["listener_manager.lds.update_success"] == 5 })
		s.settle()
		s.moved(`listener_manager\\.lds\\.update_(attempt|success)`)
	}},
	{"files_delta_only", func(s *stream) {
		s.ldsFrom, s.cdsFrom = s.file("lds.json"), s.file("cds.json")
		s.move("cds.json", "1", "CDS", cluster("c", s.banner("one")))
		s.move("lds.json", "1", "LDS", proxyTo("l", "c"))
		s.open()
		s.serves("l", "one")
		s.move("cds.json", "2", "CDS", cluster("c", s.banner("two")))
		s.serves("l", "two")
		s.move("lds.json", "2", "LDS", proxyTo("m", "c"))
		s.serves("m", "two")
		s.serves("l", "nobody")
		s.figures()
	}},
	{"files_bad_resource_delta_only", func(s *stream) {
		s.ldsFrom, s.cdsFrom = s.file("lds.json"), s.file("cds.json")
		s.move("cds.json", "1", "CDS", cluster("c", s.banner("one")))
		s.move("lds.json", "1", "LDS", badAddress("bad"), proxyTo("l", "c"))
		s.open()
		s.serves("l", "one")
		s.figures()
	}},
	{"files_that_are_none_delta_only", func(s *stream) {
		s.ldsFrom, s.cdsFrom = s.file("lds.json"), s.file("cds.json")
		s.move("cds.json", "1", "CDS", cluster("c", s.banner("one")))
		s.write("lds.json", "this is no response")
		s.open()
		s.move("lds.json", "1", "LDS", proxyTo("l", "c"))
		s.serves("l", "one")
		s.write("lds.json", "nor is this")
		s.await("rejected", func() bool { return s.stats()["listener_manager.lds.update_failure"] == 2 })
		s.serves("l", "one")
		s.figures()
	}},
	{"files_endpoints_delta_only", func(s *stream) {
		s.ldsFrom, s.cdsFrom = s.file("lds.json"), s.file("cds.json")
		c := edsCluster("c")
		c["eds_cluster_config"].(obj)["eds_config"] = s.file("eds.json")
		s.move("eds.json", "1", "EDS", assignment("c", s.banner("one")))
		s.move("cds.json", "1", "CDS", c)
		s.move("lds.json", "1", "LDS", proxyTo("l", "c"))
		s.open()
		s.serves("l", "one")
		s.move("eds.json", "2", "EDS", assignment("c", s.banner("two")))
		s.serves("l", "two")
		s.figures()
	}},
	{"files_in_a_watched_directory_delta_only", func(s *stream) {
		s.ldsFrom, s.cdsFrom = s.file("lds.json"), s.file("cds.json")
		s.ldsFrom["path_config_source"].(obj)["watched_directory"] = obj{"path": s.dir()}
		s.move("cds.json", "1", "CDS", cluster("c", s.banner("one")))
		s.move("real.json", "1", "LDS", proxyTo("l", "c"))
		if err := os.Symlink("real.json", filepath.Join(s.dir(), "lds.json")); err != nil {
			s.Fatal(err)
		}
		s.open()
		s.serves("l", "one")
		s.move("real.json", "2", "LDS", proxyTo("m", "c"))
		s.serves("m", "one")
		s.figures()
	}},
}

// stream is the config source of a stream of its own to the script.
func (s *stream) stream() obj {
	s.apart = true
	api := "GRPC"
	if s.delta {
		api = "DELTA_GRPC"
	}
	return obj{"resource_api_version": "V3", "initial_fetch_timeout": "0s", "api_config_source": obj{
		"api_type": api, "transport_api_version": "V3", "set_node_on_first_message_only": true,
		"grpc_services": []obj{{"envoy_grpc": obj{"cluster_name": "xds"}}}}}
}

func (s *stream) ownEDS(name string) obj {
	c := edsCluster(name)
	c["eds_cluster_config"].(obj)["eds_config"] = s.stream()
	return c
}

// dir is the folder of this run's files.
func (s *stream) dir() string {
	if s.folder == "" {
		s.folder = s.TempDir()
	}
	return s.folder
}

func (s *stream) file(name string) obj {
	return obj{"resource_api_version": "V3", "path_config_source": obj{"path": filepath.Join(s.dir(), name)}}
}

// move moves a file with a response into place.
func (s *stream) move(name, version, kind string, resources ...obj) {
	s.Helper()
	s.note("-> %s %s in a file", kind, version)
	var all []obj
	for _, r := range resources {
		all = append(all, obj{"@type": types[kind]}.with(r))
	}
	text, err := json.Marshal(obj{"version_info": version, "type_url": types[kind], "resources": all})
	if err != nil {
		s.Fatal(err)
	}
	s.write(name, string(text))
}

func (s *stream) write(name, text string) {
	s.Helper()
	at := filepath.Join(s.dir(), name)
	if err := os.WriteFile(at+".new", []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	if err := os.Rename(at+".new", at); err != nil {
		s.Fatal(err)
	}
}
