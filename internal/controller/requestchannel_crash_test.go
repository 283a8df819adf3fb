package controller_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
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

var everyLoss = flag.Bool("every-loss", false, "lose each external call and each answer in turn, beside stopping at each")

var _ = ginkgo.Describe("Crash points of a channel", func() {
	ginkgo.It("lead to the same end wherever the process stops, or loses a call or its answer", func(ctx context.Context) {
		ctx = context.WithoutCancel(ctx)
		want := life(ctx, &crashPoints{})
		gomega.Expect(want.states).To(gomega.HaveLen(6))
		queues := func(lines []string) []string {
			return slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return !strings.HasPrefix(line, "queue ") || strings.Count(line, " ") > 1 })
		}
		gomega.Expect(queues(want.states[0])).To(gomega.HaveLen(3), "the channel's two, and the bystander")
		gomega.Expect(queues(want.states[5])).To(gomega.HaveLen(1), "the bystander")

		points := make(chan crashPoints)
		var runners sync.WaitGroup
		for range 4 {
			runners.Go(func() {
				for p := range points {
					try(ctx, &p, want)
				}
			})
		}
		for at := 1; at <= want.calls; at++ {
			points <- crashPoints{at: at, what: stops}
			// The process that lives on has a memory, which may be wrong then.
			if *everyLoss || at%6 == 0 {
				points <- crashPoints{at: at, what: losesCall}
			}
			if *everyLoss || at%6 == 3 {
				points <- crashPoints{at: at, what: losesAnswer}
			}
		}
		close(points)
		runners.Wait()
		// hack/crashpoints reads this line, if the test has not failed.
		fmt.Printf("\nCRASHPOINTS channel=%d\n", want.calls)
	})
})

// try lives a life in which one call is interrupted, and expects what one without gave.
func try(ctx context.Context, p *crashPoints, want lived) {
	defer ginkgo.GinkgoRecover()
	where := func() string { return fmt.Sprintf("call %d of %d, %s, %s", p.at, want.calls, p.call, p.what) }
	got := life(ctx, p)
	gomega.Expect(p.calls).To(gomega.BeNumerically(">=", p.at), "the point was never reached")
	for i := range want.states {
		gomega.Expect(got.states[i]).To(gomega.ConsistOf(want.states[i]), "after step %d: %s", i+1, where())
	}
}

// life is the life of one channel with all that can be around it: created, changed in everything, drifted and its queue deleted by someone else, its
// dead-letter queue given up, deleted. In all of it, one external call is interrupted.
func life(ctx context.Context, points *crashPoints) (l lived) {
	ginkgo.GinkgoHelper()
	w := newWorld(ctx)
	_, err := w.sqs.Client().CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: ptr.To("bystander")})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	w.interrupted(points)
	w.restart()
	c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) {
		spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45), DelaySeconds: ptr.To[int32](5)}
		spec.Tags = v1alpha1.Tags{"team": "identity", "cost": "1"}
		spec.Binding = &v1alpha1.Binding{SecretName: "login"}
	})
	step := func() {
		ginkgo.GinkgoHelper()
		w.settle(c)
		w.pass(time.Minute) // until delayed messages are visible
		l.states = append(l.states, w.state(c))
		l.calls = points.calls
		w.pass(20 * time.Minute)
	}
	request, dead := "rq_"+clusterName+"_"+w.namespace+"_login", "rq_"+clusterName+"_"+w.namespace+"_login_dlq"
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
	gomega.Expect(w.exists(c)).To(gomega.BeFalse())
	for _, r := range w.sqs.RequestLog(sqstest.Action("DeleteQueue")) {
		gomega.Expect(r.Queue).To(gomega.BeElementOf(request, dead))
	}
	return l
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
	q, there := w.sqs.Queue(name)
	gomega.Expect(there).To(gomega.BeTrue())
	_, err := w.sqs.Client().SetQueueAttributes(w.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &q.URL, Attributes: map[string]string{
		"VisibilityTimeout": "77", "MessageRetentionPeriod": "777", "RedriveAllowPolicy": `{"redrivePermission":"allowAll"}`, "RedrivePolicy": "",
	}})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	_, err = w.sqs.Client().TagQueue(w.ctx, &sqs.TagQueueInput{QueueUrl: &q.URL, Tags: map[string]string{"team": "theirs", "foreign": "stays"}})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
}

// deleteQueue deletes a queue as somebody else might, and forgets that request: the operator made none.
func (w *world) deleteQueue(name string) {
	ginkgo.GinkgoHelper()
	q, there := w.sqs.Queue(name)
	gomega.Expect(there).To(gomega.BeTrue())
	_, err := w.sqs.Client().DeleteQueue(w.ctx, &sqs.DeleteQueueInput{QueueUrl: &q.URL})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	w.sqs.ResetRequests()
}

func (w *world) sendTo(name string) {
	ginkgo.GinkgoHelper()
	q, there := w.sqs.Queue(name)
	gomega.Expect(there).To(gomega.BeTrue())
	_, err := w.sqs.Client().SendMessage(w.ctx, &sqs.SendMessageInput{QueueUrl: &q.URL, MessageBody: ptr.To("x")})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
}
