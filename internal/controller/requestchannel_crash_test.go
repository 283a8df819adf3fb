package controller_test

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller/conditions"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

var everyPoint = flag.Bool("every-point", false, "stop at each external call of every life, and lose each call and each answer in turn; without, a sample")

var _ = ginkgo.Describe("Crash points of a channel", func() {
	ginkgo.It("lead to the same end wherever the process stops, or loses a call or its answer", func(ctx context.Context) {
		ctx = context.WithoutCancel(ctx)
		type point struct {
			crashPoints
			of   scenario
			want lived
		}
		var all []point
		for i, of := range scenarios {
			want := of.live(ctx, &crashPoints{})
			gomega.Expect(want.states).To(gomega.HaveLen(of.steps), of.name)
			for at := 1; at <= want.calls; at++ {
				for j, what := range []interruption{stops, losesCall, losesAnswer} {
					// The sample is another one in each life.
					if !*everyPoint && (at+i)%12 != 4*j {
						continue
					}
					all = append(all, point{crashPoints{at: at, what: what}, of, want})
				}
			}
		}
		points := make(chan point)
		var stopped atomic.Int64
		var runners sync.WaitGroup
		for range 4 {
			runners.Go(func() {
				for p := range points {
					try(ctx, p.of, &p.crashPoints, p.want)
					if p.what == stops {
						stopped.Add(1)
					}
				}
			})
		}
		for _, p := range all {
			points <- p
		}
		close(points)
		runners.Wait()
		// hack/crashpoints reads this line, if the test has not failed.
		fmt.Printf("\nCRASHPOINTS channel=%d\n", stopped.Load())
	})
})

// scenario is a life of a channel, which comes to as many states as it has steps.
type scenario struct {
	name  string
	steps int
	live  func(context.Context, *crashPoints) lived
}

var scenarios = []scenario{
	{"all that can be around a channel", 6, life},
	{"a name of its own", 4, named},
	{"adoption", 5, adopted},
	{"Retain", 3, retained},
	{"DeleteIfEmpty", 3, emptied},
	{"Observe", 4, observed},
	{"an edit that comes before the restart", 2, hasty},
}

// try lives a life in which one call is interrupted, and expects what one without gave.
func try(ctx context.Context, of scenario, p *crashPoints, want lived) {
	defer ginkgo.GinkgoRecover()
	where := func() string {
		return fmt.Sprintf("%s: call %d of %d, %s, %s", of.name, p.at, want.calls, p.call, p.what)
	}
	got := of.live(ctx, p)
	gomega.Expect(p.calls).To(gomega.BeNumerically(">=", p.at), "%s: the point was never reached", of.name)
	for i := range want.states {
		gomega.Expect(got.states[i]).To(gomega.ConsistOf(want.states[i]), "after step %d: %s", i+1, where())
	}
}

// life is the life of one channel with all that can be around it: created, changed in everything, drifted and its queue deleted by someone else, its
// dead-letter queue given up, deleted. In all of it, one external call is interrupted.
func life(ctx context.Context, points *crashPoints) (l lived) {
	ginkgo.GinkgoHelper()
	w := newLife(ctx, points)
	c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) {
		spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45), DelaySeconds: ptr.To[int32](5)}
		spec.Tags = v1alpha1.Tags{"team": "identity", "cost": "1"}
		spec.Binding = &v1alpha1.Binding{SecretName: "login"}
	})
	step := w.steps(c, points, &l)
	request, dead := w.named("login"), w.named("login_dlq")
	w.apply(c)
	step()
	// A queue that is deleted and created again in between would lose these.
	for _, name := range []string{request, dead} {
		w.sendTo(name)
	}
	change(w, c, func(c *v1alpha1.RequestChannel) {
		c.Spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](60), ReceiveWaitSeconds: ptr.To[int32](20)}
		c.Spec.Encryption = &v1alpha1.Encryption{Type: v1alpha1.EncryptionKMS, KMSKeyID: "alias/a"}
		c.Spec.Tags = v1alpha1.Tags{"team": "Identity"}
		c.Spec.DeadLetter.MaxReceiveCount = 7
		c.Spec.Binding.SecretName = "login-queue"
	})
	step()
	w.tamper(request)
	w.tamper(dead)
	change(w, c, func(c *v1alpha1.RequestChannel) {
		c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: "1"}
	})
	step()
	gomega.Expect(w.sqs.Requests(sqstest.Action("DeleteQueue"))).To(gomega.BeZero(), "nothing has asked for a deletion yet")
	w.deleteQueue(request)
	change(w, c, func(c *v1alpha1.RequestChannel) { c.Annotations[v1alpha1.AnnotationReconcileAt] = "2" })
	step()
	change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.DeadLetter, c.Spec.Binding = nil, nil })
	step()
	w.remove(c)
	step()
	w.ended(c, request, dead)
	return l
}

// newLife is a world with a queue that is nobody's business, whose operator makes its external calls through points.
func newLife(ctx context.Context, points *crashPoints) *world {
	ginkgo.GinkgoHelper()
	w := newWorld(ctx)
	_, err := w.sqs.Client().CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: ptr.To("bystander")})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	w.interrupted(points)
	w.restart()
	return w
}

// steps returns what ends each step of a life: all comes to rest, and is written down.
func (w *world) steps(c *v1alpha1.RequestChannel, points *crashPoints, l *lived) func() {
	return func() {
		ginkgo.GinkgoHelper()
		w.settle(c)
		w.pass(time.Minute) // until delayed messages are visible
		l.states = append(l.states, w.state(c))
		l.calls = points.calls
		w.pass(20 * time.Minute)
	}
}

// ended checks what is left of a life: not the channel, and of deletions only those of its own queues.
func (w *world) ended(c *v1alpha1.RequestChannel, own ...string) {
	ginkgo.GinkgoHelper()
	gomega.Expect(w.exists(c)).To(gomega.BeFalse())
	_, there := w.sqs.Queue("bystander")
	gomega.Expect(there).To(gomega.BeTrue())
	for _, r := range w.sqs.RequestLog(sqstest.Action("DeleteQueue")) {
		gomega.Expect(r.Queue).To(gomega.BeElementOf(own))
	}
}

// lived is what a life came to: what was there after each step, and how many external calls it took.
type lived struct {
	states [][]string
	calls  int
}

// state is what there is in SQS and what the channel says of it, a line each, without what differs between two runs.
func (w *world) state(c *v1alpha1.RequestChannel) (lines []string) {
	ginkgo.GinkgoHelper()
	rename := strings.NewReplacer(w.namespace, "namespace")
	add := func(what ...any) { lines = append(lines, rename.Replace(fmt.Sprintln(what...))) }
	for _, q := range w.sqs.Queues() {
		add("queue", q.Name)
		for name, value := range q.Attributes {
			if name != "CreatedTimestamp" && name != "LastModifiedTimestamp" {
				add("queue", q.Name, name, value)
			}
		}
		for key, value := range q.Tags {
			if key == v1alpha1.TagCreation {
				value = "made up"
			}
			add("queue", q.Name, "tag", key, value)
		}
	}
	var secrets corev1.SecretList
	gomega.Expect(direct.List(w.ctx, &secrets, client.InNamespace(w.namespace))).To(gomega.Succeed())
	for _, secret := range secrets.Items {
		for key, value := range secret.Data {
			add("secret", secret.Name, key, string(value))
		}
	}
	if !w.exists(c) {
		return lines
	}
	status := c.Status
	for _, condition := range status.Conditions {
		add("condition", condition.Type, condition.Status, condition.Reason)
	}
	add("observed", conditions.ObservedGeneration(c) == c.Generation, "finalizers", c.Finalizers)
	add("url", status.QueueURL, "arn", status.QueueARN, "account", status.AccountID, "region", status.Region)
	add("dead letters", status.DeadLetterQueueURL, status.DeadLetterQueueARN, status.DeadLetterTargetARN, "terms", status.AppliedTerms != "")
	add("attributes", status.AppliedAttributes, "tags", status.AppliedTags, "adopted", status.Adopted != nil)
	add("binding", status.Binding != nil, "handled", status.LastHandledReconcileAt)
	return lines
}

// settle reconciles a channel, in a new process after every stop and again after every error, until it is Ready and
// wants nothing sooner than a look for drift, or is gone.
func (w *world) settle(c *v1alpha1.RequestChannel) {
	ginkgo.GinkgoHelper()
	for range 40 {
		alive, err := w.survives(c)
		switch {
		case !alive:
			if w.afterStop != nil {
				w.afterStop()
			}
			w.restart()
		case err != nil:
			w.pass(time.Second)
		case !w.exists(c):
			return
		case w.result.RequeueAfter > 30*time.Minute && c.DeletionTimestamp == nil:
			w.checkStatus(c)
			return
		default:
			w.pass(w.result.RequeueAfter)
		}
	}
	ginkgo.Fail(fmt.Sprintf("%s does not settle: %v, again in %s", c.Name, c.Status.Conditions, w.result.RequeueAfter))
}

// survives reconciles once, and reports whether the process did not stop.
func (w *world) survives(c *v1alpha1.RequestChannel) (alive bool, err error) {
	ginkgo.GinkgoHelper()
	defer func() {
		if r := recover(); r != nil {
			if _, stopped := r.(stop); !stopped {
				panic(r)
			}
			alive = false
		}
	}()
	w.result, err = w.channels.Reconcile(w.ctx, requestFor(c))
	return true, err
}

// tamper changes a queue as somebody else might.
func (w *world) tamper(name string) {
	ginkgo.GinkgoHelper()
	w.set(name, map[string]string{
		"VisibilityTimeout": "77", "MessageRetentionPeriod": "777", "RedriveAllowPolicy": `{"redrivePermission":"allowAll"}`, "RedrivePolicy": "",
	})
	w.tag(name, map[string]string{"team": "theirs", "foreign": "stays"})
}
