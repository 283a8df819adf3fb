package sweep_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/internal/sweep"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestSweepsWhatNoRecordCovers(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	_, live := s.live("web-1")
	orphan := s.orphan()
	unread := s.pod("web-2")
	read := s.replyQueue(newUID(), "web-2-1", unread)
	kept := map[string]string{
		"a queue with a record":                              live,
		"a queue whose pod lives, though its record is lost": read,
		"a request queue":                                    s.queue("rq_c_shop_login", map[string]string{v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindRequest}),
		"a dead-letter queue":                                s.queue("rq_c_shop_login_dlq", map[string]string{v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindDeadLetter}),
		"a request queue's tags":                             s.queue(s.provider.ReplyQueueName(newUID()), map[string]string{v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindRequest}),
		"another cluster's":                                  s.queue(s.provider.ReplyQueueName(newUID()), map[string]string{v1alpha1.TagCluster: "other", v1alpha1.TagKind: v1alpha1.TagKindReply}),
		"nobody's":                                           s.queue(s.provider.ReplyQueueName(newUID()), nil),
		"a name that was not computed":                       s.queue("rq_c_r_mine", map[string]string{v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindReply}),
		"another cluster's by its name":                      s.queue("rq_c2_r_"+string(newUID()), map[string]string{v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindReply}),
	}
	lease := s.lease(newUID(), "gone")
	beacon := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.HeartbeatNamespace, Name: "replyqueue-operator", Labels: map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByOperator}}}
	s.must(s.admin.Create(s.ctx, beacon))
	t.Cleanup(func() { s.admin.Delete(t.Context(), beacon) }) //nolint:errcheck // The next test makes do.

	s.passes(1)
	s.expect(orphan, true, "found once")
	if !s.exists(lease) {
		t.Error("a Lease was deleted that was found once")
	}
	s.sqs.ResetRequests()
	s.passes(1)
	s.expect(orphan, false, "found for the grace")
	if s.exists(lease) {
		t.Error("a Lease without pod and record is left")
	}
	if !s.exists(beacon) {
		t.Error("the operator's own Lease was deleted")
	}
	if n := s.sqs.Requests(sqstest.OnQueue(live)); n != 0 {
		t.Errorf("%d requests for a queue that has a record", n)
	}
	s.passes(2)
	for what, name := range kept {
		s.expect(name, true, what)
	}
	s.sqs.ResetRequests()
	s.clock.Step(15 * time.Minute)
	s.must(s.sweeper.Pass(s.ctx))
	if by := s.sqs.RequestsByAction(); by["ListQueues"] != 1 || by["ListQueueTags"] > 2+5 || by["TagQueue"] != 1 || len(by) != 3 {
		t.Errorf("a sweep that finds nothing new costs %v", by)
	}
	s.must(s.admin.Delete(s.ctx, unread, client.GracePeriodSeconds(0)))
	s.passes(1)
	s.expect(read, false, "when its pod is gone")
}

func TestDryRunDeletesNothing(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	s.dryRun = true
	s.restart()
	orphan, lease := s.orphan(), s.lease(newUID(), "gone")
	s.passes(4)
	s.expect(orphan, true, "dry run")
	if !s.exists(lease) {
		t.Error("a Lease was deleted")
	}
}

func TestWhatIsMeasuredOfAProviderGoesWithIt(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	metrics := prometheus.NewRegistry()
	s.sweeper.Metrics = sweep.NewMetrics(metrics)
	s.orphan()
	s.queue("rq_c_shop_login", map[string]string{v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindRequest})
	lease := s.lease(newUID(), "gone")
	of := func() (series []string) {
		families, err := metrics.Gather()
		s.must(err)
		for _, family := range families {
			for _, m := range family.Metric {
				for _, l := range m.Label {
					if l.GetName() == "provider" && l.GetValue() != "" {
						series = append(series, family.GetName())
					}
				}
			}
		}
		return series
	}
	s.passes(3)
	if n := len(slices.Compact(of())); n < 7 || s.exists(lease) {
		t.Fatalf("%d metrics tell of the provider: %v", n, of())
	}
	s.gone = true
	s.clock.Step(time.Minute)
	if err := s.sweeper.Pass(s.ctx); !errors.Is(err, queue.ErrProviderNotFound) {
		t.Errorf("%v", err)
	}
	if series := of(); len(series) > 0 {
		t.Errorf("of a provider that is gone there are still %v", series)
	}
	if n, err := testutil.GatherAndCount(metrics, "replyqueue_sweep_deleted_total"); n != 1 || err != nil {
		t.Errorf("%d counts of what is no provider's, %v; want that of Leases", n, err)
	}
}

func TestSeesAllPages(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	for i := range 2100 { // They come before the reply queues in every list.
		s.queue(fmt.Sprintf("rq_c_a-namespace_%d", i), nil)
	}
	orphan := s.orphan()
	s.passes(1)
	s.sqs.ResetRequests()
	s.passes(1)
	s.expect(orphan, false, "on the third page")
	if by := s.sqs.RequestsByAction(); by["ListQueues"] != 3 || by["ListQueueTags"] > 5 {
		t.Errorf("a sweep of 2,101 queues costs %v", by)
	}
}

// TestWorksWhileReconcilersWork has a pod's record and queue written at every moment of a sweep, and its list be old.
func TestWorksWhileReconcilersWork(t *testing.T) {
	for _, moment := range []string{"ListQueueTags", "ListQueues", "list"} {
		s := newStage(t, sqstest.NewServer(t))
		s.passes(2)
		var made []string
		s.after = func(call string) {
			if call == moment && len(made) < 5 {
				_, name := s.live(fmt.Sprintf("web-%d", len(made)))
				made = append(made, name)
			}
		}
		s.passes(5)
		if len(made) < 5 {
			t.Fatalf("%s never happened", moment)
		}
		for _, name := range made {
			s.expect(name, true, "made at "+moment)
		}
		if len(s.missing) > 0 {
			t.Errorf("at %s: %v are said to have no queue", moment, s.missing)
		}
	}
}

func TestARenewedLeaseStays(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	lease := s.lease(newUID(), "unseen")
	s.passes(1)
	s.after = func(call string) {
		if call == "list" {
			fresh := lease.DeepCopy()
			s.must(s.admin.Get(s.ctx, client.ObjectKeyFromObject(lease), fresh))
			now := metav1.NewMicroTime(s.clock.Now())
			fresh.Spec.RenewTime = &now
			s.must(s.admin.Update(s.ctx, fresh))
		}
	}
	s.passes(1)
	if !s.exists(lease) {
		t.Error("a Lease was deleted that was renewed after it was listed")
	}
}

func TestAnOldListHarmsNobody(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	s.orphan()
	record, name := s.live("web-1")
	s.passes(1)
	s.after = func(call string) {
		if call == "ListQueues" { // Everything that was listed changes at once.
			s.after = nil
			url, _ := s.provider.QueueURL(s.ctx, name)
			_, err := s.sqs.Client().DeleteQueue(s.ctx, &sqs.DeleteQueueInput{QueueUrl: &url})
			s.must(err)
			s.must(s.admin.Delete(s.ctx, record))
		}
	}
	s.passes(3)
	if len(s.missing) > 0 {
		t.Errorf("%v are said to have no queue", s.missing)
	}
}

func TestThrottledSweepsBeginAnew(t *testing.T) {
	for _, action := range []string{"ListQueues", "ListQueueTags", "DeleteQueue"} {
		s := newStage(t, sqstest.NewServer(t))
		_, live := s.live("web-1")
		orphan := s.orphan()
		s.passes(1)
		s.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.Throttle, Action: action}}})
		for range 3 {
			if err := s.pass(); queue.Classify(err) != queue.Throttled {
				t.Errorf("%s: %v, want a throttle", action, err)
			}
		}
		s.expect(orphan, true, "while SQS throttles "+action)
		s.sqs.SetFaults(sqstest.Plan{})
		s.passes(2)
		s.expect(orphan, false, "afterwards")
		s.expect(live, true, "with a record")
	}
}

// TestTagsThatWereNotReadAreReadAgain: no tags are a reason to keep a queue for good, and no answer is none.
func TestTagsThatWereNotReadAreReadAgain(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	orphan := s.orphan()
	s.passes(1)
	s.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.Throttle, Action: "ListQueueTags", Queue: orphan}}})
	if err := s.pass(); queue.Classify(err) != queue.Throttled {
		t.Errorf("%v, want a throttle", err)
	}
	s.sqs.SetFaults(sqstest.Plan{})
	s.passes(2)
	s.expect(orphan, false, "once its tags could be read")
}

// TestTagsAreReadAgainBeforeADeletion: those of a queue that was kept for its pod are from long ago.
func TestTagsAreReadAgainBeforeADeletion(t *testing.T) {
	for tag, value := range map[string]string{
		v1alpha1.TagCluster: "another",
		v1alpha1.TagKind:    "kept by hand",
	} {
		t.Run(tag, func(t *testing.T) {
			s := newStage(t, sqstest.NewServer(t))
			p := s.pod("web-1")
			name := s.replyQueue(newUID(), "web-1-1", p)
			s.passes(3)
			url, err := s.provider.QueueURL(s.ctx, name)
			s.must(err)
			_, err = s.sqs.Client().TagQueue(s.ctx, &sqs.TagQueueInput{QueueUrl: &url, Tags: map[string]string{tag: value}})
			s.must(err)
			s.must(s.admin.Delete(s.ctx, p, client.GracePeriodSeconds(0)))
			s.passes(4)
			s.expect(name, true, "it is not ours by its tags, as they are now")
		})
	}
}

func TestTheBrake(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	_, live := s.live("web-1")
	var orphans []string
	for range 12 {
		orphans = append(orphans, s.orphan())
	}
	left := func() (n int) {
		for _, name := range orphans {
			if s.has(name) {
				n++
			}
		}
		return n
	}
	s.passes(4)
	if n := left(); n != 12 {
		t.Fatalf("%d of 12 are left, and the brake should hold", n)
	}
	if n := s.heard(v1alpha1.ConditionSweepHeld); n != 2 { // on the ConfigMap and on the QueueProvider
		t.Errorf("%d events, want one on each of two objects", n)
	}
	want := fmt.Sprintf("%s=%s=12", v1alpha1.AnnotationAllowSweep, s.provider.Name)
	if status := s.status(); !strings.Contains(status, "12 of 13") || !strings.Contains(status, want) {
		t.Errorf("the ConfigMap says %q", status)
	}
	if s.fence.Trouble(s.provider.Name, v1alpha1.ConditionSweepHeld) == "" {
		t.Error("no condition")
	}
	s.annotate(v1alpha1.AnnotationAllowSweep, s.provider.Name+"=11")
	s.passes(1)
	if n := left(); n != 12 {
		t.Errorf("%d of 12 are left after fewer were allowed", n)
	}
	s.annotate(v1alpha1.AnnotationAllowSweep, "another=100, "+s.provider.Name+"=12")
	s.passes(1)
	if n := left(); n != 0 {
		t.Errorf("%d of 12 are left after they were allowed", n)
	}
	s.expect(live, true, "with a record")
	if c := s.configMap(); c.Annotations[v1alpha1.AnnotationAllowSweep] != "another=100" {
		t.Errorf("the allowance stays open: %v", c.Annotations)
	}
	s.passes(1)
	if status := s.status(); status != "" {
		t.Errorf("the ConfigMap still says %q", status)
	}
}

func TestAQueueThatIsGoneIsFound(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	record, name := s.live("web-1")
	s.live("web-2")
	s.passes(2)
	url, err := s.provider.QueueURL(s.ctx, name)
	s.must(err)
	_, err = s.sqs.Client().DeleteQueue(s.ctx, &sqs.DeleteQueueInput{QueueUrl: &url})
	s.must(err)
	s.passes(1)
	if len(s.missing) > 0 {
		t.Error("one sweep says nothing: its list may be old")
	}
	// That a person wants the record deleted changes nothing: it is held while its pod lives, which needs a queue.
	record.Finalizers = []string{v1alpha1.FinalizerReplyQueue}
	s.must(s.kube.Update(s.ctx, record))
	s.must(s.kube.Delete(s.ctx, record))
	s.passes(1)
	if len(s.missing) != 1 || s.missing[0] != client.ObjectKeyFromObject(record) {
		t.Errorf("told of %v, want %s", s.missing, record.Name)
	}
}

// TestNothingIsMissedWithoutAProof: a sweep takes longer than what was proven before it lasts, and what SQS listed may be another
// account's by then. What was found is forgotten.
func TestNothingIsMissedWithoutAProof(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	_, name := s.live("web-1")
	s.passes(1)
	s.deleteInSQS(name)
	s.passes(1)
	s.after = func(call string) {
		if call == "ListQueues" {
			s.after = nil
			s.clock.Step(10 * fence.DefaultInterval)
		}
	}
	s.passes(1)
	if s.after != nil {
		t.Fatal("no queues were listed")
	}
	if len(s.missing) > 0 {
		t.Error("told of a queue that is missing by a list of which nobody knows whose it is")
	}
	s.passes(1)
	if len(s.missing) > 0 {
		t.Error("what was found without a proof counts")
	}
	s.passes(1)
	if len(s.missing) != 1 {
		t.Errorf("told of %v, want the one", s.missing)
	}
}

func TestAnotherAccountIsNoLossOfQueues(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	for i := range 11 {
		s.record(s.pod(fmt.Sprintf("web-%d", i)))
	}
	s.passes(4)
	if len(s.missing) > 0 {
		t.Errorf("%d records are given up at once", len(s.missing))
	}
}

func TestACloneSweepsNoQueue(t *testing.T) {
	server := sqstest.NewServer(t)
	original := newStage(t, server)
	record, live := original.live("web-1")
	original.passes(1)
	clone := newStage(t, server)
	// The same cluster as far as names go, in another namespace of the test's API server, and without the records.
	clone.provider.Name = original.provider.Name
	c := clone.configMap()
	c.Data = original.configMap().Data
	clone.must(clone.admin.Update(clone.ctx, c))
	original.must(original.fence.Check(original.ctx, original.provider))
	original.must(original.admin.Delete(original.ctx, record))
	original.clean()
	lease := clone.lease(newUID(), "gone")
	for range 5 {
		if err := clone.pass(); queue.Classify(err) != queue.Fenced {
			t.Fatalf("%v, want that the fence holds", err)
		}
	}
	clone.expect(live, true, "of the original")
	if clone.exists(lease) {
		t.Error("a Lease of the clone, without pod and record, is left")
	}
	if !strings.Contains(clone.status(), v1alpha1.ConditionIdentityConflict) {
		t.Errorf("the clone says %q", clone.status())
	}
	original.passes(2)
	original.expect(live, false, "the original sweeps on")
}

// TestEtcdRestoredFromAnHourAgo has pods and records of the last hour forgotten, while their queues are there and the
// kubelets' processes read some of them.
func TestEtcdRestoredFromAnHourAgo(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	_, old := s.live("web-old")
	s.passes(1)
	hourAgo := s.configMap().Data
	living := s.pod("web-awake")
	awake := s.replyQueue(newUID(), "web-awake-2", living) // its second queue: the restored cluster knows the first
	var recent []string
	for range 30 {
		recent = append(recent, s.orphan())
	}
	s.must(s.fence.Check(s.ctx, s.provider))
	c := s.configMap()
	c.Data = hourAgo
	s.must(s.admin.Update(s.ctx, c))
	s.restart()
	all := func(there bool, why string) {
		t.Helper()
		for _, name := range recent {
			s.expect(name, there, why)
		}
	}
	for range 5 {
		if err := s.pass(); queue.Classify(err) != queue.Fenced {
			t.Fatalf("%v, want that the fence holds", err)
		}
	}
	all(true, "while the fence holds")
	marker, _ := s.sqs.Queue(s.provider.IdentityQueueName())
	s.annotate(v1alpha1.AnnotationConfirmIdentity, marker.Tags[v1alpha1.TagNoncePrefix+s.provider.Name])
	s.passes(5)
	all(true, "while the brake holds")
	if !strings.Contains(s.status(), v1alpha1.ConditionSweepHeld) {
		t.Errorf("it says %q", s.status())
	}
	s.annotate(v1alpha1.AnnotationAllowSweep, s.provider.Name+"=30")
	s.passes(1)
	all(false, "when a human allowed it")
	s.expect(old, true, "with a record")
	s.expect(awake, true, "whose pod lives")
}

func TestAFormerClustersQueuesWaitForAWord(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	theirs := s.queue(s.provider.ReplyQueueName(newUID()), map[string]string{v1alpha1.TagCluster: "former", v1alpha1.TagKind: v1alpha1.TagKindReply})
	s.annotate(v1alpha1.AnnotationAdoptFrom, "former")
	s.passes(3)
	s.expect(theirs, true, "its processes may live")
	s.annotate(v1alpha1.AnnotationSweepFrom, "former")
	s.passes(2)
	s.expect(theirs, false, "the former cluster is gone for good")
}

// TestCrashPoints stops the operator after each single call, to the API server or to SQS, in turn, and restarts it
// without its memory: the same end each time, nothing left, and nothing deleted that is owned.
func TestCrashPoints(t *testing.T) {
	live := func(t *testing.T, point int) (calls int) {
		s := newStage(t, sqstest.NewServer(t))
		_, owned := s.live("web-1")
		orphans := []string{s.orphan(), s.orphan()}
		read := s.replyQueue(newUID(), "web-2-1", s.pod("web-2"))
		request := s.queue("rq_c_shop_login", map[string]string{v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindRequest})
		lease := s.lease(newUID(), "gone")
		crashed := false
		pass := func() {
			defer func() {
				if r := recover(); r != nil {
					if err, ok := r.(error); !ok || !errors.Is(err, errCrash) {
						panic(r)
					}
					s.restart()
				}
			}()
			s.must(s.pass())
		}
		s.after = func(string) {
			if calls++; calls == point {
				crashed = true
				panic(errCrash)
			}
		}
		pass()
		pass()
		total := calls
		s.after = nil
		s.passes(2)
		for _, name := range orphans {
			s.expect(name, false, "without a record")
		}
		s.expect(owned, true, "with a record")
		s.expect(read, true, "whose pod lives")
		s.expect(request, true, "of a channel")
		if s.exists(lease) {
			t.Error("the Lease is left")
		}
		if n := len(s.sqs.Queues()); n != 4 {
			t.Errorf("%d queues are left, want 3 and the marker", n)
		}
		if s.fence.Trouble(s.provider.Name, v1alpha1.ConditionIdentityConflict) != "" {
			t.Error("it takes itself for a copy")
		}
		if point > 0 && !crashed {
			t.Error("the point was never reached")
		}
		return total
	}
	points := live(t, 0)
	if points < 30 {
		t.Errorf("only %d calls: the scenario does not do what it says", points)
	}
	for point := 1; point <= points; point++ {
		t.Run(fmt.Sprint(point), func(t *testing.T) { live(t, point) })
	}
	fmt.Printf("CRASHPOINTS sweeper=%d\n", points)
}

var errCrash = errors.New("the process was stopped here")
