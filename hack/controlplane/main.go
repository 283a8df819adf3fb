// Command controlplane puts the programs of a Kubernetes control plane into one folder, for envtest
// (KUBEBUILDER_ASSETS) and for the demo: etcd, kube-apiserver, kube-controller-manager, kube-scheduler
// and kubectl.
//
// What setup-envtest offers is downloaded where its index answers quickly; the rest, or everything, is
// built from Go modules, so that Go is all a machine needs. The versions are those of modules/go.mod.
// A second run with the same versions does nothing; an interrupted one is taken up where it ended; two
// at once wait for each other.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	dir := flag.String("dir", "bin/k8s", "folder for the programs")
	var o offer
	flag.StringVar(&o.index, "index", "", "URL of another index for setup-envtest, such as a mirror's")
	flag.DurationVar(&o.indexTimeout, "index-timeout", 10*time.Second,
		"how long the index may take to answer before everything is built; 0 builds without asking")
	flag.DurationVar(&o.downloadTimeout, "download-timeout", 90*time.Second,
		"how long the download may take once the index has answered")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *dir, o); err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		stop()
		os.Exit(1)
	}
}

// run leaves every program of the pinned versions in dir. It blocks while another run works in dir.
func run(ctx context.Context, dir string, o offer) error {
	src, err := findModules()
	if err != nil {
		return err
	}
	want, err := readPins(src)
	if err != nil {
		return err
	}
	if len(missing(dir, want)) == 0 {
		return nil
	}

	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	unlock, err := lock(ctx, dir)
	if err != nil {
		return err
	}
	defer unlock()

	todo := missing(dir, want)
	if len(todo) == 0 {
		return nil
	}
	start := time.Now()
	fmt.Printf("Control plane %s into %s: %d of %d programs to get (a cold build takes minutes, a second run nothing)\n",
		want.kubernetes, dir, len(todo), len(programs))
	if o.indexTimeout > 0 && anyDownloadable(todo) {
		if err := download(ctx, src, dir, want, o); err != nil {
			fmt.Printf("  nothing to download (%v): building from Go modules\n", err)
		}
	}
	todo = missing(dir, want)
	for i, p := range todo {
		if err := build(ctx, src, dir, want, p, i+1, len(todo)); err != nil {
			return err
		}
	}
	fmt.Printf("Control plane ready in %s\n", time.Since(start).Round(time.Second))
	return nil
}
