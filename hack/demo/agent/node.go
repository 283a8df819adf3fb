package agent

import (
	"context"
	"net"
	"runtime"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// leaseSeconds and leasePause are the kubelet's: a node whose Lease is 40 s old is taken for dead.
	leaseSeconds = 40
	leasePause   = 10 * time.Second
)

// register makes the Node and reports it ready.
func (a *Agent) register(ctx context.Context) error {
	nodes := a.config.Client.CoreV1().Nodes()
	node, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: a.config.Name,
		Labels: map[string]string{
			corev1.LabelHostname: a.config.Name, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH,
		},
	}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		node, err = nodes.Get(ctx, a.config.Name, metav1.GetOptions{})
	}
	if err != nil {
		return err
	}
	if err := a.renew(ctx); err != nil {
		return err
	}
	node.Status = nodeStatus(a.config.Name, metav1.Now())
	if a.config.Listener != nil {
		if at, ok := a.config.Listener.Addr().(*net.TCPAddr); ok {
			node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(at.Port)
		}
	}
	_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

func nodeStatus(name string, now metav1.Time) corev1.NodeStatus {
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory: resource.MustParse("4Gi"), // Offered to the scheduler; nothing is measured or limited here.
		corev1.ResourcePods:   resource.MustParse("110"),
	}
	is := func(kind corev1.NodeConditionType, status corev1.ConditionStatus, reason string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: kind, Status: status, Reason: reason, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	return corev1.NodeStatus{
		Capacity: capacity, Allocatable: capacity,
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}, {Type: corev1.NodeHostName, Address: name}},
		Conditions: []corev1.NodeCondition{
			is(corev1.NodeReady, corev1.ConditionTrue, "AgentReady"),
			is(corev1.NodeMemoryPressure, corev1.ConditionFalse, "NotMeasured"),
			is(corev1.NodeDiskPressure, corev1.ConditionFalse, "NotMeasured"),
			is(corev1.NodePIDPressure, corev1.ConditionFalse, "NotMeasured"),
		},
		NodeInfo: corev1.NodeSystemInfo{
			KubeletVersion: "demo-agent", ContainerRuntimeVersion: "process://" + runtime.Version(),
			OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH, OSImage: runtime.GOOS,
		},
	}
}

// renewLease is the node's heartbeat. It blocks until ctx ends.
func (a *Agent) renewLease(ctx context.Context) {
	tick := time.NewTicker(leasePause)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := a.renew(ctx); err != nil && ctx.Err() == nil {
				a.config.Log.Warn("node lease not renewed", "error", err)
			}
		}
	}
}

func (a *Agent) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	leases := a.config.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	now, seconds := metav1.NowMicro(), int32(leaseSeconds)
	lease, err := leases.Get(ctx, a.config.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: a.config.Name, Namespace: corev1.NamespaceNodeLease},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &a.config.Name, LeaseDurationSeconds: &seconds, RenewTime: &now},
		}, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	lease.Spec.RenewTime = &now
	_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	return err
}
