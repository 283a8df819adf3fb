package sweep_test

import (
	"strings"
	"testing"

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

// One queue that cannot be looked at, which anybody may have made, keeps no other: it stays, and each sweep says why.
func TestOneOddQueueKeepsNoOther(t *testing.T) {
	odd := map[string]func(s *stage, server *sqstest.Server) string{
		"its tags name no namespace that there can be": func(s *stage, _ *sqstest.Server) string {
			name := s.provider.ReplyQueueName(newUID())
			s.queue(name, map[string]string{
				v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindReply, v1alpha1.TagNamespace: "a/b", v1alpha1.TagName: "x",
			})
			return name
		},
		"its tags cannot be read": func(s *stage, server *sqstest.Server) string {
			name := s.orphan()
			server.SetAccess(sqstest.AccessRule{Action: "ListQueueTags", Queue: name, Deny: true})
			return name
		},
	}
	for why, put := range odd {
		t.Run(why, func(t *testing.T) {
			server := sqstest.NewServer(t)
			s := newStage(t, server)
			a, b := s.orphan(), s.orphan()
			kept := put(s, server)
			var said error
			for range 4 {
				said = s.pass()
			}
			s.expect(a, false, "an orphan")
			s.expect(b, false, "an orphan")
			s.expect(kept, true, why)
			if said == nil || !strings.Contains(said.Error(), kept) {
				t.Errorf("the sweep said %v", said)
			}
		})
	}
}
