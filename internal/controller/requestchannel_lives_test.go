package controller_test

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// More lives of channels, for the crash points.

func asking(at string) func(*v1alpha1.RequestChannel) {
	return func(c *v1alpha1.RequestChannel) {
		c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: at}
	}
}

// named is a FIFO channel with a name of its own, from a QueueProvider with tags of its own.
func named(ctx context.Context, points *crashPoints) (l lived) {
	ginkgo.GinkgoHelper()
	w := newLife(ctx, points)
	p := w.providerFor(allowing("orders*"), func(spec *v1alpha1.QueueProviderSpec) {
		spec.DefaultTags, spec.AllowPolicies = v1alpha1.Tags{"env": "test", "team": "platform"}, ptr.To(true)
	})
	c := channelNamed("orders", using(p), called("orders.fifo"), withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) {
		spec.FIFO = &v1alpha1.FIFO{}
		spec.Policy = `{"Version":"2012-10-17","Statement":[]}`
		spec.Tags = v1alpha1.Tags{"team": "shop"}
	})
	step := w.steps(c, points, &l)
	w.apply(c)
	step()
	change(w, c, func(c *v1alpha1.RequestChannel) {
		c.Spec.FIFO.ContentBasedDeduplication = v1alpha1.ContentBasedDeduplicationEnabled
		c.Spec.Policy, c.Spec.Tags = "", nil
	})
	step()
	w.tamper("orders.fifo")
	change(w, c, asking("1"))
	step()
	w.remove(c)
	step()
	w.ended(c, "orders.fifo", "rq_"+clusterName+"_"+w.namespace+"_orders_dlq.fifo")
	return l
}

// adopted is a queue that is taken over, deleted by somebody, and made again; and one that is given back.
func adopted(ctx context.Context, points *crashPoints) (l lived) {
	ginkgo.GinkgoHelper()
	w := newLife(ctx, points)
	p := w.providerFor(allowing("orders"))
	theirs := func() {
		w.queueTagged("orders", map[string]string{v1alpha1.TagAdoptableBy: clusterName + "/" + w.namespace, "team": "theirs"})
		q, _ := w.sqs.Queue("orders")
		_, err := w.sqs.Client().SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: &q.URL, Attributes: map[string]string{"DelaySeconds": "3"}})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
	}
	theirs()
	c := channelNamed("orders", using(p), called("orders"), adopting, withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) {
		spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45)}
		spec.Tags = v1alpha1.Tags{"cost": "1"}
	})
	step := w.steps(c, points, &l)
	w.apply(c)
	step()
	w.sendTo("orders")
	change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Queue, c.Spec.Tags = nil, nil })
	step()
	w.tamper("orders")
	change(w, c, asking("1"))
	step()
	// Deleted and made again it is the channel's own, and goes with it; until then it would be left.
	w.deleteQueue("orders")
	change(w, c, asking("2"))
	step()
	w.remove(c)
	step()
	w.ended(c, "orders", w.named("orders_dlq"))
	return l
}

// retained is a channel whose queues stay: both of them, with their messages and without our tags.
func retained(ctx context.Context, points *crashPoints) (l lived) {
	ginkgo.GinkgoHelper()
	w := newLife(ctx, points)
	c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) {
		spec.DeletionPolicy = v1alpha1.DeletionPolicyRetain
		spec.Tags = v1alpha1.Tags{"cost": "1"}
	})
	step := w.steps(c, points, &l)
	w.apply(c)
	step()
	request := w.named("login")
	w.sendTo(request)
	w.remove(c)
	step()
	w.ended(c)
	q, there := w.sqs.Queue(request)
	gomega.Expect(there).To(gomega.BeTrue())
	gomega.Expect(q.Visible).To(gomega.Equal(1))
	// It can be adopted, and is left again.
	for _, name := range []string{request, request + "_dlq"} {
		q, _ := w.sqs.Queue(name)
		_, err := w.sqs.Client().TagQueue(ctx, &sqs.TagQueueInput{QueueUrl: &q.URL, Tags: map[string]string{v1alpha1.TagAdoptableBy: clusterName + "/" + w.namespace}})
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
	}
	again := channelNamed("login", withDeadLetter, adopting)
	w.apply(again)
	w.settle(again)
	w.remove(again)
	w.steps(again, points, &l)()
	w.ended(again)
	return l
}

// emptied is a channel whose deletion waits for messages to go.
func emptied(ctx context.Context, points *crashPoints) (l lived) {
	ginkgo.GinkgoHelper()
	w := newLife(ctx, points)
	c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDeleteIfEmpty })
	step := w.steps(c, points, &l)
	w.apply(c)
	step()
	request := w.named("login")
	w.sendTo(request)
	w.remove(c)
	for range 6 {
		if alive, err := w.survives(c); !alive || err != nil {
			w.restart()
		}
		w.pass(30 * time.Second)
	}
	for range 3 { // until a look was not interrupted
		alive, err := w.survives(c)
		if alive && err == nil {
			break
		}
		w.restart()
	}
	gomega.Expect(w.exists(c)).To(gomega.BeTrue())
	l.states = append(l.states, w.state(c))
	gomega.Expect(w.sqs.Requests(sqstest.Action("DeleteQueue"))).To(gomega.BeZero(), "a message is still there")
	q, _ := w.sqs.Queue(request)
	_, err := w.sqs.Client().PurgeQueue(ctx, &sqs.PurgeQueueInput{QueueUrl: &q.URL})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	w.pass(time.Minute)
	step()
	w.ended(c, request, request+"_dlq")
	return l
}

// observed is a queue that is only looked at: whatever happens, nothing is written to it.
func observed(ctx context.Context, points *crashPoints) (l lived) {
	ginkgo.GinkgoHelper()
	w := newLife(ctx, points)
	p := w.providerFor(allowing("vault"))
	w.queueTagged("vault", map[string]string{v1alpha1.TagAdoptableBy: clusterName + "/" + w.namespace})
	c := channelNamed("vault", using(p), called("vault"), func(spec *v1alpha1.RequestChannelSpec) {
		spec.ManagementPolicy = v1alpha1.ManagementPolicyObserve
		spec.Tags = v1alpha1.Tags{"cost": "1"}
		spec.Binding = &v1alpha1.Binding{SecretName: "vault"}
	})
	step := w.steps(c, points, &l)
	w.apply(c)
	step()
	w.tamper("vault")
	change(w, c, asking("1"))
	step()
	change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags, c.Spec.Binding = nil, nil })
	step()
	w.remove(c)
	w.sqs.ResetRequests()
	step()
	w.ended(c)
	for _, action := range []string{"DeleteQueue", "SetQueueAttributes", "TagQueue", "UntagQueue", "CreateQueue"} {
		gomega.Expect(w.sqs.Requests(sqstest.Action(action))).To(gomega.BeZero(), action)
	}
	return l
}

// hasty is a channel that is edited while the process is down, and deleted: what the process had carried out, and could not
// tell of afterwards, must have been written down before. A queue shows some seconds after it was created.
func hasty(ctx context.Context, points *crashPoints) (l lived) {
	ginkgo.GinkgoHelper()
	w := newLife(ctx, points)
	w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.SlowCreate, Duration: 5 * time.Second}}})
	p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.AllowPolicies = ptr.To(true) })
	c := channelNamed("login", using(p), withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) {
		spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45)}
		spec.Policy = `{"Version":"2012-10-17","Statement":[]}`
		spec.Tags = v1alpha1.Tags{"cost": "1"}
		spec.Binding = &v1alpha1.Binding{SecretName: "login"}
	})
	// stopped reconciles until the process is stopped, or all is at rest.
	stopped := func() {
		for range 20 {
			alive, err := w.survives(c)
			if !alive {
				w.restart()
				return
			}
			if err == nil && w.result.RequeueAfter > 30*time.Minute {
				return
			}
			w.pass(max(time.Second, w.result.RequeueAfter))
		}
	}
	w.apply(c)
	stopped()
	change(w, c, func(c *v1alpha1.RequestChannel) {
		c.Spec.Queue, c.Spec.Policy, c.Spec.Tags, c.Spec.Binding = nil, "", nil, nil
		c.Spec.Queue = &v1alpha1.QueueAttributes{ReceiveWaitSeconds: ptr.To[int32](20)}
	})
	stopped()
	change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Queue = nil })
	w.steps(c, points, &l)()
	w.remove(c)
	w.steps(c, points, &l)()
	request := w.named("login")
	w.ended(c, request, request+"_dlq")
	return l
}
