package operator

import (
	"context"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create

// heartbeatsPermitted asks the API server whether service accounts may patch Leases in the namespace of heartbeats, whatever
// grants that: what is shipped, or an administrator's own. Where the operator may not even ask, they count as not permitted,
// since who was silent for want of a permission could not be told from who is idle.
func heartbeatsPermitted(reviews authorizationclient.SubjectAccessReviewInterface) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		review, err := reviews.Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			Groups: []string{"system:serviceaccounts", "system:authenticated"},
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Verb: "patch", Group: coordinationv1.GroupName, Resource: "leases", Namespace: v1alpha1.HeartbeatNamespace,
			},
		}}, metav1.CreateOptions{})
		switch {
		case apierrors.IsForbidden(err):
			ctrl.LoggerFrom(ctx).WithName("heartbeats").Error(err, "Could not ask whether pods may heartbeat; no queue is closed for idleness meanwhile")
			return false, nil
		case err != nil:
			return false, err
		}
		return review.Status.Allowed, nil
	}
}
