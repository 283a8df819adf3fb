package fence_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

const uid = "0a1b2c3d-0000-0000-0000-000000000000"

var key = client.ObjectKey{Namespace: "replyqueue-system", Name: "replyqueue-identity"}

// cluster is one cluster's API server, as far as the fence knows it, and the fence of its leader.
type cluster struct {
	*testing.T
	*fence.Fence
	ctx      context.Context
	kube     client.WithWatch
	sqs      *sqstest.Server
	provider *queue.Provider
	others   map[string]*queue.Provider
	clock    *testingclock.FakeClock
	recorder *events.FakeRecorder
	inUse    []string
	// afterWrite is called when a write to either side has had its effect.
	afterWrite func()
}

func newCluster(t *testing.T, server *sqstest.Server, uid string, data map[string]string) *cluster {
	t.Helper()
	identity := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}, Data: data}
	c := &cluster{T: t, ctx: t.Context(), sqs: server, clock: testingclock.NewFakeClock(time.Now()), inUse: []string{"default"}}
	c.kube = interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(identity).Build(), interceptor.Funcs{
		Update: func(ctx context.Context, k client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			err := k.Update(ctx, o, opts...)
			c.wrote(err)
			return err
		},
	})
	c.provider = &queue.Provider{Name: "default", Prefix: "rq", Cluster: "c", ClusterUID: uid, API: writing{server.Client(noRetries), c}}
	c.lead(uid)
	return c
}

// noRetries is how the operator's own clients are configured.
func noRetries(o *sqs.Options) { o.Retryer = aws.NopRetryer{} }

// lead makes a new leader: nothing is remembered.
func (c *cluster) lead(uid string) {
	c.recorder = events.NewFakeRecorder(100)
	c.Fence = c.process(uid)
	c.provider.Fence = c.Fence
}

// process is one more process of the cluster's operator.
func (c *cluster) process(uid string) *fence.Fence {
	return &fence.Fence{
		Client: c.kube, Identity: key, ClusterUID: uid, Providers: c, Recorder: c.recorder, Clock: c.clock,
		InUse: func(context.Context) ([]string, error) { return c.inUse, nil },
	}
}

func (c *cluster) Get(context.Context, string, string) (*queue.Provider, error) {
	return c.provider, nil
}

func (c *cluster) ForDeletion(_ context.Context, name string) (*queue.Provider, error) {
	if other := c.others[name]; other != nil {
		return other, nil
	}
	return c.provider, nil
}

// shares has one more provider lead to the same queues as the cluster's first.
func (c *cluster) shares(name string) *cluster {
	first := c.provider
	if c.others == nil {
		c.others = map[string]*queue.Provider{}
	}
	c.others[name] = &queue.Provider{Name: name, Prefix: first.Prefix, Cluster: first.Cluster, ClusterUID: first.ClusterUID, API: first.API, Fence: c.Fence}
	c.inUse = append(c.inUse, name)
	return c
}

func (c *cluster) wrote(err error) {
	if err == nil && c.afterWrite != nil {
		c.afterWrite()
	}
}

type writing struct {
	queue.API
	c *cluster
}

func (w writing) CreateQueue(ctx context.Context, in *sqs.CreateQueueInput, o ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error) {
	out, err := w.API.CreateQueue(ctx, in, o...)
	w.c.wrote(err)
	return out, err
}

func (w writing) TagQueue(ctx context.Context, in *sqs.TagQueueInput, o ...func(*sqs.Options)) (*sqs.TagQueueOutput, error) {
	out, err := w.API.TagQueue(ctx, in, o...)
	w.c.wrote(err)
	return out, err
}

func (w writing) UntagQueue(ctx context.Context, in *sqs.UntagQueueInput, o ...func(*sqs.Options)) (*sqs.UntagQueueOutput, error) {
	out, err := w.API.UntagQueue(ctx, in, o...)
	w.c.wrote(err)
	return out, err
}

func (w writing) DeleteQueue(ctx context.Context, in *sqs.DeleteQueueInput, o ...func(*sqs.Options)) (*sqs.DeleteQueueOutput, error) {
	out, err := w.API.DeleteQueue(ctx, in, o...)
	w.c.wrote(err)
	return out, err
}

func (c *cluster) identity() *corev1.ConfigMap {
	c.Helper()
	i := &corev1.ConfigMap{}
	if err := c.kube.Get(c.ctx, key, i); err != nil {
		c.Fatal(err)
	}
	return i
}

func (c *cluster) annotate(annotation, value string) {
	c.Helper()
	i := c.identity()
	metav1.SetMetaDataAnnotation(&i.ObjectMeta, annotation, value)
	if err := c.kube.Update(c.ctx, i); err != nil {
		c.Fatal(err)
	}
}

// snapshot is what a backup of the cluster holds.
func (c *cluster) snapshot() map[string]string { return c.identity().Data }

// round compares, an interval after the last time.
func (c *cluster) round() {
	c.clock.Step(fence.DefaultInterval)
	c.Round(c.ctx)
}

// watch compares for as long as a process watches that has no proof.
func (c *cluster) watch() {
	for range fence.WatchFor(fence.DefaultInterval) / fence.DefaultInterval {
		c.round()
	}
}

func (c *cluster) nonce() string {
	q, _ := c.sqs.Queue("rq_c_identity")
	return q.Tags["nonce.replyqueue.dev/default"]
}

func (c *cluster) expectOpen(when string) {
	c.Helper()
	if err := c.MayDelete("default"); err != nil {
		c.Errorf("%s: %v", when, err)
	}
}

func (c *cluster) expectHeld(when string, conflict bool) {
	c.Helper()
	var held *queue.Held
	if err := c.MayDelete("default"); !errors.As(err, &held) || held.Conflict != conflict {
		c.Errorf("%s: queues may be deleted, or for another reason than wanted (conflict %v): %v", when, conflict, err)
	}
	before := len(c.sqs.Queues())
	if err := c.provider.DeleteQueueByName(c.ctx, c.provider.IdentityQueueName()); err == nil || len(c.sqs.Queues()) != before {
		c.Errorf("%s: a queue was deleted", when)
	}
}

func (c *cluster) heard(part string) (n int) {
	for {
		select {
		case e := <-c.recorder.Events:
			if strings.Contains(e, part) {
				n++
			}
		default:
			return n
		}
	}
}
