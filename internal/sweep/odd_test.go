package sweep_test

import (
	"strings"
	"testing"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

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
