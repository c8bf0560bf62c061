// Command push measures one big push: 10 000 clusters of 10 endpoints and 1 000
// listeners, under Envoy and under Sluice in one run. It tells how long it takes
// to be in force and the memory then, the time to effect and the processor time
// of one changed endpoint, and what the relay's p99 is without and during the push.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"time"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "load" {
		if err := runLoad(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintf(os.Stderr, "load: %v\n", err)
			os.Exit(1)
		}
		return
	}
	// What this thread starts dies with it, and it lives as long as the process.
	runtime.LockOSThread()
	var o options
	flag.IntVar(&o.clusters, "clusters", 10000, "clusters")
	flag.IntVar(&o.endpoints, "endpoints", 10, "endpoints per cluster")
	flag.IntVar(&o.listeners, "listeners", 1000, "listeners")
	flag.StringVar(&o.api, "api", "DELTA_GRPC", "GRPC or DELTA_GRPC")
	flag.StringVar(&o.envoy, "envoy", "/opt/envoy/envoy/_bin/envoy", "Envoy; left out if empty")
	flag.StringVar(&o.sluice, "sluice", "bin/sluice", "Sluice")
	flag.Parse()
	// The generator shares the machine with what it measures.
	fmt.Printf("%d clusters x %d endpoints, %d listeners, %s, %d CPUs for all\n", o.clusters, o.endpoints, o.listeners, o.api, runtime.NumCPU())
	fmt.Printf("%-8s %10s %10s %12s %12s %14s %14s %12s\n", "", "in force", "memory", "CPU of push", "one endpoint", "CPU of that", "p99 before", "p99 in push")
	for _, p := range []struct{ name, binary string }{{"envoy", o.envoy}, {"sluice", o.sluice}} {
		if p.binary == "" {
			continue
		}
		if _, err := exec.LookPath(p.binary); err != nil {
			fmt.Printf("%-8s not there: %v\n", p.name, err)
			continue
		}
		f, err := o.measure(context.Background(), p.name, p.binary)
		if err != nil {
			fmt.Fprintf(os.Stderr, "measure %s: %v\n", p.name, err)
			os.Exit(1)
		}
		ms := func(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }
		fmt.Printf("%-8s %10s %7d MB %12s %12s %14s %14s %12s\n", p.name, f.inForce.Round(time.Millisecond), f.memory>>20,
			f.pushCPU.Round(time.Millisecond), ms(f.effect), ms(f.effectCPU), ms(f.calm), ms(f.busy))
	}
}
