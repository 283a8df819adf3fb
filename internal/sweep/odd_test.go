package sweep_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// A queue that belongs to a name may be read by any pod of that name, also by one that was told of another since. One that
// belongs to a pod is read by that pod alone.
func TestAPodOfTheNameKeepsAStableQueue(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	first := s.pod("db-0")
	s.must(s.admin.Delete(s.ctx, first, client.GracePeriodSeconds(0)))
	ofPod := s.replyQueue(newUID(), "db-0-1", first)
	ofName := s.queue(s.provider.ReplyQueueName(newUID()), map[string]string{
		v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindReply, v1alpha1.TagNamespace: s.namespace, v1alpha1.TagName: "db-0-1",
		v1alpha1.TagPodNamespace: s.namespace, v1alpha1.TagPodName: first.Name, v1alpha1.TagPodUID: string(first.UID),
		v1alpha1.TagIdentity: string(v1alpha1.IdentityStable),
	})
	second := s.pod("db-0")
	s.passes(4)
	s.expect(ofPod, false, "whose pod is gone")
	s.expect(ofName, true, "whose name another pod bears")
	s.must(s.admin.Delete(s.ctx, second, client.GracePeriodSeconds(0)))
	s.passes(1)
	s.expect(ofName, false, "whose name nobody bears")
}

func (s *stage) deleteInSQS(name string) {
	s.Helper()
	url, err := s.provider.QueueURL(s.ctx, name)
	s.must(err)
	_, err = s.sqs.Client().DeleteQueue(s.ctx, &sqs.DeleteQueueInput{QueueUrl: &url})
	s.must(err)
}

// trouble is what the QueueProvider's condition says.
func (s *stage) trouble(condition string) string { return s.fence.Trouble(s.provider.Name, condition) }

// One queue that cannot be looked at, which anybody may have made, keeps no other: it stays, and each sweep says why. When
// that lasts, an administrator is told once, where the brakes are told, and no more when it has healed.
func TestOneOddQueueKeepsNoOther(t *testing.T) {
	deny := func(action string) func(*stage) string {
		return func(s *stage) string {
			name := s.orphan()
			s.sqs.SetAccess(sqstest.AccessRule{Action: action, Queue: name, Deny: true})
			return name
		}
	}
	odd := map[string]struct {
		put    func(*stage) string
		mended func(*stage, string)
		gone   bool
	}{
		"its tags name no namespace that there can be": {func(s *stage) string {
			name := s.provider.ReplyQueueName(newUID())
			s.queue(name, map[string]string{
				v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindReply, v1alpha1.TagNamespace: "a/b", v1alpha1.TagName: "x",
			})
			return name
		}, (*stage).deleteInSQS, true},
		"its tags cannot be read": {deny("ListQueueTags"), func(s *stage, _ string) { s.sqs.SetAccess() }, true},
		"it cannot be deleted":    {deny("DeleteQueue"), func(s *stage, _ string) { s.sqs.SetAccess() }, true},
		"a queue of another kind cannot be read": {func(s *stage) string {
			name := s.queue("rq_c_shop_login", map[string]string{v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindRequest})
			s.sqs.SetAccess(sqstest.AccessRule{Action: "ListQueueTags", Queue: name, Deny: true})
			return name
		}, func(s *stage, _ string) { s.sqs.SetAccess() }, false},
	}
	for why, c := range odd {
		t.Run(why, func(t *testing.T) {
			s := newStage(t, sqstest.NewServer(t))
			a, b := s.orphan(), s.orphan()
			kept := c.put(s)
			for range 2 {
				_ = s.pass()
			}
			if s.trouble(v1alpha1.ConditionSweepIncomplete) != "" {
				t.Error("an administrator is told of what may pass by itself")
			}
			var said error
			for range 4 {
				said = s.pass()
			}
			s.expect(a, false, "an orphan")
			s.expect(b, false, "an orphan")
			s.expect(kept, true, why)
			if said == nil || !strings.Contains(said.Error(), kept) && !strings.Contains(said.Error(), "denied") {
				t.Errorf("the sweep said %v", said)
			}
			if told := s.trouble(v1alpha1.ConditionSweepIncomplete); !strings.Contains(told, kept) || !strings.Contains(s.status(), told) {
				t.Errorf("an administrator is told %q, and the ConfigMap says %q", told, s.status())
			}
			if n := s.heard(v1alpha1.ConditionSweepIncomplete); n != 2 {
				t.Errorf("%d events, want one on each of two objects", n)
			}
			c.mended(s, kept)
			s.passes(2)
			s.expect(kept, !c.gone, "when it was mended")
			if told := s.trouble(v1alpha1.ConditionSweepIncomplete); told != "" || s.status() != "" {
				t.Errorf("when it was mended, an administrator is told %q, and the ConfigMap says %q", told, s.status())
			}
		})
	}
}

// A sweep that never comes to its end is told too, and so is that it does again.
func TestSweepsThatFailAreTold(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	s.passes(1)
	s.sqs.SetAccess(sqstest.AccessRule{Action: "ListQueues", Deny: true})
	for range 5 {
		if s.pass() == nil {
			t.Fatal("the sweep says that it was made")
		}
	}
	if told := s.trouble(v1alpha1.ConditionSweepIncomplete); !strings.Contains(told, "AccessDenied") || !strings.Contains(s.status(), told) {
		t.Errorf("an administrator is told %q, and the ConfigMap says %q", told, s.status())
	}
	if n := s.heard(v1alpha1.ConditionSweepIncomplete); n != 2 {
		t.Errorf("%d events, want one on each of two objects", n)
	}
	s.sqs.SetAccess()
	s.passes(1)
	if told := s.trouble(v1alpha1.ConditionSweepIncomplete); told != "" || s.status() != "" {
		t.Errorf("afterwards an administrator is told %q, and the ConfigMap says %q", told, s.status())
	}
}

// Many records without a queue are rather a wrong view than lost queues: none is given up, and it is said so, until a human
// allows it once.
func TestManyMissingQueuesAreTold(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	var names []string
	for i := range 11 {
		_, name := s.live(fmt.Sprintf("web-%d", i))
		names = append(names, name)
	}
	s.passes(1)
	for _, name := range names {
		s.deleteInSQS(name)
	}
	s.passes(4)
	want := fmt.Sprintf("%s=%s/missing=11", v1alpha1.AnnotationAllowSweep, s.provider.Name)
	if told := s.trouble(v1alpha1.ConditionQueuesMissing); !strings.Contains(told, want) || !strings.Contains(s.status(), told) || len(s.missing) > 0 {
		t.Fatalf("an administrator is told %q, and %d records were given up", told, len(s.missing))
	}
	if n := s.heard(v1alpha1.ConditionQueuesMissing); n != 2 {
		t.Errorf("%d events, want one on each of two objects", n)
	}
	s.annotate(v1alpha1.AnnotationAllowSweep, s.provider.Name+"/missing=11")
	s.passes(1)
	if c := s.configMap(); len(s.missing) != 11 || c.Annotations[v1alpha1.AnnotationAllowSweep] != "" || s.status() != "" {
		t.Errorf("%d records were given up when a human allowed it; the annotation is %q, the status %q", len(s.missing), c.Annotations[v1alpha1.AnnotationAllowSweep], s.status())
	}
}

// A Lease that names no pod that there can be keeps no other.
func TestAnOddLeaseKeepsNoOther(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	odd, other := s.lease(newUID(), "a/b"), s.lease(newUID(), "gone")
	t.Cleanup(func() { _ = s.admin.Delete(context.Background(), odd) })
	for range 3 {
		if err := s.pass(); err == nil || !strings.Contains(err.Error(), odd.Name) {
			t.Errorf("the sweep says %v", err)
		}
	}
	if !s.exists(odd) || s.exists(other) {
		t.Errorf("the odd one is there: %t, the other: %t; want the odd one alone", s.exists(odd), s.exists(other))
	}
}

// A record whose queue is in another account than the operator's credentials is nobody's to give up: whether the queue is there
// cannot be seen. It keeps no other from being found missing, and is told while it lasts.
func TestAQueueOfAnotherAccountIsKeptAndTold(t *testing.T) {
	s := newStage(t, sqstest.NewServer(t))
	away, name := s.live("web-1")
	before := away.DeepCopy()
	away.Status.QueueURL = strings.Replace(away.Status.QueueURL, accountOf(away.Status.QueueURL), "222222222222", 1)
	s.must(s.kube.Status().Patch(s.ctx, away, client.MergeFrom(before)))
	s.deleteInSQS(name)
	gone, goneName := s.live("web-2")
	s.deleteInSQS(goneName)
	for range 6 {
		_ = s.pass()
	}
	for _, key := range s.missing {
		if key != client.ObjectKeyFromObject(gone) {
			t.Errorf("%s is given up", key)
		}
	}
	if len(s.missing) == 0 {
		t.Error("a queue that is gone is not found because another cannot be seen")
	}
	if said := s.trouble(v1alpha1.ConditionSweepIncomplete); !strings.Contains(said, name) || !strings.Contains(said, "another account") {
		t.Errorf("told %q, want the queue %s and why", said, name)
	}
	s.must(s.kube.Delete(s.ctx, away))
	_ = s.pass()
	if said := s.trouble(v1alpha1.ConditionSweepIncomplete); said != "" {
		t.Errorf("told %q after the record is gone", said)
	}
}

// accountOf is the account in a queue's URL.
func accountOf(url string) string {
	parts := strings.Split(url, "/")
	return parts[len(parts)-2]
}
