package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-proxy/sluice/dataplane/drain"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sluice-proxy/sluice/bpf"
	"github.com/sluice-proxy/sluice/cmd/sluice/demo"
)

// options are the flags that mean something here.
type options struct {
	configPath, configYAML                   string
	mode                                     string
	version, hotRestartVersion               bool
	logLevel, logPath, componentLogLevel     string
	localAddressVersion                      string
	statsTags                                []string
	fileFlushInterval, fileFlushSize         uint32
	concurrency                              uint32
	serviceNode, serviceCluster, serviceZone string
	adminAddressPath                         string
	allowUnknownStatic, allowUnknown         bool
	drainTime                                uint32
	drainStrategy, onUpdate                  string
	splice, graft                            string
	spliceMemory                             uint64
	captureCgroup, captureAcceptCgroup       string
	capturePorts, captureExcludePorts        string
	captureExclude                           string
	capturePin, onExit, captureWhenFull      string
	captureMaxRoutes                         uint32
	inboundPorts, inboundExcludePorts        string
	envoyVersion                             string
	all                                      map[string]string // as given, by name
	idle                                     []string          // given and without meaning here
}

// run is the command line: a serving proxy, or one of the sub-commands.
func run(ctx context.Context, args []string, e env) error {
	o := options{all: map[string]string{}}
	root := &cobra.Command{
		Use:           "sluice -c bootstrap.yaml",
		Short:         "A layer-4 data plane for any xDS control plane, spliced in the kernel",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			// What follows -- belongs to whoever wrote it there (Envoy Gateway, Consul).
			if n := cmd.ArgsLenAtDash(); n >= 0 {
				args = args[:n]
			}
			if len(args) > 0 {
				return fmt.Errorf("read command line: argument %q is no flag", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.Flags().Visit(func(f *pflag.Flag) {
				o.all[f.Name] = f.Value.String()
				if slices.Contains(idleFlags(cmd), f.Name) {
					o.idle = append(o.idle, "--"+f.Name)
				}
			})
			return o.run(cmd.Context(), e)
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.SetArgs(args)
	o.register(root.Flags())
	root.AddCommand(demo.Command(), routesCommand(), captureCommand(), doctorCommand())
	root.SetHelpCommand(&cobra.Command{Hidden: true}) // --help serves
	if err := root.ExecuteContext(ctx); err != nil {
		return fmt.Errorf("%s", strings.ReplaceAll(err.Error(), "\n", " "))
	}
	return nil
}

const idleMark = "sluice-idle"

func (o *options) register(f *pflag.FlagSet) {
	f.SortFlags = false
	f.StringVarP(&o.configPath, "config-path", "c", "", "path of the bootstrap file (.yaml .json .pb .pb_text, or /dev/fd/N)")
	f.StringVar(&o.configYAML, "config-yaml", "", "bootstrap as YAML text, merged over the file")
	f.StringVar(&o.mode, "mode", "serve", "serve, validate or init_only")
	f.BoolVar(&o.version, "version", false, "print the version")
	f.BoolVar(&o.hotRestartVersion, "hot-restart-version", false, "print the hot restart version")
	f.StringVarP(&o.logLevel, "log-level", "l", "info", "trace, debug, info, warning, error, critical or off")
	f.StringVar(&o.logPath, "log-path", "", "file to log to; SIGUSR1 opens it anew")
	f.Uint32Var(&o.fileFlushInterval, "file-flush-interval-msec", 10_000, "how long access log lines may wait to be written")
	f.Uint32Var(&o.fileFlushSize, "file-flush-min-size-kb", 64, "how much of an access log may wait to be written")
	f.Uint32Var(&o.concurrency, "concurrency", 0, "number of workers (default: one per CPU)")
	f.StringVar(&o.serviceNode, "service-node", "", "node id")
	f.StringVar(&o.serviceCluster, "service-cluster", "", "node cluster")
	f.StringVar(&o.serviceZone, "service-zone", "", "node zone")
	f.StringVar(&o.adminAddressPath, "admin-address-path", "", "file to write the bound admin address to")
	f.BoolVar(&o.allowUnknownStatic, "allow-unknown-static-fields", false, "accept fields of the bootstrap that are not known")
	f.BoolVar(&o.allowUnknown, "allow-unknown-fields", false, "the same, by its older name")
	f.Uint32Var(&o.drainTime, "drain-time-s", uint32(drain.DefaultTime/time.Second), "seconds that a drain lasts, at the end of which what is left is ended")
	f.StringVar(&o.drainStrategy, "drain-strategy", "gradual", "gradual or immediate: how soon connections that check are ended in a drain")
	f.StringVar(&o.onUpdate, "on-update", "keep", "keep or drain: what becomes of connections whose filter chain an update changes")
	f.StringVar(&o.splice, "splice", "auto", "path of the bytes: auto, always (spliced) or off (relayed)")
	f.Uint64Var(&o.spliceMemory, "splice-memory", 0, "bytes that all splices together may hold in the kernel beside their sockets (default: an eighth of the memory)")
	f.StringVar(&o.graft, "graft", "", "auto or off: join a pair's two TCP connections into one once it has shown that it lasts, so that packets pass without the proxy, docs/graft.md (default: auto where --splice is, else off)")
	f.StringVar(&o.captureCgroup, "capture-cgroup", "", "capture the connections of the programs in this cgroup (v2): its directory, or its path below the root")
	f.StringVar(&o.capturePorts, "capture-ports", "all", "what is captured: all, listeners (addresses of listeners with bind_to_port: false), or ports (80,443,8000-8010)")
	f.StringVar(&o.captureExcludePorts, "capture-exclude-ports", "", "ports that are not captured")
	f.StringVar(&o.captureExclude, "capture-exclude", "", "prefixes and addresses that are not captured, beside loopback, link-local and multicast")
	f.StringVar(&o.captureAcceptCgroup, "capture-accept-cgroup", "", "answer SO_ORIGINAL_DST to the programs in this cgroup too, if they accept what is captured")
	f.StringVar(&o.capturePin, "capture-pin", "", "directory on a bpffs to pin capture in, so that it outlives the process (/sys/fs/bpf/sluice)")
	f.StringVar(&o.onExit, "on-exit", "open", "open, closed or keep: what captured programs' connections get when the proxy is gone")
	f.StringVar(&o.captureWhenFull, "capture-when-full", "pass", "pass or capture: what becomes of connections that the kernel has no room to capture")
	f.Uint32Var(&o.captureMaxRoutes, "capture-max-routes", bpf.MaxRoutes, "how many entries a table of routes may have")
	f.StringVar(&o.inboundPorts, "capture-inbound-ports", "", "give connections that come from outside to these ports of this process's own network namespace to the inbound listener: all, or ports (80,443,8000-8010)")
	f.StringVar(&o.inboundExcludePorts, "capture-inbound-exclude-ports", "", "ports that are not captured inbound")
	f.StringVar(&o.envoyVersion, "envoy-version", "1.40.0", "the Envoy version that --version names")

	idle := func(name string) { _ = f.SetAnnotation(name, idleMark, nil) }
	for _, name := range []string{"enable-core-dump", "cpuset-threads", "enable-mutex-tracing", "disable-hot-restart", "enable-fine-grain-logging", "log-format-escaped", "log-stacktrace-single-entry",
		"skip-deprecated-logs", "ignore-unknown-dynamic-fields", "reject-unknown-dynamic-fields", "skip-hot-restart-parent-stats", "skip-hot-restart-on-no-parent", "use-dynamic-base-id"} {
		f.Bool(name, false, "accepted as Envoy's, without effect")
		idle(name)
	}
	for _, name := range []string{"socket-mode", "socket-path", "disable-extensions", "log-format", "base-id-path"} {
		f.String(name, "", "accepted as Envoy's, without effect")
		idle(name)
	}
	for _, name := range []string{"parent-shutdown-time-s", "restart-epoch", "base-id"} {
		f.Uint32(name, 0, "accepted as Envoy's, without effect")
		idle(name)
	}
	f.StringVar(&o.localAddressVersion, "local-address-ip-version", "", "v4 or v6; accepted as Envoy's, without effect")
	idle("local-address-ip-version")
	f.StringVar(&o.componentLogLevel, "component-log-level", "", "levels of single loggers, as upstream:debug,config:trace")
	f.StringArrayVar(&o.statsTags, "stats-tag", nil, "a tag of every figure, as name:value; may be given several times")
}

// grafts is --graft, or what --splice means for it: who asks for one of its paths is
// not to be given another.
func (o *options) grafts() string {
	switch {
	case o.graft != "":
		return o.graft
	case o.splice == "auto":
		return "auto"
	}
	return "off"
}

func idleFlags(cmd *cobra.Command) []string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if _, ok := f.Annotations[idleMark]; ok {
			names = append(names, f.Name)
		}
	})
	return names
}
