package worlds

import (
	"context"
	"errors"
	"net/http/httptest"
	"regexp"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/webhook"
	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/rpcenv"
)

// A pod of a StatefulSet calls and is killed, its reply is sent while nobody reads the queue, and the pod that replaces it
// reads the reply with nothing but its environment and the call's ID, although a call of its own met the reply before.
func TestWorldSuccessorResumesACall(t *testing.T) {
	w := newWorld(t)
	w.must(admin.Create(t.Context(), &v1alpha1.ReplyHost{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "ledger"},
		Spec: v1alpha1.ReplyHostSpec{
			Identity: v1alpha1.IdentityStable, DrainSeconds: ptr.To[int32](0),
			// Where the operator's view has a gap, a successor waits for two of these.
			Heartbeat: &v1alpha1.HeartbeatPolicy{IntervalSeconds: ptr.To(int32(interval.Seconds()))},
		},
	}))
	sent := make(sends, 1)

	p := w.member("ledger-0")
	first := w.process(p, rpcclient.WithHooks(sent))
	id := rpcclient.NewCallID()
	call := echo.Start(t.Context(), first.channel, "hello", rpcclient.WithCallID(id), rpcclient.CallTimeout(soon))
	sent.await()
	first.kill()
	var cutOff *rpcclient.Error
	if _, err := call.Wait(t.Context()); !errors.As(err, &cutOff) || cutOff.Outcome != rpcclient.MaybeExecuted {
		t.Fatalf("the call that was cut off ended with %v", err)
	}
	w.stops(p)
	queue := queueOf(p)
	w.eventually("the pod goes", func() string { return w.gone(p) })

	w.respond(rpcclient.WithHooks(sent))
	sent.await()
	if q, there := sqs.Queue(queue); !there || q.Visible != 1 {
		t.Fatalf("the queue without a reader holds %d replies (it is there: %t)", q.Visible, there)
	}

	successor := w.member("ledger-0")
	if queueOf(successor) != queue {
		t.Fatalf("the successor reads %s, its predecessor read %s", queueOf(successor), queue)
	}
	// No reply is so young that it is left in the queue for another process without being held.
	second := w.process(successor, rpcclient.WithForeignGrace(0))
	if got, err := echo.Call(t.Context(), second.channel, "other", rpcclient.CallTimeout(soon)); err != nil || got != "other" {
		t.Fatal(got, err)
	}
	if got, err := echo.Resume(t.Context(), second.channel, id, rpcclient.CallTimeout(soon)); err != nil || got != "hello" {
		t.Errorf("resumed: %q, %v", got, err)
	}
	second.shutdown()
	w.stops(successor)
	w.ends()
}

var echo = rpcclient.NewMethod[string, string]("echo")

// sends tells of messages that SQS took.
type sends chan struct{}

// OnSQSRequest implements rpcclient.HookSQSRequest.
func (s sends) OnSQSRequest(r rpcclient.SQSRequest) {
	if r.Action != rpcclient.ActionSend || r.Err != nil {
		return
	}
	select {
	case s <- struct{}{}:
	default: // nobody awaits another
	}
}

// await waits for one.
func (s sends) await() { <-s }

// member creates a pod of the StatefulSet ledger, as the webhook would leave it, and runs it.
func (w *world) member(name string) *corev1.Pod {
	w.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: w.namespace, Name: name, Labels: map[string]string{v1alpha1.LabelInject: v1alpha1.InjectTrue},
			Annotations: map[string]string{
				v1alpha1.AnnotationCalls: "sum", v1alpha1.AnnotationReplyHost: "ledger", v1alpha1.AnnotationHeartbeat: v1alpha1.HeartbeatAnnotationPod,
			},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "ledger", UID: "s", Controller: ptr.To(true)}},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}, ServiceAccountName: "default", AutomountServiceAccountToken: ptr.To(false)},
	}
	w.must(webhook.Inject(p))
	w.must(admin.Create(w.Context(), p))
	w.starts(p)
	return p
}

// process is the program of a pod's container.
type process struct {
	w         *world
	requester *rpcclient.Requester
	channel   *rpcclient.Channel // sum
	network   *httptest.Server   // what it reaches SQS by
}

// process starts the program of the pod's container, with the environment that a kubelet gives it. Only SQS is elsewhere.
func (w *world) process(p *corev1.Pod, opts ...rpcclient.Option) *process {
	w.Helper()
	network := httptest.NewServer(sqs)
	w.Cleanup(network.Close)
	annotation := regexp.MustCompile(`^metadata\.annotations\['(.*)'\]$`)
	for _, v := range p.Spec.Containers[0].Env {
		if v.ValueFrom == nil {
			w.Fatalf("%s is a literal", v.Name)
		}
		field := v.ValueFrom.FieldRef.FieldPath
		value, ok := map[string]string{"metadata.name": p.Name, "metadata.uid": string(p.UID), "metadata.namespace": p.Namespace}[field]
		if m := annotation.FindStringSubmatch(field); m != nil {
			value, ok = p.Annotations[m[1]], true
		}
		if !ok {
			w.Fatalf("%s comes from %s", v.Name, field)
		}
		w.Setenv(v.Name, value)
	}
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true",
		injected.EnvEndpoint: network.URL, // as an author of the pod may set it
	} {
		w.Setenv(name, value)
	}
	r, err := rpcenv.NewRequester(w.Context(), append(opts, rpcclient.WithReceiveWait(time.Second))...)
	w.must(err)
	channel, err := r.Channel("sum")
	w.must(err)
	return &process{w: w, requester: r, channel: channel, network: network}
}

// kill ends the process as SIGKILL would: nothing of it reaches SQS any more, and its goroutines go.
func (p *process) kill() {
	p.w.Helper()
	p.network.CloseClientConnections()
	p.network.Close()
	cutOff, cancel := context.WithCancel(p.w.Context())
	cancel()
	if err := p.requester.Shutdown(cutOff); err == nil {
		p.w.Fatal("no call was cut off")
	}
}

// shutdown ends the process when it has nothing to wait for any more.
func (p *process) shutdown() {
	p.w.Helper()
	limited, cancel := context.WithTimeout(context.WithoutCancel(p.w.Context()), soon)
	defer cancel()
	p.w.must(p.requester.Shutdown(limited))
}

// respond answers on the channel sum until the test ends.
func (w *world) respond(opts ...rpcclient.Option) {
	w.Helper()
	c := &v1alpha1.RequestChannel{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "sum"}}
	w.reread(c)
	channel := rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "sum", URL: c.Status.QueueURL})
	responder, err := rpcclient.NewResponder(sqs.Client(), append(opts, channel, rpcclient.WithReceiveWait(time.Second))...)
	w.must(err)
	echo.Handle(responder, func(_ context.Context, s string) (string, error) { return s, nil })
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.Context()))
	served := make(chan error, 1)
	go func() { served <- responder.Serve(ctx) }()
	w.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			w.Error(err)
		}
	})
}
