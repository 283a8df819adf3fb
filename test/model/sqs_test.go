package model

import (
	"context"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// clusterUID is the UID of the kube-system namespace, by which queues are marked as this cluster's.
const clusterUID = "kube-system-uid"

// awayAccount is the other account that the operator may be given credentials of.
const awayAccount = "222222222222"

// reply is the truth about one reply queue in SQS.
type reply struct {
	name, url string
	// pod is whom it was made for, and record the UID of its record.
	pod, podName, record string
	stable               bool
	// stray says that it was made by a request that outlived the process that sent it.
	stray bool
	// copied says that the operator of a copy of the cluster made it, for a record of its own.
	copied bool
	// away says that it is in another account than the cluster's queues.
	away bool
	// closed is when it was closed for ever; -1: it is open.
	closed  time.Duration
	created time.Duration
}

// wire is an operator's client of SQS.
type wire struct {
	queue.API // nil: what is not written here is not used
	op        *operator
}

var errThrottled error = &smithy.GenericAPIError{Code: "RequestThrottled", Message: "Rate exceeded", Fault: smithy.FaultClient}

func nameOf(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

func send[T any](ctx context.Context, w wire, verb, name string, run func(*call) (T, error)) (T, error) {
	return ask(ctx, w.op, &call{sqs: true, verb: verb, target: name}, func(c *call) (T, error) {
		q := w.op.world.queues[w.op.world.keyOf(name)]
		if q != nil && w.op.world.recorded(q) {
			w.op.world.requests++
		}
		if q != nil && verb == "GetQueueUrl" && c.task != nil && c.task.knew && w.op.doubted[q.record] > 0 {
			// The sweeper did not find the queue: the reconciler asks once more itself, before it gives it up.
			w.op.doubted[q.record]--
		} else if q != nil && q.closed < 0 && c.task != nil && c.task.knew && verb != "DeleteQueue" {
			w.op.world.violate("P6", "%s of the queue of an open record, which the cache shows to exist: %s", verb, name)
		}
		return run(c)
	})
}

func (w wire) CreateQueue(ctx context.Context, in *sqs.CreateQueueInput, _ ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	record := (*in.QueueName)[strings.LastIndexByte(*in.QueueName, '_')+1:]
	if w.op.mutant.queueName != nil {
		in.QueueName = aws.String(w.op.mutant.queueName(w.op.world, *in.QueueName, in.Tags))
	}
	return send(ctx, w, "CreateQueue", *in.QueueName, func(c *call) (*sqs.CreateQueueOutput, error) {
		out, err := w.op.world.client().CreateQueue(context.Background(), in)
		if err == nil && *in.QueueName == marker {
			w.op.world.sighted()
		}
		if err == nil {
			w.op.world.created(*in.QueueName, *out.QueueUrl, record, in.Tags, c)
		}
		return out, err
	})
}

func (w wire) DeleteQueue(ctx context.Context, in *sqs.DeleteQueueInput, _ ...func(*sqs.Options)) (*sqs.DeleteQueueOutput, error) {
	if w.op.mutant.queueName != nil {
		in.QueueUrl = aws.String(strings.TrimSuffix(*in.QueueUrl, nameOf(*in.QueueUrl)) + w.op.mutant.queueName(w.op.world, nameOf(*in.QueueUrl), nil))
	}
	return send(ctx, w, "DeleteQueue", nameOf(*in.QueueUrl), func(c *call) (*sqs.DeleteQueueOutput, error) {
		world := w.op.world
		q := world.byURL(*in.QueueUrl)
		if q != nil || world.foreign[nameOf(*in.QueueUrl)] != "" {
			world.deleting(nameOf(*in.QueueUrl), q, c)
		}
		out, err := world.client().DeleteQueue(context.Background(), in)
		if err == nil && q != nil {
			world.vanished(q)
			if p := passOf(ctx); p != nil {
				world.sweptAway(p)
			}
		}
		return out, err
	})
}

func (w wire) GetQueueUrl(ctx context.Context, in *sqs.GetQueueUrlInput, _ ...func(*sqs.Options)) (*sqs.GetQueueUrlOutput, error) {
	if w.op.mutant.queueName != nil {
		in.QueueName = aws.String(w.op.mutant.queueName(w.op.world, *in.QueueName, nil))
	}
	return send(ctx, w, "GetQueueUrl", *in.QueueName, func(*call) (*sqs.GetQueueUrlOutput, error) {
		return w.client(*in.QueueName).GetQueueUrl(context.Background(), in)
	})
}

func (w wire) TagQueue(ctx context.Context, in *sqs.TagQueueInput, _ ...func(*sqs.Options)) (*sqs.TagQueueOutput, error) {
	return send(ctx, w, "TagQueue", nameOf(*in.QueueUrl), func(*call) (*sqs.TagQueueOutput, error) {
		w.op.world.changing("TagQueue", nameOf(*in.QueueUrl))
		if w.op.world.unwritten && w.op.cluster == w.op.world.cluster && nameOf(*in.QueueUrl) == marker {
			return nil, errThrottled
		}
		defer w.op.world.sighted()
		return w.client(*in.QueueUrl).TagQueue(context.Background(), in)
	})
}

func (w wire) UntagQueue(ctx context.Context, in *sqs.UntagQueueInput, _ ...func(*sqs.Options)) (*sqs.UntagQueueOutput, error) {
	return send(ctx, w, "UntagQueue", nameOf(*in.QueueUrl), func(*call) (*sqs.UntagQueueOutput, error) {
		w.op.world.changing("UntagQueue", nameOf(*in.QueueUrl))
		return w.op.world.client().UntagQueue(context.Background(), in)
	})
}

func (w wire) ListQueues(ctx context.Context, in *sqs.ListQueuesInput, _ ...func(*sqs.Options)) (*sqs.ListQueuesOutput, error) {
	return send(ctx, w, "ListQueues", "", func(*call) (*sqs.ListQueuesOutput, error) {
		world := w.op.world
		if in.QueueNamePrefix == nil {
			return world.client().ListQueues(context.Background(), in) // to learn the account
		}
		if world.elsewhere {
			out, err := world.away.ListQueues(context.Background(), in)
			w.op.listedTo(ctx, out)
			return out, err
		}
		if world.lag && world.lastList != nil {
			w.op.listedTo(ctx, world.lastList)
			return world.lastList, nil
		}
		var err error
		world.lastList, err = world.sqs.ListQueues(context.Background(), in)
		w.op.listedTo(ctx, world.lastList)
		return world.lastList, err
	})
}

func (w wire) ListQueueTags(ctx context.Context, in *sqs.ListQueueTagsInput, _ ...func(*sqs.Options)) (*sqs.ListQueueTagsOutput, error) {
	return send(ctx, w, "ListQueueTags", nameOf(*in.QueueUrl), func(*call) (*sqs.ListQueueTagsOutput, error) {
		out, err := w.client(*in.QueueUrl).ListQueueTags(context.Background(), in)
		return w.op.tagsFor(ctx, w.op.showLate(*in.QueueUrl, out)), err
	})
}

// client is that of the account of the operator's credentials.
func (w *world) client() *sqs.Client {
	if w.elsewhere {
		return w.away
	}
	return w.sqs
}

// client is the world's; but a mutant finds the marker where it always was.
func (w wire) client(queue string) *sqs.Client {
	if w.op.mutant.sweeps.accountless && nameOf(queue) == marker {
		return w.op.world.sqs
	}
	return w.op.world.client()
}

// keyOf is by what the queue of that name is known: names are those of an account.
func (w *world) keyOf(name string) string {
	if w.elsewhere {
		return "elsewhere/" + name
	}
	return name
}

// vanished notes that a queue is gone.
func (w *world) vanished(q *reply) {
	w.deleted[q.url] = w.now
	for key, one := range w.queues {
		if one == q {
			delete(w.queues, key)
		}
	}
}

// changing is P1: a queue that is not ours is never changed.
func (w *world) changing(verb, name string) {
	if what, foreign := w.foreign[name]; foreign {
		w.violate("P1", "%s of %s, which is %s", verb, name, what)
	}
}

// created notes that CreateQueue made, or found, a reply queue.
func (w *world) created(name, url, record string, tags map[string]string, by *call) {
	if w.queues[w.keyOf(name)] != nil || tags[v1alpha1.TagKind] != v1alpha1.TagKindReply {
		return
	}
	q := &reply{
		name: name, url: url, record: record, pod: tags[v1alpha1.TagPodUID], podName: tags[v1alpha1.TagPodName],
		closed: -1, created: w.now, stray: by.op.dead, copied: by.op.cluster != w.cluster,
	}
	if p := w.byUID[q.pod]; p != nil {
		q.stable = p.stable
	}
	for _, o := range w.cluster.now[records] {
		if string(o.GetUID()) == record && o.(*v1alpha1.ReplyQueue).Status.Closing != nil {
			q.closed = w.now // It comes too late: its record is closed already.
		}
	}
	q.away = w.elsewhere
	delete(w.deleted, url)
	w.queues[w.keyOf(name)] = q
}
