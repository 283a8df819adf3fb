package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/hack/demo/process"
)

// expect waits until look finds what was promised. look returns what is still missing, "" when nothing is.
// When the time is up, the error says which promise broke and shows the state of things.
func (s *stage) expect(ctx context.Context, promise string, limit time.Duration, look func() (missing string, err error)) error {
	missing := ""
	err := poll(ctx, limit, func() (bool, error) {
		now, err := look()
		if err != nil {
			if ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			if errors.As(err, new(*broken)) {
				return false, err
			}
			now = err.Error() // An API server under load may fail once; the limit decides.
		}
		missing = now
		return now == "", nil
	})
	if errors.Is(err, errTime) {
		return s.breach(ctx, fmt.Sprintf("%s\n(after %s: %s)", promise, limit, missing))
	}
	return err
}

// breach is the error for a broken promise, with evidence.
func (s *stage) breach(ctx context.Context, promise string) error {
	b := &broken{promise: promise}
	for _, args := range [][]string{
		{"get", "rch,rph,rq,qp", "--all-namespaces", "-o", "wide"},
		{"get", "deployments,pods", "--namespace", namespace, "-o", "wide"},
		{"get", "leases", "--namespace", v1alpha1.HeartbeatNamespace},
		{"get", "events", "--all-namespaces", "--sort-by=.lastTimestamp", "--field-selector=type!=Normal"},
	} {
		output, err := s.kubectl(ctx, args...)
		if err != nil {
			output += err.Error()
		}
		b.evidence = append(b.evidence, evidence{"kubectl " + strings.Join(args, " "), output})
	}
	if state, err := s.sqs.state(ctx); err == nil {
		text := fmt.Sprintf("requests %v\nfailed   %v\n", state.Requests, state.Failed)
		for _, q := range state.Queues {
			text += fmt.Sprintf("%-70s visible %d, in flight %d\n", q.Name, q.Visible, q.InFlight)
		}
		b.evidence = append(b.evidence, evidence{"queues in SQS", text})
	}
	b.evidence = append(b.evidence, evidence{"last lines of the operator", process.Tail(s.operator.process().Log(), 15)})
	b.evidence = append(b.evidence, s.troubled(ctx)...)
	return b
}

// troubled are the last lines of a few pods that are not well, else of one of each.
func (s *stage) troubled(ctx context.Context) []evidence {
	var out []evidence
	seen := map[string]bool{}
	pods, err := s.pods(ctx, "")
	if err != nil {
		return nil
	}
	for i := range pods {
		p := &pods[i]
		app := p.Labels[appLabel]
		if ready(p) && seen[app] || len(out) > 4 || len(p.Status.ContainerStatuses) == 0 {
			continue
		}
		seen[app] = true
		c := p.Status.ContainerStatuses[0]
		out = append(out, evidence{"last lines of " + p.Name, process.Tail(s.agent.LogFile(p, c.Name, c.RestartCount), 6)})
	}
	return out
}

const appLabel = "app.kubernetes.io/name"

// pods lists the pods of an application ("" for all) in the demo's namespace, those that are going included.
func (s *stage) pods(ctx context.Context, app string) ([]corev1.Pod, error) {
	var list corev1.PodList
	options := []client.ListOption{client.InNamespace(namespace)}
	if app != "" {
		options = append(options, client.MatchingLabels{appLabel: app})
	}
	err := s.kube.List(ctx, &list, options...)
	return list.Items, err
}

// live leaves out the pods that are being deleted.
func live(pods []corev1.Pod) []corev1.Pod {
	var out []corev1.Pod
	for _, p := range pods {
		if p.DeletionTimestamp == nil {
			out = append(out, p)
		}
	}
	return out
}

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func gated(pod *corev1.Pod) bool { return len(pod.Spec.SchedulingGates) > 0 }

// gateWatch notes which of the demo's pods were ever held by a gate.
type gateWatch struct {
	watch watch.Interface
	done  chan struct{}
	held  map[types.UID]bool // the goroutine's until done is closed
}

func (s *stage) watchGates(ctx context.Context) (*gateWatch, error) {
	w, err := s.clients.CoreV1().Pods(namespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("watch pods: %w", err)
	}
	g := &gateWatch{watch: w, done: make(chan struct{}), held: map[types.UID]bool{}}
	go func() {
		defer close(g.done)
		for e := range w.ResultChan() {
			if pod, ok := e.Object.(*corev1.Pod); ok && gated(pod) {
				g.held[pod.UID] = true
			}
		}
	}()
	return g, nil
}

// stop ends the watch and returns how many pods were held. It may be called again.
func (g *gateWatch) stop() int {
	g.watch.Stop()
	<-g.done
	return len(g.held)
}

// processOf is the ID of the process of a pod's one container, as the node reports it.
func processOf(pod *corev1.Pod) (int, error) {
	if len(pod.Status.ContainerStatuses) != 1 || pod.Status.ContainerStatuses[0].State.Running == nil {
		return 0, fmt.Errorf("pod %s has no running container", pod.Name)
	}
	var pid int
	if _, err := fmt.Sscanf(pod.Status.ContainerStatuses[0].ContainerID, "process://%d", &pid); err != nil || pid <= 1 {
		return 0, fmt.Errorf("pod %s has no process: %q", pod.Name, pod.Status.ContainerStatuses[0].ContainerID)
	}
	return pid, nil
}

// signalPod sends a signal to a pod's process.
func signalPod(pod *corev1.Pod, what syscall.Signal) (pid int, err error) {
	if pid, err = processOf(pod); err != nil {
		return 0, err
	}
	return pid, syscall.Kill(pid, what)
}

// records lists the ReplyQueues of the whole cluster.
func (s *stage) records(ctx context.Context) ([]v1alpha1.ReplyQueue, error) {
	var list v1alpha1.ReplyQueueList
	err := s.kube.List(ctx, &list)
	return list.Items, err
}

// recordOf finds the record with that URL.
func (s *stage) recordOf(ctx context.Context, url string) (*v1alpha1.ReplyQueue, error) {
	all, err := s.records(ctx)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].Status.QueueURL == url {
			return &all[i], nil
		}
	}
	return nil, nil
}

// heartbeats counts the pods' Leases; the operator has one of its own among them.
func (s *stage) heartbeats(ctx context.Context) (int, error) {
	var list coordinationv1.LeaseList
	err := s.kube.List(ctx, &list, client.InNamespace(v1alpha1.HeartbeatNamespace), client.HasLabels{v1alpha1.LabelPodUID})
	return len(list.Items), err
}

// isReady says what a kind of ours lacks to be Ready.
func (s *stage) isReady(ctx context.Context, object client.Object, name string) (missing string, err error) {
	if err := s.kube.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, object); err != nil {
		return "", err
	}
	conditions := object.(interface{ GetConditions() []metav1.Condition }).GetConditions()
	c := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady)
	switch {
	case c == nil:
		return fmt.Sprintf("%T %s has no condition Ready", object, name), nil
	case c.Status != "True":
		return fmt.Sprintf("%T %s is not Ready: %s: %s", object, name, c.Reason, c.Message), nil
	}
	return "", nil
}

// gone reports whether an object does not exist.
func (s *stage) gone(ctx context.Context, object client.Object, key types.NamespacedName) (bool, error) {
	err := s.kube.Get(ctx, key, object)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	return false, err
}

// nodeReady waits for the node, and for the controller manager to have taken notice of it.
func (s *stage) nodeReady(ctx context.Context) error {
	return s.expect(ctx, "the node becomes ready", time.Minute, func() (string, error) {
		var node corev1.Node
		if err := s.kube.Get(ctx, types.NamespacedName{Name: nodeName}, &node); err != nil {
			return "", err
		}
		if len(node.Spec.Taints) > 0 {
			return fmt.Sprintf("it has the taint %s", node.Spec.Taints[0].Key), nil
		}
		return "", nil
	})
}

// scale sets the number of a Deployment's replicas as a user would.
func (s *stage) scale(ctx context.Context, deployment string, replicas int) error {
	_, err := s.kubectl(ctx, "scale", "--namespace", namespace, "deployment/"+deployment, fmt.Sprintf("--replicas=%d", replicas))
	return err
}
