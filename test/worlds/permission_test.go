package worlds

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// The RoleBinding by which applications heartbeat is deleted: the operator's own beacon comes back all the same, but nobody is
// closed for a silence that has this cause, and the ReplyHosts say so. What an administrator grants in its place does as well,
// and idleness is judged again.
func TestWorldHeartbeatPermissionDeleted(t *testing.T) {
	w := newWorld(t)
	lively, silent := w.pod("lively"), w.pod("silent")
	w.starts(lively)
	w.starts(silent)
	w.reread(lively)
	w.reread(silent)
	stop, quiet := w.beatsBy(w.bearer(lively), lively), w.beatsBy(w.bearer(silent), silent)
	defer stop()
	w.eventually("the pod heartbeats with its own token", func() string {
		lease := leaseOf(lively)
		if w.reread(lease); lease.Spec.RenewTime == nil {
			return "it has not"
		}
		return ""
	})
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.HeartbeatNamespace, Name: "replyqueue-renew-heartbeat"}}
	w.reread(binding)
	w.must(admin.Delete(t.Context(), binding))
	t.Cleanup(func() {
		if err := reinstall(); err != nil {
			t.Error(err)
		}
	})
	gone := time.Now()
	w.eventually("the ReplyHost says so", func() string {
		return w.condition(v1alpha1.ConditionHeartbeatsUnguarded, v1alpha1.ReasonPermissionMissing)
	})
	w.eventually("two retentions pass", func() string {
		if left := 2*retention - time.Since(gone); left > 0 {
			return left.String()
		}
		return ""
	})
	for _, p := range []*corev1.Pod{lively, silent} {
		w.kept(p)
	}
	quiet()

	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "an-administrators-own"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"patch"}},
	}}
	w.must(admin.Create(t.Context(), role))
	granted := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.HeartbeatNamespace, Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:serviceaccounts"}},
	}
	w.must(admin.Create(t.Context(), granted))
	t.Cleanup(func() {
		if err := errors.Join(admin.Delete(context.Background(), granted), admin.Delete(context.Background(), role)); err != nil {
			t.Error(err)
		}
	})
	w.eventually("the ReplyHost is content", func() string {
		if w.condition(v1alpha1.ConditionHeartbeatsUnguarded, v1alpha1.ReasonPermissionMissing) == "" {
			return "it still says that the permission is missing"
		}
		return ""
	})
	w.eventually("the silent pod's queue is closed in the end", func() string {
		if _, there := sqs.Queue(queueOf(silent)); there {
			return "it is there"
		}
		return ""
	})
	w.kept(lively)
}
