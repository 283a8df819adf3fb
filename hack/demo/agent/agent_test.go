package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/replyqueue/replyqueue/hack/demo/agent"
	"github.com/replyqueue/replyqueue/hack/demo/cluster"
	"github.com/replyqueue/replyqueue/hack/demo/process"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

const roleVariable = "AGENT_TEST_ROLE"

// TestMain lets the test binary play the programs that run in containers.
func TestMain(m *testing.M) {
	process.ReapIfAsked()
	role := os.Getenv(roleVariable)
	if role == "" {
		os.Exit(m.Run())
	}
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	switch role {
	case "report": // Says what it was given, and ends well when asked to.
		token, err := os.ReadFile(filepath.Join(os.Getenv(injected.EnvServiceAccountDir), "token"))
		addresses, _ := os.ReadFile(os.Getenv(injected.EnvReturnAddressesFile))
		_ = json.NewEncoder(os.Stdout).Encode(map[string]any{
			"args": os.Args[1:], "env": os.Environ(), "token": string(token), "err": fmt.Sprint(err), "addresses": string(addresses),
		})
		<-asked
		os.Exit(0)
	case "stubborn":
		fmt.Println("deaf")
		for range asked {
			fmt.Println("asked to end")
		}
	default: // Ends with the status given.
		code, err := strconv.Atoi(role)
		if err != nil {
			panic(role)
		}
		os.Exit(code)
	}
}

const (
	nodeName  = "n1"
	namespace = "default"
	image     = "example.com:5000/program"
)

// node is a control plane with one node, as a test sees it.
type node struct {
	g     *WithT
	admin kubernetes.Interface
	agent *agent.Agent
	// unreachable makes every request of the agent fail while set.
	unreachable atomic.Bool
}

type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// One control plane serves all tests: starting one takes seconds.
func TestAgent(t *testing.T) {
	g := NewWithT(t)
	bin := os.Getenv("KUBEBUILDER_ASSETS")
	g.Expect(bin).NotTo(BeEmpty(), "KUBEBUILDER_ASSETS must name the folder of the control plane's programs: run `make test`")
	c, err := cluster.Start(t.Context(), cluster.Config{Bin: bin, Dir: t.TempDir(), APIServerOnly: true})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(c.Stop)
	adminConfig, err := c.Admin()
	g.Expect(err).NotTo(HaveOccurred())
	n := &node{g: g, admin: kubernetes.NewForConfigOrDie(adminConfig)}
	nodeConfig, err := c.Node(nodeName)
	g.Expect(err).NotTo(HaveOccurred())
	nodeConfig.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return transport(func(r *http.Request) (*http.Response, error) {
			if n.unreachable.Load() {
				return nil, errors.New("unreachable, says the test")
			}
			return next.RoundTrip(r)
		})
	})

	// What the controller manager, which does not run here, would have made.
	_, err = n.admin.CoreV1().ServiceAccounts(namespace).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	_, err = n.admin.CoreV1().ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": string(c.CA())},
	}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())

	listener, err := c.ListenAsNode()
	g.Expect(err).NotTo(HaveOccurred())
	n.agent = agent.New(agent.Config{
		Listener: listener,
		Client:   kubernetes.NewForConfigOrDie(rest.CopyConfig(nodeConfig)), Name: nodeName, Dir: t.TempDir(), APIServerPort: c.Port(),
		Images: map[string]string{image: os.Args[0]}, Env: []corev1.EnvVar{{Name: "AWS_REGION", Value: "us-east-1"}},
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.agent.Run(ctx) }()
	n.eventually(t, func(g Gomega) {
		is, err := n.admin.CoreV1().Nodes().Get(t.Context(), nodeName, metav1.GetOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(is.Status.Conditions).To(ContainElement(And(HaveField("Type", corev1.NodeReady), HaveField("Status", corev1.ConditionTrue))))
		_, err = n.admin.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(t.Context(), nodeName, metav1.GetOptions{})
		g.Expect(err).NotTo(HaveOccurred())
	})

	t.Run("environment and token are those of the moment the container starts", n.environment)
	t.Run("a killed container is restarted in the same pod, after a pause", n.restart)
	t.Run("deletion asks, and the end is reported before the pod is gone", n.graceful)
	t.Run("deletion kills who does not listen", n.stubborn)
	t.Run("deletion by force kills at once", n.forced)
	t.Run("an image without a program shows in the pod's status", n.unknownImage)
	t.Run("kubectl logs gets a container's output", n.output)
	t.Run("init containers come first and one by one", n.initContainers)
	t.Run("a container that failed for good fails its pod", n.failed)
	t.Run("containers go on while the API server is away, and what happened is told later", n.outage)

	last := n.create(t, "last", n.container("report"))
	pid := n.running(t, last.Name)
	stop()
	g.Expect(<-ended).NotTo(HaveOccurred())
	g.Expect(syscall.Kill(pid, 0)).To(MatchError(syscall.ESRCH), "a container outlived its node")
}

func (n *node) eventually(t *testing.T, check func(g Gomega)) {
	t.Helper()
	NewWithT(t).Eventually(check).WithTimeout(30 * time.Second).WithPolling(20 * time.Millisecond).Should(Succeed())
}

func (n *node) container(role string, env ...corev1.EnvVar) corev1.Container {
	return corev1.Container{Name: "main", Image: image + ":v1", Env: append([]corev1.EnvVar{{Name: roleVariable, Value: role}}, env...)}
}

// create makes a pod that is bound to the node.
func (n *node) create(t *testing.T, name string, c corev1.Container, change ...func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{NodeName: nodeName, Containers: []corev1.Container{c}}}
	for _, f := range change {
		f(pod)
	}
	pod, err := n.admin.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return pod
}

func (n *node) get(ctx context.Context, g Gomega, name string) *corev1.Pod {
	pod, err := n.admin.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	return pod
}

// running waits until the pod is ready and returns the process of its first container.
func (n *node) running(t *testing.T, name string) (pid int) {
	t.Helper()
	n.eventually(t, func(g Gomega) {
		pod := n.get(t.Context(), g, name)
		g.Expect(pod.Status.Phase).To(Equal(corev1.PodRunning))
		g.Expect(pod.Status.Conditions).To(ContainElement(And(HaveField("Type", corev1.PodReady), HaveField("Status", corev1.ConditionTrue))))
		g.Expect(pod.Status.ContainerStatuses).To(HaveLen(1))
		s := pod.Status.ContainerStatuses[0]
		g.Expect(s.State.Running).NotTo(BeNil())
		_, err := fmt.Sscanf(s.ContainerID, "process://%d", &pid)
		g.Expect(err).NotTo(HaveOccurred())
	})
	NewWithT(t).Expect(syscall.Kill(pid, 0)).To(Succeed(), "the process that the pod's status names")
	return pid
}

// history records what the API server tells of a pod until it is deleted.
func (n *node) history(t *testing.T, name string) <-chan []corev1.PodStatus {
	t.Helper()
	w, err := n.admin.CoreV1().Pods(namespace).Watch(t.Context(), metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	done := make(chan []corev1.PodStatus, 1)
	go func() {
		defer w.Stop()
		var all []corev1.PodStatus
		for e := range w.ResultChan() {
			if pod, ok := e.Object.(*corev1.Pod); ok {
				all = append(all, pod.Status)
			}
			if e.Type == watch.Deleted {
				break
			}
		}
		done <- all
	}()
	return done
}

func (n *node) environment(t *testing.T) {
	g := NewWithT(t)
	late := &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations['x.example.com/late']"}
	c := n.container("report",
		corev1.EnvVar{Name: "LATE", ValueFrom: &corev1.EnvVarSource{FieldRef: late}},
		corev1.EnvVar{Name: injected.EnvReturnAddressesFile, Value: injected.ReturnAddressesDir + "/" + injected.ReturnAddressesFile},
		corev1.EnvVar{Name: "AWS_REGION", Value: "eu-west-1"})
	c.VolumeMounts = []corev1.VolumeMount{{Name: "addresses", MountPath: injected.ReturnAddressesDir}}
	c.Command, c.Args = []string{"/bin/" + filepath.Base(os.Args[0])}, []string{"-role=$(" + roleVariable + ")"}
	pod := n.create(t, "environment", c, func(p *corev1.Pod) {
		p.Spec.NodeName = ""
		p.Spec.Volumes = []corev1.Volume{{Name: "addresses", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
			Items: []corev1.DownwardAPIVolumeFile{{Path: injected.ReturnAddressesFile, FieldRef: late}},
		}}}}
	})
	_, err := n.admin.CoreV1().Pods(namespace).Patch(t.Context(), pod.Name, "application/merge-patch+json",
		[]byte(`{"metadata":{"annotations":{"x.example.com/late":"in time"}}}`), metav1.PatchOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(n.admin.CoreV1().Pods(namespace).Bind(t.Context(), &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: nodeName},
	}, metav1.CreateOptions{})).To(Succeed())
	n.running(t, pod.Name)

	var said struct {
		Args, Env             []string
		Token, Err, Addresses string
	}
	n.eventually(t, func(g Gomega) {
		text, err := os.ReadFile(n.agent.LogFile(pod, "main", 0))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(json.NewDecoder(bytes.NewReader(text)).Decode(&said)).To(Succeed())
	})
	g.Expect(said.Args).To(Equal([]string{"-role=report"}))
	g.Expect(said.Env).To(ContainElements("LATE=in time", "AWS_REGION=eu-west-1", "KUBERNETES_SERVICE_HOST=127.0.0.1", "HOSTNAME="+pod.Name))
	g.Expect(said.Env).NotTo(ContainElement("AWS_REGION=us-east-1"))
	g.Expect(said.Err).To(Equal("<nil>"))
	g.Expect(said.Addresses).To(Equal("in time"), "what a downwardAPI volume holds")
	review, err := n.admin.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: said.Token}}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(review.Status.User.Username).To(Equal("system:serviceaccount:default:default"))
	g.Expect(review.Status.User.Extra).To(HaveKeyWithValue("authentication.kubernetes.io/pod-uid", authenticationv1.ExtraValue{string(pod.UID)}))
}

func (n *node) restart(t *testing.T) {
	g := NewWithT(t)
	n.create(t, "restart", n.container("report"))
	pid := n.running(t, "restart")
	history := n.history(t, "restart")
	g.Expect(syscall.Kill(pid, syscall.SIGKILL)).To(Succeed())
	var status corev1.ContainerStatus
	n.eventually(t, func(g Gomega) {
		status = n.get(t.Context(), g, "restart").Status.ContainerStatuses[0]
		g.Expect(status.RestartCount).To(Equal(int32(1)))
	})
	last := status.LastTerminationState.Terminated
	g.Expect(last).NotTo(BeNil())
	g.Expect(last.ExitCode).To(Equal(int32(137)))
	g.Expect(last.ContainerID).To(Equal(fmt.Sprintf("process://%d", pid)))
	g.Expect(n.running(t, "restart")).NotTo(Equal(pid))
	// Times in a status have whole seconds, so the pause can look like 1 s or 2 s, and not like none.
	g.Expect(status.State.Running.StartedAt.Time).NotTo(BeTemporally("<", last.FinishedAt.Add(time.Second)))

	g.Expect(n.admin.CoreV1().Pods(namespace).Delete(t.Context(), "restart", metav1.DeleteOptions{})).To(Succeed())
	g.Expect(<-history).To(ContainElement(HaveField("ContainerStatuses", ContainElement(And(
		HaveField("State.Waiting", HaveValue(HaveField("Reason", "CrashLoopBackOff"))), HaveField("Ready", BeFalse()))))))
}

func (n *node) graceful(t *testing.T) {
	g := NewWithT(t)
	pod := n.create(t, "graceful", n.container("report"))
	pid := n.running(t, "graceful")
	n.eventually(t, func(g Gomega) { g.Expect(process.Tail(n.agent.LogFile(pod, "main", 0), 1)).To(ContainSubstring("env")) })
	history := n.history(t, "graceful")
	g.Expect(n.admin.CoreV1().Pods(namespace).Delete(t.Context(), "graceful", metav1.DeleteOptions{})).To(Succeed())
	all := <-history
	g.Expect(len(all)).To(BeNumerically(">", 2))
	before := all[len(all)-2] // The last update that came before the deletion.
	g.Expect(before.ContainerStatuses[0].State.Terminated).NotTo(BeNil())
	g.Expect(before.ContainerStatuses[0].State.Terminated.ExitCode).To(BeZero())
	g.Expect(before.Phase).To(Equal(corev1.PodSucceeded))
	g.Expect(syscall.Kill(pid, 0)).To(MatchError(syscall.ESRCH))
}

func (n *node) stubborn(t *testing.T) {
	g := NewWithT(t)
	pod := n.create(t, "stubborn", n.container("stubborn"))
	n.running(t, "stubborn")
	n.eventually(t, func(g Gomega) {
		g.Expect(process.Tail(n.agent.LogFile(pod, "main", 0), 9)).To(ContainSubstring("deaf"))
	})
	history := n.history(t, "stubborn")
	grace := int64(1)
	g.Expect(n.admin.CoreV1().Pods(namespace).Delete(t.Context(), "stubborn", metav1.DeleteOptions{GracePeriodSeconds: &grace})).To(Succeed())
	all := <-history
	end := all[len(all)-2].ContainerStatuses[0].State.Terminated
	g.Expect(end).NotTo(BeNil())
	g.Expect(end.ExitCode).To(Equal(int32(137)))
	g.Expect(process.Tail(n.agent.LogFile(pod, "main", 0), 9)).To(ContainSubstring("asked to end"))
}

func (n *node) forced(t *testing.T) {
	g := NewWithT(t)
	n.create(t, "forced", n.container("stubborn"))
	pid := n.running(t, "forced")
	now := int64(0)
	g.Expect(n.admin.CoreV1().Pods(namespace).Delete(t.Context(), "forced", metav1.DeleteOptions{GracePeriodSeconds: &now})).To(Succeed())
	n.eventually(t, func(g Gomega) { g.Expect(syscall.Kill(pid, 0)).To(MatchError(syscall.ESRCH)) })
}

func (n *node) unknownImage(t *testing.T) {
	g := NewWithT(t)
	n.create(t, "unknown", corev1.Container{Name: "main", Image: "nginx:1"})
	n.eventually(t, func(g Gomega) {
		s := n.get(t.Context(), g, "unknown").Status
		g.Expect(s.Phase).To(Equal(corev1.PodPending))
		g.Expect(s.ContainerStatuses).To(HaveLen(1))
		g.Expect(s.ContainerStatuses[0].State.Waiting).NotTo(BeNil())
		g.Expect(s.ContainerStatuses[0].State.Waiting.Reason).To(Equal("ErrImagePull"))
		g.Expect(s.ContainerStatuses[0].State.Waiting.Message).To(And(ContainSubstring(`"nginx:1"`), ContainSubstring(image)))
	})
	g.Expect(n.admin.CoreV1().Pods(namespace).Delete(t.Context(), "unknown", metav1.DeleteOptions{})).To(Succeed())
	n.eventually(t, func(g Gomega) {
		_, err := n.admin.CoreV1().Pods(namespace).Get(t.Context(), "unknown", metav1.GetOptions{})
		g.Expect(apierrors.IsNotFound(err)).To(BeTrue())
	})
}

func (n *node) output(t *testing.T) {
	g := NewWithT(t)
	pod := n.create(t, "output", n.container("0"), func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })
	n.eventually(t, func(g Gomega) { g.Expect(n.get(t.Context(), g, "output").Status.Phase).To(Equal(corev1.PodSucceeded)) })
	// The container runs no more: from here on the files are the test's.
	write := func(run int32, text string) {
		g.Expect(os.WriteFile(n.agent.LogFile(pod, "main", run), []byte(text), 0o600)).To(Succeed())
	}
	write(0, "old\n")
	write(1, "one\ntwo\nthree\n")
	two := int64(2)
	for _, c := range []struct {
		options corev1.PodLogOptions
		want    string
	}{
		{corev1.PodLogOptions{}, "one\ntwo\nthree\n"},
		{corev1.PodLogOptions{TailLines: &two}, "two\nthree\n"},
		{corev1.PodLogOptions{TailLines: new(int64)}, ""},
		{corev1.PodLogOptions{Previous: true}, "old\n"},
	} {
		text, err := n.admin.CoreV1().Pods(namespace).GetLogs("output", &c.options).DoRaw(t.Context())
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(string(text)).To(Equal(c.want))
	}

	stream, err := n.admin.CoreV1().Pods(namespace).GetLogs("output", &corev1.PodLogOptions{Follow: true, TailLines: &two}).Stream(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	defer func() { _ = stream.Close() }()
	lines := bufio.NewScanner(stream)
	next := func() string { lines.Scan(); return lines.Text() }
	g.Expect([]string{next(), next()}).To(Equal([]string{"two", "three"}))
	write(1, "one\ntwo\nthree\nfour\n")
	g.Expect(next()).To(Equal("four"))
	write(2, "")
	g.Expect(lines.Scan()).To(BeFalse(), "it follows one run")
}

func (n *node) initContainers(t *testing.T) {
	g := NewWithT(t)
	always := corev1.ContainerRestartPolicyAlways
	first, second, third := n.container("report"), n.container("0"), n.container("report")
	first.Name, first.RestartPolicy, second.Name = "sidecar", &always, "once"
	n.create(t, "init", third, func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{first, second} })
	n.running(t, "init")
	s := n.get(t.Context(), g, "init").Status
	g.Expect(s.InitContainerStatuses).To(HaveLen(2))
	g.Expect(s.InitContainerStatuses[0].State.Running).NotTo(BeNil())
	g.Expect(s.InitContainerStatuses[1].State.Terminated).To(HaveValue(HaveField("Reason", "Completed")))
	g.Expect(s.Conditions).To(ContainElement(And(HaveField("Type", corev1.PodInitialized), HaveField("Status", corev1.ConditionTrue))))
	g.Expect(s.InitContainerStatuses[1].State.Terminated.FinishedAt.After(s.ContainerStatuses[0].State.Running.StartedAt.Time)).To(BeFalse())
}

func (n *node) failed(t *testing.T) {
	n.create(t, "failed", n.container("3"), func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })
	n.eventually(t, func(g Gomega) {
		s := n.get(t.Context(), g, "failed").Status
		g.Expect(s.Phase).To(Equal(corev1.PodFailed))
		g.Expect(s.ContainerStatuses[0].State.Terminated).To(HaveValue(HaveField("ExitCode", int32(3))))
		g.Expect(s.ContainerStatuses[0].RestartCount).To(BeZero())
	})
}

func (n *node) outage(t *testing.T) {
	g := NewWithT(t)
	always := n.create(t, "outage", n.container("report"))
	never := n.create(t, "outage-once", n.container("report"), func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyNever })
	pid, once := n.running(t, always.Name), n.running(t, never.Name)
	n.eventually(t, func(g Gomega) {
		g.Expect(process.Tail(n.agent.LogFile(never, "main", 0), 1)).To(ContainSubstring("env"))
	})
	n.unreachable.Store(true)
	g.Expect(syscall.Kill(once, syscall.SIGTERM)).To(Succeed())
	n.eventually(t, func(g Gomega) { g.Expect(syscall.Kill(once, 0)).To(MatchError(syscall.ESRCH)) })
	g.Expect(syscall.Kill(pid, 0)).To(Succeed(), "a container ended because the API server was away")
	g.Expect(n.get(t.Context(), g, never.Name).Status.Phase).To(Equal(corev1.PodRunning), "nobody can have told")
	n.unreachable.Store(false)
	n.eventually(t, func(g Gomega) {
		g.Expect(n.get(t.Context(), g, never.Name).Status.Phase).To(Equal(corev1.PodSucceeded))
	})
	g.Expect(n.running(t, always.Name)).To(Equal(pid))
	g.Expect(strings.TrimSpace(process.Tail(n.agent.LogFile(always, "main", 1), 1))).To(ContainSubstring("no such file"), "it was restarted")
}
