// Command localkube is every Kubernetes program that one machine needs, in one binary:
//
//	localkube etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubelet|kube-proxy|kubectl ...
//
// Under the name of a program (a link called kubectl) it is that program.
// One binary links the shared code once (160 MB instead of 600 MB, minutes instead of half an hour).
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/etcd/server/v3/etcdmain"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// An empty store would otherwise preallocate two segments of 64 MB.
const walSegmentBytes = 4 << 20

// Each entry constructs its program only when it is called: feature gates, metric registries, klog and the
// signal handler are global, so two programs in one process would collide.
var programs = map[string]func(args []string){
	"etcd":                    runEtcd,
	"kube-apiserver":          func([]string) { os.Exit(cli.Run(apiserver.NewAPIServerCommand())) },
	"kube-controller-manager": func([]string) { os.Exit(cli.Run(controllers.NewControllerManagerCommand())) },
	"kube-scheduler":          func([]string) { os.Exit(cli.Run(scheduler.NewSchedulerCommand())) },
	"kubelet":                 func([]string) { os.Exit(cli.Run(kubelet.NewKubeletCommand(context.Background()))) },
	"kube-proxy":              func([]string) { os.Exit(cli.Run(proxy.NewProxyCommand())) },
	"kubectl":                 runKubectl,
}

func runEtcd(args []string) {
	wal.SegmentSizeBytes = walSegmentBytes
	etcdmain.Main(args)
}

func runKubectl([]string) {
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
}

func main() {
	if _, known := programs[filepath.Base(os.Args[0])]; !known && len(os.Args) > 1 {
		os.Args = os.Args[1:]
	}
	os.Args[0] = filepath.Base(os.Args[0])
	if run, known := programs[os.Args[0]]; known {
		run(os.Args)
		return
	}
	var names []string
	for name := range programs {
		names = append(names, name)
	}
	slices.Sort(names)
	fmt.Fprintf(os.Stderr, "usage: localkube %s ...\n", strings.Join(names, "|"))
	os.Exit(2)
}
