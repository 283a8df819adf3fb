package controller_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

var handovers = flag.Int("handovers", 6, "how many hand-overs from cluster to cluster to try, each another one")

// Two operators of two clusters and one queue, of which each is shown tags that are up to a minute old, now newer and now older.
var _ = ginkgo.Describe("A queue that is handed over from one cluster to another", func() {
	ginkgo.It("is never touched by the first once the second has it, whatever both are shown of it", func(ctx context.Context) {
		taken, kept := 0, 0
		for seed := range *handovers {
			h := newHandover(context.WithoutCancel(ctx), uint64(seed))
			switch h.run(); h.owner() {
			case secondUID:
				taken++
			default:
				kept++
			}
		}
		gomega.Expect([]int{taken, kept}).To(gomega.HaveEach(gomega.BeNumerically(">", 0)), "both ends are tried")
	})

	for _, deleted := range []bool{false, true} {
		ginkgo.It(fmt.Sprint("is not touched by the first that is shown whose it is, and then what was before; deleted: ", deleted), func(ctx context.Context) {
			h := newHandover(context.WithoutCancel(ctx), 1)
			looks := 0
			look := func(edit func(*v1alpha1.RequestChannelSpec)) {
				looks++
				change(h.world, h.first, func(c *v1alpha1.RequestChannel) {
					c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: fmt.Sprint(looks)}
					edit(&c.Spec)
				})
				h.step(clusterUID, h.first)
			}
			asIs := func(*v1alpha1.RequestChannelSpec) {}
			h.tag(h.name, map[string]string{v1alpha1.TagAdoptableBy: "c2/" + h.namespace})
			h.noted("offered")
			h.apply(h.second)
			for i := range 5 {
				h.pass(30 * time.Second)
				look(func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = v1alpha1.DeletionPolicyDelete })
				if i < 2 {
					h.step(secondUID, h.second)
				}
			}
			gomega.Expect(h.owner()).To(gomega.Equal(clusterUID))
			h.untag(h.name, v1alpha1.TagAdoptableBy)
			h.noted("withdrawn")
			h.pass(20 * time.Second)
			offered, withdrawn := h.past[len(h.past)-2], h.past[len(h.past)-1]
			h.past = []moment{offered}
			h.step(secondUID, h.second)
			gomega.Expect(h.owner()).To(gomega.Equal(secondUID))
			h.pass(10 * time.Second)
			h.past = h.past[len(h.past)-1:]
			if deleted { // What becomes of its dead-letter queue has the deletion come back.
				h.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.ServerError, Queue: h.named("login") + "_dlq"}}})
				h.remove(h.first)
				h.step(clusterUID, h.first)
			} else {
				look(asIs)
				gomega.Expect(h.first).To(beStalled(v1alpha1.ReasonNotOwned))
			}
			h.pass(10 * time.Second)
			h.past = []moment{withdrawn}
			if deleted {
				h.sqs.SetFaults(sqstest.Plan{})
				h.step(clusterUID, h.first)
			} else {
				look(func(spec *v1alpha1.RequestChannelSpec) {
					spec.Queue = &v1alpha1.QueueAttributes{MessageRetentionSeconds: ptr.To[int32](60)}
				})
			}
			gomega.Expect(h.first).To(beReconciling(v1alpha1.ReasonProgressing, "until a moment ago"))
			gomega.Expect(h.there(h.name).Attributes).To(gomega.HaveKeyWithValue("MessageRetentionPeriod", "1209600"))
		})
	}
})

const secondUID = "uid2"

// handover is one queue that the channel first has and the channel second is to have, and what both operators do.
type handover struct {
	*world
	*rand.Rand
	name          string
	first, second *v1alpha1.RequestChannel
	operators     map[string]*controller.RequestChannelReconciler
	// past are the queue's tags since when they were so.
	past []moment
	// log is what happened, for who has to find out what did.
	log []string
}

type moment struct {
	at   time.Time
	tags map[string]string
}

func newHandover(ctx context.Context, seed uint64) *handover {
	ginkgo.GinkgoHelper()
	h := &handover{world: newWorld(ctx), Rand: rand.New(rand.NewPCG(seed, 0)), operators: map[string]*controller.RequestChannelReconciler{}}
	h.name = h.named("login")
	p := h.providerFor(allowing(h.name))
	policies := []v1alpha1.DeletionPolicy{"", v1alpha1.DeletionPolicyDelete, v1alpha1.DeletionPolicyRetain}
	h.first = channelNamed("login", func(spec *v1alpha1.RequestChannelSpec) { spec.DeletionPolicy = policies[h.IntN(len(policies))] })
	h.second = channelNamed("taken", using(p), called(h.name), adopting, func(spec *v1alpha1.RequestChannelSpec) {
		spec.Queue = &v1alpha1.QueueAttributes{MessageRetentionSeconds: ptr.To[int32](1209600)}
		spec.Tags = v1alpha1.Tags{"team": "second"}
	})
	h.apply(h.first)
	h.start(clusterName, clusterUID)
	h.start("c2", secondUID)
	h.step(clusterUID, h.first)
	gomega.Expect(h.first).To(beReady())
	h.pass(time.Hour)
	return h
}

// start gives one of the operators a new process.
func (h *handover) start(cluster, uid string) {
	registry := &queue.Registry{
		Reader: h.client, Cluster: cluster, ClusterUID: uid, Limits: queue.Limits{Read: 1e6, Write: 1e6, Tag: 1e6},
		Metrics: queue.NewMetrics(prometheus.NewRegistry()),
		Connect: func(_ context.Context, _, endpoint, _ string) (queue.API, string, string, error) {
			api := h.sqs.Client(func(o *sqs.Options) { o.Retryer = aws.NopRetryer{} })
			return late{api, h, uid}, "us-east-1", endpoint, nil
		},
	}
	h.operators[uid] = &controller.RequestChannelReconciler{Client: h.client, Providers: registry, Recorder: events.NewFakeRecorder(1000), Clock: h.clock}
}

// step has one of the operators reconcile its channel.
func (h *handover) step(uid string, c *v1alpha1.RequestChannel) {
	ginkgo.GinkgoHelper()
	_, _ = h.operators[uid].Reconcile(h.ctx, requestFor(c))
	if h.exists(c) {
		h.checkStatus(c)
	}
}

// run lets both operators work while the queue is offered, and perhaps no more, and its first channel edited, and perhaps deleted.
func (h *handover) run() {
	ginkgo.GinkgoHelper()
	const tick, ticks = 15 * time.Second, 24
	// The offer stands for long enough for both to see it. The second comes before the first surely sees it, or just before it is withdrawn.
	ends, withdrawn := 2+h.IntN(3*ticks), 8+h.IntN(ticks/2)
	comes := h.IntN(4)
	if h.IntN(2) == 0 {
		comes = withdrawn - 6 + h.IntN(4)
	}
	for i := range ticks {
		h.pass(tick)
		if i == 2 {
			h.tag(h.name, map[string]string{v1alpha1.TagAdoptableBy: "c2/" + h.namespace})
			h.noted("offered")
		}
		if q, there := h.sqs.Queue(h.name); i == withdrawn && there && q.Tags[v1alpha1.TagAdoptableBy] != "" {
			h.untag(h.name, v1alpha1.TagAdoptableBy)
			h.noted("withdrawn")
		}
		if i == comes {
			h.apply(h.second)
		}
		if h.exists(h.first) && h.first.DeletionTimestamp == nil {
			change(h.world, h.first, func(c *v1alpha1.RequestChannel) {
				c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: fmt.Sprint(i)}
				if h.IntN(3) > 0 {
					c.Spec.Queue = &v1alpha1.QueueAttributes{MessageRetentionSeconds: ptr.To(60 + h.Int32N(600))}
					c.Spec.Tags = v1alpha1.Tags{"team": v1alpha1.TagValue(fmt.Sprint("first", i))}
				}
			})
			if i >= ends {
				h.remove(h.first)
				h.noted("being deleted")
			}
		}
		switch h.IntN(16) {
		case 0:
			h.start(clusterName, clusterUID)
		case 1:
			h.start("c2", secondUID)
		}
		h.step(clusterUID, h.first)
		if i >= comes {
			h.step(secondUID, h.second)
		}
	}
	for range 8 {
		h.pass(5 * time.Minute)
		h.step(clusterUID, h.first)
		h.step(secondUID, h.second)
	}
	q, there := h.sqs.Queue(h.name)
	h.noted(fmt.Sprint("in the end ", q.Attributes["MessageRetentionPeriod"], q.Tags))
	switch offered := q.Tags[v1alpha1.TagAdoptableBy] != ""; {
	case h.owner() == secondUID:
		gomega.Expect(h.second).To(beReady(), "%v", h.log)
		gomega.Expect(q.Attributes).To(gomega.HaveKeyWithValue("MessageRetentionPeriod", "1209600"), "%v", h.log)
		gomega.Expect(q.Tags).To(gomega.HaveKeyWithValue("team", "second"), "%v", h.log)
	case h.exists(h.first) && h.first.DeletionTimestamp == nil:
		gomega.Expect(offered).To(gomega.BeFalse(), "%v", h.log)
		gomega.Expect(h.first).To(beReady(), "what was asked for meanwhile is done: %v", h.log)
		if spec := h.first.Spec; spec.Queue != nil {
			gomega.Expect(q.Tags).To(gomega.HaveKeyWithValue("team", spec.Tags.Strings()["team"]), "%v", h.log)
		}
	default:
		gomega.Expect(h.exists(h.first)).To(gomega.BeFalse(), "%v", h.log)
		gomega.Expect(there).To(gomega.Equal(h.first.Spec.DeletionPolicy == v1alpha1.DeletionPolicyRetain), "%v", h.log)
	}
}

// owner is the cluster that really has the queue.
func (h *handover) owner() string {
	q, _ := h.sqs.Queue(h.name)
	return q.Tags[v1alpha1.TagCluster]
}

// noted keeps what the queue's tags are from now on.
func (h *handover) noted(what string) {
	q, _ := h.sqs.Queue(h.name)
	h.past = append(h.past, moment{h.clock.Now(), maps.Clone(q.Tags)})
	h.log = append(h.log, h.clock.Now().Format(time.TimeOnly)+" "+what)
}

// shown are the tags of a moment within the last minute, mostly of one that tempts the operator to write: to the first, the queue is its own and
// not offered, and to the second it is offered.
func (h *handover) shown(uid string) map[string]string {
	from := h.clock.Now().Add(-59 * time.Second)
	var all, tempting []map[string]string
	for i, was := range h.past {
		if i+1 < len(h.past) && !h.past[i+1].at.After(from) {
			continue
		}
		all = append(all, was.tags)
		if offered := was.tags[v1alpha1.TagAdoptableBy] != ""; offered == (uid == secondUID) && was.tags[v1alpha1.TagCluster] == clusterUID {
			tempting = append(tempting, was.tags)
		}
	}
	if len(tempting) > 0 && h.IntN(8) > 0 {
		all = tempting
	}
	return maps.Clone(all[h.IntN(len(all))])
}

// late is SQS as one of the operators sees it.
type late struct {
	queue.API
	*handover
	uid string
}

func (l late) ListQueueTags(ctx context.Context, in *sqs.ListQueueTagsInput, options ...func(*sqs.Options)) (*sqs.ListQueueTagsOutput, error) {
	out, err := l.API.ListQueueTags(ctx, in, options...)
	if err == nil && len(l.past) > 0 {
		out.Tags = l.shown(l.uid)
	}
	return out, err
}

// writes fails the spec where the first operator writes to what is the second's.
func (l late) writes(what string) func() {
	ginkgo.GinkgoHelper()
	l.log = append(l.log, l.clock.Now().Format(time.TimeOnly)+" "+l.uid+" "+what)
	gomega.Expect(l.uid == clusterUID && l.owner() == secondUID).To(gomega.BeFalse(), "%v", l.log)
	return func() { l.noted("then") }
}

func (l late) CreateQueue(ctx context.Context, in *sqs.CreateQueueInput, options ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	out, err := l.API.CreateQueue(ctx, in, options...) // of a queue that is there it changes nothing
	l.noted(l.uid + " creates")
	return out, err
}

func (l late) SetQueueAttributes(ctx context.Context, in *sqs.SetQueueAttributesInput, options ...func(*sqs.Options)) (*sqs.SetQueueAttributesOutput, error) {
	l.writes(fmt.Sprint("sets ", in.Attributes))
	return l.API.SetQueueAttributes(ctx, in, options...)
}

func (l late) TagQueue(ctx context.Context, in *sqs.TagQueueInput, options ...func(*sqs.Options)) (*sqs.TagQueueOutput, error) {
	defer l.writes(fmt.Sprint("tags ", in.Tags))()
	return l.API.TagQueue(ctx, in, options...)
}

func (l late) UntagQueue(ctx context.Context, in *sqs.UntagQueueInput, options ...func(*sqs.Options)) (*sqs.UntagQueueOutput, error) {
	defer l.writes(fmt.Sprint("untags ", in.TagKeys))()
	return l.API.UntagQueue(ctx, in, options...)
}

func (l late) DeleteQueue(ctx context.Context, in *sqs.DeleteQueueInput, options ...func(*sqs.Options)) (*sqs.DeleteQueueOutput, error) {
	l.writes("deletes")
	return l.API.DeleteQueue(ctx, in, options...)
}
