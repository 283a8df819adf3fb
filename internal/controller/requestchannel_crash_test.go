package controller_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// stop is what the process panics with at a crash point.
type stop struct{}

// crashPoints count external calls, and stop the process after one of them.
type crashPoints struct {
	// at is the call after which to stop, from 1; 0: none.
	at, calls int
}

func (p *crashPoints) passed() {
	p.calls++
	if p.calls == p.at {
		panic(stop{})
	}
}

// stoppable tells crash points of every request to SQS once it has had its effect.
type stoppable struct {
	queue.API
	points *crashPoints
}

func after[I, O any](p *crashPoints, do func(context.Context, *I, ...func(*sqs.Options)) (*O, error), ctx context.Context, in *I) (*O, error) { //nolint:revive // The context goes with the call.
	out, err := do(ctx, in)
	p.passed()
	return out, err
}

func (s stoppable) CreateQueue(ctx context.Context, in *sqs.CreateQueueInput, _ ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	return after(s.points, s.API.CreateQueue, ctx, in)
}

func (s stoppable) DeleteQueue(ctx context.Context, in *sqs.DeleteQueueInput, _ ...func(*sqs.Options)) (*sqs.DeleteQueueOutput, error) {
	return after(s.points, s.API.DeleteQueue, ctx, in)
}

func (s stoppable) GetQueueUrl(ctx context.Context, in *sqs.GetQueueUrlInput, _ ...func(*sqs.Options)) (*sqs.GetQueueUrlOutput, error) {
	return after(s.points, s.API.GetQueueUrl, ctx, in)
}

func (s stoppable) GetQueueAttributes(ctx context.Context, in *sqs.GetQueueAttributesInput, _ ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error) {
	return after(s.points, s.API.GetQueueAttributes, ctx, in)
}

func (s stoppable) SetQueueAttributes(ctx context.Context, in *sqs.SetQueueAttributesInput, _ ...func(*sqs.Options)) (*sqs.SetQueueAttributesOutput, error) {
	return after(s.points, s.API.SetQueueAttributes, ctx, in)
}

func (s stoppable) ListQueueTags(ctx context.Context, in *sqs.ListQueueTagsInput, _ ...func(*sqs.Options)) (*sqs.ListQueueTagsOutput, error) {
	return after(s.points, s.API.ListQueueTags, ctx, in)
}

func (s stoppable) TagQueue(ctx context.Context, in *sqs.TagQueueInput, _ ...func(*sqs.Options)) (*sqs.TagQueueOutput, error) {
	return after(s.points, s.API.TagQueue, ctx, in)
}

func (s stoppable) UntagQueue(ctx context.Context, in *sqs.UntagQueueInput, _ ...func(*sqs.Options)) (*sqs.UntagQueueOutput, error) {
	return after(s.points, s.API.UntagQueue, ctx, in)
}

// settle reconciles a channel, again after every stop, until it is Ready and wants nothing sooner than a look for
// drift, or is gone.
func (w *world) settle(c *v1alpha1.RequestChannel) {
	ginkgo.GinkgoHelper()
	for range 20 {
		if w.survives(c) {
			if !w.exists(c) || (w.result.RequeueAfter > 30*time.Minute && c.DeletionTimestamp == nil) {
				return
			}
			w.pass(w.result.RequeueAfter)
		} else {
			w.restart()
		}
	}
	ginkgo.Fail(fmt.Sprintf("%s does not settle: %v, again in %s", c.Name, c.Status.Conditions, w.result.RequeueAfter))
}

// survives reconciles once, and reports whether the process did not stop.
func (w *world) survives(c *v1alpha1.RequestChannel) (alive bool) {
	ginkgo.GinkgoHelper()
	defer func() {
		if r := recover(); r != nil {
			if _, stopped := r.(stop); !stopped {
				panic(r)
			}
			alive = false
		}
	}()
	w.reconciled(c)
	return true
}

// live is the life of one channel: created, changed in everything, deleted. It returns what its queues were after
// each step.
func (w *world) live(points *crashPoints) []map[string]map[string]string {
	ginkgo.GinkgoHelper()
	w.wrap = func(api queue.API) queue.API { return stoppable{api, points} }
	w.afterWrite = points.passed
	w.restart()
	c := channelNamed("login", withDeadLetter, func(spec *v1alpha1.RequestChannelSpec) {
		spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45), DelaySeconds: ptr.To[int32](5)}
		spec.Tags = v1alpha1.Tags{"team": "identity", "cost": "1"}
	})
	w.apply(c)
	w.settle(c)
	states := []map[string]map[string]string{w.state()}
	w.pass(20 * time.Minute)
	change(w, c, func(c *v1alpha1.RequestChannel) {
		c.Spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](60), ReceiveWaitSeconds: ptr.To[int32](20)}
		c.Spec.Encryption = &v1alpha1.Encryption{Type: v1alpha1.EncryptionKMS, KMSKeyID: "alias/a"}
		c.Spec.Tags = v1alpha1.Tags{"team": "Identity"}
		c.Spec.DeadLetter.MaxReceiveCount = 7
	})
	w.settle(c)
	states = append(states, w.state())
	w.pass(20 * time.Minute)
	w.remove(c)
	w.settle(c)
	gomega.Expect(w.exists(c)).To(gomega.BeFalse())
	return append(states, w.state())
}

// state is every queue's attributes and tags, by queue, without what differs between two runs.
func (w *world) state() map[string]map[string]string {
	all := map[string]map[string]string{}
	for _, q := range w.sqs.Queues() {
		what := maps.Clone(q.Attributes)
		delete(what, "CreatedTimestamp")
		delete(what, "LastModifiedTimestamp")
		for key, value := range q.Tags {
			what["tag "+key] = value
		}
		all[q.Name] = what
	}
	return all
}

var _ = ginkgo.Describe("Crash points of a channel", func() {
	ginkgo.It("lead to the same queues wherever the process stops, with none leaked and none wrongly deleted", func(ctx context.Context) {
		ctx = context.WithoutCancel(ctx)
		run := func(at int) ([]map[string]map[string]string, int) {
			ginkgo.GinkgoHelper()
			w := newWorld(ctx)
			_, err := w.sqs.Client().CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: ptr.To("bystander")})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
			points := &crashPoints{at: at}
			states := w.live(points)
			for _, state := range states {
				rename(state, w.namespace)
			}
			return states, points.calls
		}
		want, calls := run(0)
		gomega.Expect(want[0]).To(gomega.HaveLen(3))
		gomega.Expect(want[2]).To(gomega.HaveLen(1))
		for at := 1; at <= calls; at++ {
			got, _ := run(at)
			gomega.Expect(got).To(gomega.Equal(want), "stopped after call %d of %d", at, calls)
		}
		// hack/crashpoints reads this line.
		fmt.Printf("\nCRASHPOINTS channel=%d\n", calls)
	})
})

// rename takes the world's own namespace out of a state, so that two worlds' can be compared.
func rename(state map[string]map[string]string, namespace string) {
	for name, what := range maps.Clone(state) {
		for key, value := range what {
			what[key] = strings.ReplaceAll(value, namespace, "namespace")
		}
		delete(state, name)
		state[strings.ReplaceAll(name, namespace, "namespace")] = what
	}
}
