package controller_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	fluxconditions "github.com/fluxcd/pkg/runtime/conditions"
	"github.com/fluxcd/pkg/runtime/conditions/check"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	testingclock "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// The suite calls Reconcile on objects of a real API server, with an SQS server in process and clocks that the test
// owns. There is no manager, nothing is waited for, and nothing sleeps.

const (
	clusterName = "c1"
	worldPrefix = "queue-" // what the names of the worlds' namespaces start with
	clusterUID  = "0a1b2c3d-0000-0000-0000-000000000000"
)

var (
	environment *envtest.Environment
	direct      client.WithWatch
)

func TestControllers(t *testing.T) {
	t.Parallel()
	gomega.RegisterFailHandler(ginkgo.Fail)
	ginkgo.RunSpecs(t, "Controllers")
}

var _ = ginkgo.BeforeSuite(func() {
	var err error
	environment, direct, err = controller.APIServer()
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
})

// world is what one test has to itself: a namespace, an SQS server, clocks, and the reconcilers.
type world struct {
	ctx       context.Context
	client    client.Client
	namespace string
	sqs       *sqstest.Server
	sqsClock  *sqstest.ManualClock
	clock     *testingclock.FakeClock
	registry  *queue.Registry
	recorder  *events.FakeRecorder
	channels  *controller.RequestChannelReconciler
	providers *controller.QueueProviderReconciler
	// writes are the API server's, as "verb Kind". before, if set, may fail a write; around, if set, makes it.
	writes []string
	before func(write string) error
	around func(write string, do func() error) error
	// afterStop, if set, is done between the stop of the process and its restart.
	afterStop func()
	// wrap, if set, stands before SQS.
	wrap func(queue.API) queue.API
	// result of the last reconcile.
	result ctrl.Result
	// considerate: a channel's minute of considering a consent is the spec's own to let go by.
	considerate bool
}

func newWorld(ctx context.Context) *world {
	start := time.Now().Truncate(time.Second)
	w := &world{ctx: ctx, sqsClock: sqstest.NewManualClock(start), clock: testingclock.NewFakeClock(start), recorder: events.NewFakeRecorder(1000)}
	w.sqs = sqstest.New(sqstest.WithClock(w.sqsClock))
	ginkgo.DeferCleanup(w.sqs.Close)
	w.client = interceptor.NewClient(direct, w.interceptors())
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: worldPrefix}}
	gomega.Expect(direct.Create(ctx, ns)).To(gomega.Succeed())
	w.namespace = ns.Name
	w.restart()
	return w
}

// restart gives the operator a new process: nothing remembered.
func (w *world) restart() {
	w.registry = &queue.Registry{
		Reader: w.client, Cluster: clusterName, ClusterUID: clusterUID, Limits: queue.Limits{Read: 1e6, Write: 1e6, Tag: 1e6},
		Metrics: queue.NewMetrics(prometheus.NewRegistry()),
		Connect: func(_ context.Context, region, endpoint, _ string) (queue.API, string, string, error) {
			var api queue.API = w.sqs.Client(func(o *sqs.Options) {
				o.Retryer = aws.NopRetryer{}
				if region != "" {
					o.Region = region
				}
			})
			if w.wrap != nil {
				api = w.wrap(api)
			}
			if region == "" {
				region = "us-east-1"
			}
			return api, region, endpoint, nil
		},
	}
	recorder := controller.ShortNotes(w.recorder)
	w.channels = &controller.RequestChannelReconciler{Client: w.client, Providers: w.registry, Recorder: recorder, Clock: w.clock}
	w.providers = &controller.QueueProviderReconciler{Client: w.client, Clients: w.registry, Recorder: recorder}
}

// interceptors count writes, and answer lists by our own indexes, which the API server does not know.
func (w *world) interceptors() interceptor.Funcs {
	write := func(verb string, o client.Object, do func() error) error {
		t := fmt.Sprintf("%T", o)
		kind := t[strings.LastIndexByte(t, '.')+1:]
		if w.before != nil {
			if err := w.before(verb + " " + kind); err != nil {
				return err
			}
		}
		w.writes = append(w.writes, verb+" "+kind)
		if w.around != nil {
			return w.around(verb+" "+kind, do)
		}
		return do()
	}
	return interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return write("create", o, func() error { return c.Create(ctx, o, opts...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			return write("update", o, func() error { return c.Update(ctx, o, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return write("patch", o, func() error { return c.Patch(ctx, o, p, opts...) })
		},
		Apply: func(ctx context.Context, c client.WithWatch, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			return write("apply", &corev1.Secret{}, func() error { return c.Apply(ctx, o, opts...) }) // Nothing else is applied.
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return write("delete", o, func() error { return c.Delete(ctx, o, opts...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			return write("patch "+sub, o, func() error { return c.SubResource(sub).Patch(ctx, o, p, opts...) })
		},
		List: w.listByIndex,
	}
}

// listByIndex sees nothing of other worlds, which have an SQS of their own.
func (w *world) listByIndex(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
	options := (&client.ListOptions{}).ApplyOptions(opts)
	if options.FieldSelector == nil {
		return c.List(ctx, list, opts...)
	}
	by := options.FieldSelector.Requirements()[0]
	options.FieldSelector = nil
	if err := c.List(ctx, list, options); err != nil {
		return err
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return err
	}
	collected := indexes{}
	if err := controller.IndexChannels(ctx, collected); err != nil {
		return err
	}
	return meta.SetList(list, slices.DeleteFunc(items, func(o runtime.Object) bool {
		values, known := collected[fmt.Sprintf("%T %s", o, by.Field)]
		if namespace := o.(client.Object).GetNamespace(); strings.HasPrefix(namespace, worldPrefix) && namespace != w.namespace && !strings.HasPrefix(namespace, w.namespace+"-") {
			return true
		}
		return !known || !slices.Contains(values(o.(client.Object)), by.Value)
	}))
}

// indexes collects what a manager's indexer would be given.
type indexes map[string]client.IndexerFunc

func (i indexes) IndexField(_ context.Context, o client.Object, name string, values client.IndexerFunc) error {
	i[fmt.Sprintf("%T %s", o, name)] = values
	return nil
}

// pass lets time go by, for the operator and for SQS.
func (w *world) pass(d time.Duration) {
	w.clock.Step(d)
	w.sqsClock.Advance(d)
}

// apply creates objects in the world's namespace, as users do.
func (w *world) apply(objects ...client.Object) {
	ginkgo.GinkgoHelper()
	for _, o := range objects {
		if _, cluster := o.(*v1alpha1.QueueProvider); !cluster && o.GetNamespace() == "" {
			o.SetNamespace(w.namespace)
		}
		gomega.Expect(direct.Create(w.ctx, o)).To(gomega.Succeed())
	}
}

// change edits an object as users do.
func change[T client.Object](w *world, o T, edit func(T)) {
	ginkgo.GinkgoHelper()
	gomega.Expect(direct.Get(w.ctx, client.ObjectKeyFromObject(o), o)).To(gomega.Succeed())
	before := o.DeepCopyObject().(T)
	edit(o)
	gomega.Expect(direct.Patch(w.ctx, o, client.MergeFrom(before))).To(gomega.Succeed())
}

// remove deletes an object as users do.
func (w *world) remove(o client.Object) {
	ginkgo.GinkgoHelper()
	gomega.Expect(direct.Delete(w.ctx, o)).To(gomega.Succeed())
}

// reconciled reconciles an object once, without error, and holds its status against kstatus. The minute in which a channel considers a
// consent goes by, unless the world is considerate.
func (w *world) reconciled(o client.Object) {
	ginkgo.GinkgoHelper()
	gomega.Expect(w.reconcile(o)).To(gomega.Succeed())
}

// failed reconciles an object once, with an error for the workqueue, and holds its status against kstatus.
func (w *world) failed(o client.Object) {
	ginkgo.GinkgoHelper()
	gomega.Expect(w.reconcile(o)).NotTo(gomega.Succeed())
}

func (w *world) reconcile(o client.Object) error {
	ginkgo.GinkgoHelper()
	var r reconcile.Reconciler
	switch o.(type) {
	case *v1alpha1.RequestChannel:
		r = w.channels
	case *v1alpha1.QueueProvider:
		r = w.providers
	default:
		ginkgo.Fail(fmt.Sprintf("no reconciler for %T", o))
	}
	for considered := 0; ; considered++ { // the queue, and its dead-letter queue
		var err error
		w.result, err = r.Reconcile(w.ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(o)})
		if client.IgnoreNotFound(direct.Get(w.ctx, client.ObjectKeyFromObject(o), o)) == nil && w.exists(o) {
			w.checkStatus(o.(fluxconditions.Getter))
		}
		if considers, _ := beConsidering().Match(o); !considers || considered == 2 || w.considerate {
			return err
		}
		w.pass(w.result.RequeueAfter)
	}
}

// beConsidering matches a channel that waits for a consent to be seen by whoever gave it.
func beConsidering() gomega.OmegaMatcher {
	return beReconciling(v1alpha1.ReasonProgressing, "may be taken over by this namespace")
}

func (w *world) exists(o client.Object) bool {
	ginkgo.GinkgoHelper()
	err := direct.Get(w.ctx, client.ObjectKeyFromObject(o), o)
	gomega.Expect(client.IgnoreNotFound(err)).To(gomega.Succeed())
	return err == nil
}

// checkStatus holds conditions against Flux's rules, and against what kstatus makes of them.
func (w *world) checkStatus(o fluxconditions.Getter) {
	ginkgo.GinkgoHelper()
	checker := check.NewChecker(direct, &check.Conditions{
		NegativePolarity: []string{v1alpha1.ConditionStalled, v1alpha1.ConditionReconciling},
		PositivePolarity: []string{v1alpha1.ConditionReady},
	})
	fail, warn := checker.Check(w.ctx, o)
	gomega.Expect(fail).NotTo(gomega.HaveOccurred())
	gomega.Expect(warn).NotTo(gomega.HaveOccurred())

	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	result, err := status.Compute(&unstructured.Unstructured{Object: object})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	want := status.InProgressStatus
	switch {
	case o.GetDeletionTimestamp() != nil:
		want = status.TerminatingStatus
	case meta.IsStatusConditionTrue(o.GetConditions(), v1alpha1.ConditionReady):
		want = status.CurrentStatus
	case meta.IsStatusConditionTrue(o.GetConditions(), v1alpha1.ConditionStalled):
		want = status.FailedStatus
	}
	gomega.Expect(result.Status).To(gomega.Equal(want), result.Message)
}

// heard returns the events since it was last asked, as "Type Reason Message".
func (w *world) heard() []string {
	var all []string
	for {
		select {
		case e := <-w.recorder.Events:
			all = append(all, e)
		default:
			return all
		}
	}
}

// costing returns the SQS requests and the API server's writes that do makes.
func (w *world) costing(do func()) (requests map[string]int, writes []string) {
	w.sqs.ResetRequests()
	w.writes = nil
	do()
	return w.sqs.RequestsByAction(), w.writes
}

// haveCondition matches an object whose condition has that status and reason, and a message that contains words.
func haveCondition(conditionType string, conditionStatus metav1.ConditionStatus, reason string, words ...string) gomega.OmegaMatcher {
	matchers := []gomega.OmegaMatcher{
		gomega.HaveField("Type", conditionType), gomega.HaveField("Status", conditionStatus), gomega.HaveField("Reason", reason),
	}
	for _, part := range words {
		matchers = append(matchers, gomega.HaveField("Message", gomega.ContainSubstring(part)))
	}
	return gomega.HaveField("Status.Conditions", gomega.ContainElement(gomega.And(matchers...)))
}

func beReady() gomega.OmegaMatcher {
	return haveCondition(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAvailable)
}

func beStalled(reason string, words ...string) gomega.OmegaMatcher {
	return haveCondition(v1alpha1.ConditionStalled, metav1.ConditionTrue, reason, words...)
}

func beReconciling(reason string, words ...string) gomega.OmegaMatcher {
	return haveCondition(v1alpha1.ConditionReconciling, metav1.ConditionTrue, reason, words...)
}

// errStopped is what a write meets when the process is stopped before it.
var errStopped = errors.New("the process was stopped")

// stopped reconciles an object once, with an error, when no status can have been written.
func (w *world) stopped(o client.Object) {
	ginkgo.GinkgoHelper()
	_, err := w.channels.Reconcile(w.ctx, ctrl.Request{NamespacedName: client.ObjectKeyFromObject(o)})
	gomega.Expect(err).To(gomega.MatchError(errStopped))
}

func requestFor(o client.Object) ctrl.Request {
	return ctrl.Request{NamespacedName: client.ObjectKeyFromObject(o)}
}

func mergeFrom(o client.Object) client.Patch { return client.MergeFrom(o) }
