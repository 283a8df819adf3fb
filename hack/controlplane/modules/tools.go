//go:build tools

// Package modules pins, in its own go.mod, the programs of a Kubernetes control plane, so that
// hack/controlplane can build them from the Go module proxy.
package modules

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
