package admin

import (
	"net/http"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
)

func (s *Server) ready(a *answer, _ query) {
	st := s.state()
	if st != Live {
		a.code = http.StatusServiceUnavailable
	}
	a.WriteString(st.String() + "\n")
}

// hotRestartVersion: there is no hot restart here, which Envoy calls disabled.
func (s *Server) hotRestartVersion(a *answer, _ query) { a.WriteString("disabled") }

func (s *Server) serverInfo(a *answer, _ query) {
	up := durationpb.New(time.Since(s.o.Started).Truncate(time.Second))
	writeProto(a, &adminv3.ServerInfo{
		Version:            s.o.Version,
		State:              adminv3.ServerInfo_State(s.state()),
		UptimeCurrentEpoch: up,
		UptimeAllEpochs:    up,
		HotRestartVersion:  "disabled",
		CommandLineOptions: commandLine(s.o.Flags, s.o.Concurrency),
		Node:               s.o.Node,
	}, true)
}

// flagFields are the flags whose field in CommandLineOptions has another name,
// and the unit of those that count time.
var flagFields = map[string]struct {
	field protoreflect.Name
	unit  time.Duration
}{
	"drain-time-s":             {"drain_time", time.Second},
	"parent-shutdown-time-s":   {"parent_shutdown_time", time.Second},
	"file-flush-interval-msec": {"file_flush_interval", time.Millisecond},
	"file-flush-min-size-kb":   {"file_flush_min_size", 0},
	"disable-extensions":       {"disabled_extensions", 0},
}

// commandLine fills CommandLineOptions from flag values by name. Flags of ours
// that the message has no field for are left out, as is a value that does not
// fit its field.
func commandLine(flags map[string]string, concurrency int) *adminv3.CommandLineOptions {
	m := &adminv3.CommandLineOptions{}
	fields := m.ProtoReflect().Descriptor().Fields()
	for flag, value := range flags {
		name, unit := protoreflect.Name(strings.ReplaceAll(flag, "-", "_")), time.Duration(0)
		if f, ok := flagFields[flag]; ok {
			name, unit = f.field, f.unit
		}
		if fd := fields.ByName(name); fd != nil {
			setField(m.ProtoReflect(), fd, value, unit)
		}
	}
	m.Concurrency = uint32(concurrency)
	// Envoy's defaults of what has no effect here.
	if m.ParentShutdownTime == nil {
		m.ParentShutdownTime = durationpb.New(15 * time.Minute)
	}
	if _, given := flags["log-format"]; !given {
		m.LogFormat = "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v"
	}
	if _, given := flags["socket-path"]; !given {
		m.SocketPath = "@envoy_domain_socket"
	}
	return m
}

func setField(m protoreflect.Message, fd protoreflect.FieldDescriptor, value string, unit time.Duration) {
	n, numErr := strconv.ParseUint(value, 0, 64)
	switch {
	case fd.IsList():
		for v := range strings.SplitSeq(value, ",") {
			if v != "" {
				m.Mutable(fd).List().Append(protoreflect.ValueOfString(v))
			}
		}
	case fd.Kind() == protoreflect.BoolKind:
		m.Set(fd, protoreflect.ValueOfBool(value == "true"))
	case fd.Kind() == protoreflect.StringKind:
		m.Set(fd, protoreflect.ValueOfString(value))
	case fd.Kind() == protoreflect.EnumKind:
		// --mode init_only is InitOnly, --drain-strategy gradual is Gradual.
		values := fd.Enum().Values()
		for i := range values.Len() {
			if strings.EqualFold(string(values.Get(i).Name()), strings.ReplaceAll(value, "_", "")) {
				m.Set(fd, protoreflect.ValueOfEnum(values.Get(i).Number()))
			}
		}
	case numErr != nil:
	case fd.Kind() == protoreflect.Uint32Kind:
		m.Set(fd, protoreflect.ValueOfUint32(uint32(n)))
	case fd.Kind() == protoreflect.Uint64Kind:
		m.Set(fd, protoreflect.ValueOfUint64(n))
	case fd.Kind() == protoreflect.MessageKind:
		d := durationpb.New(time.Duration(n) * unit)
		proto.Merge(m.Mutable(fd).Message().Interface(), d)
	}
}

// memoryNow reads the runtime's figures without stopping the world.
func memoryNow() *adminv3.Memory {
	names := []string{
		"/memory/classes/heap/objects:bytes",
		"/memory/classes/heap/unused:bytes",
		"/memory/classes/heap/free:bytes",
		"/memory/classes/heap/released:bytes",
		"/memory/classes/metadata/mcache/inuse:bytes",
		"/memory/classes/total:bytes",
	}
	samples := make([]metrics.Sample, len(names))
	for i, n := range names {
		samples[i].Name = n
	}
	metrics.Read(samples)
	v := func(i int) uint64 {
		if samples[i].Value.Kind() != metrics.KindUint64 {
			return 0
		}
		return samples[i].Value.Uint64()
	}
	objects, unused, free, released := v(0), v(1), v(2), v(3)
	return &adminv3.Memory{
		Allocated:          objects,
		HeapSize:           objects + unused + free + released,
		PageheapUnmapped:   released,
		PageheapFree:       free,
		TotalThreadCache:   v(4),
		TotalPhysicalBytes: v(5) - released,
	}
}

func (s *Server) memory(a *answer, _ query) { writeProto(a, memoryNow(), true) }
