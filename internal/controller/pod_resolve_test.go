package controller

import (
	"testing"

	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// A pod is told what its client needs of a channel, and no field of it is forgotten.
func TestDescribe(t *testing.T) {
	const url = "https://sqs.eu-west-1.amazonaws.com/111122223333/login.fifo"
	channel := &v1alpha1.RequestChannel{
		Spec: v1alpha1.RequestChannelSpec{
			FIFO:       &v1alpha1.FIFO{},
			Call:       &v1alpha1.CallDefaults{TimeoutSeconds: ptr.To[int32](20), MaxAttempts: ptr.To[int32](2)},
			DeadLetter: &v1alpha1.DeadLetter{MaxReceiveCount: 4},
			Queue:      &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](60), MaximumMessageBytes: ptr.To[int32](4096)},
		},
		Status: v1alpha1.RequestChannelStatus{QueueURL: url, DeadLetterTargetARN: "arn:aws:sqs:eu-west-1:111122223333:dead.fifo"},
	}
	want := injected.Channel{
		URL: url, Role: injected.RoleBoth, TimeoutSeconds: 20, MaxAttempts: 2, FIFO: true,
		VisibilityTimeoutSeconds: 60, MaximumMessageBytes: 4096, DeadLetter: true, MaxReceiveCount: 4,
	}
	if got := describe(channel, injected.RoleBoth); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	channel.Spec.ManagementPolicy, want.MaxReceiveCount = v1alpha1.ManagementPolicyObserve, 0
	if got := describe(channel, injected.RoleBoth); got != want {
		t.Errorf("of a channel that is observed, whose queue may say another number: got %+v, want %+v", got, want)
	}
	unset := &v1alpha1.RequestChannel{Spec: v1alpha1.RequestChannelSpec{DeadLetter: &v1alpha1.DeadLetter{MaxReceiveCount: 4}}, Status: v1alpha1.RequestChannelStatus{QueueURL: url}}
	if got := describe(unset, injected.RoleCall); got != (injected.Channel{URL: url, Role: injected.RoleCall}) {
		t.Errorf("of a channel that sets nothing, and whose dead letters are moved nowhere yet: %+v", got)
	}
}
