package sweep_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// empty is a copy's API server, in which there are neither the original's pods nor its records.
type empty struct{ client.WithWatch }

func (e empty) Get(ctx context.Context, k client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	switch o.(type) {
	case *corev1.Pod, *v1alpha1.ReplyQueue:
		return apierrors.NewNotFound(corev1.Resource("pods"), k.Name)
	}
	return e.WithWatch.Get(ctx, k, o, opts...)
}

func (e empty) List(ctx context.Context, l client.ObjectList, opts ...client.ListOption) error {
	if _, ok := l.(*v1alpha1.ReplyQueueList); ok {
		return nil
	}
	return e.WithWatch.List(ctx, l, opts...)
}

// TestAWaitingCopySweepsNothing has the original's last application go, and come back, while a copy waits.
func TestAWaitingCopySweepsNothing(t *testing.T) {
	server := sqstest.NewServer(t)
	original, clone := newStage(t, server), newStage(t, server)
	original.must(original.fence.Check(original.ctx, original.provider))
	clone.provider.Name = original.provider.Name
	c := clone.configMap()
	c.Data = original.configMap().Data
	clone.must(clone.admin.Update(clone.ctx, c))
	for range 15 {
		original.must(original.fence.Check(original.ctx, original.provider))
		if clone.fence.Check(clone.ctx, clone.provider) == nil {
			t.Fatal("the copy is not fenced")
		}
	}
	was := original.fence.InUse
	original.fence.InUse = func(context.Context) ([]string, error) { return nil, nil }
	for range 9 {
		original.fence.Round(original.ctx)
		clone.clock.Step(10 * time.Second)
		clone.fence.Round(clone.ctx)
	}
	original.fence.InUse = was
	_, live := original.live("web-1")
	original.fence.Round(original.ctx)
	if err := original.fence.MayDelete(original.provider.Name); err != nil {
		t.Errorf("the original is held: %v", err)
	}
	clone.sweeper.Reader, clone.sweeper.Client = empty{clone.kube}, empty{clone.kube}
	for range 4 {
		if clone.pass() == nil {
			t.Error("the copy sweeps")
		}
	}
	clone.expect(live, true, "a live queue of the original")
}

// TestAnotherAccountGivesNothingUp has ten live queues in one account, fewer than the brake is for; then the operator's
// credentials are another's.
func TestAnotherAccountGivesNothingUp(t *testing.T) {
	for _, c := range []struct {
		name    string
		other   sqstest.Option
		restart bool
	}{
		{"to a running operator", sqstest.WithAccount("222222222222"), false},
		{"with a restart", sqstest.WithAccount("222222222222"), true},
		{"with a restart, in another place of the same number", sqstest.WithAccount(sqstest.DefaultAccount), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, sqstest.NewServer(t))
			for i := range 10 {
				s.live(fmt.Sprintf("web-%d", i))
			}
			s.passes(3)
			own := s.provider.API
			s.provider.API = calling{sqstest.NewServer(t, c.other).Client(noRetries), s}
			if c.restart {
				s.restart()
			}
			for range 4 {
				if s.pass() == nil {
					t.Error("it is swept")
				}
				if s.fence.MayDelete(s.provider.Name) == nil {
					t.Error("queues may be deleted")
				}
			}
			s.provider.API = own
			s.passes(3)
			if len(s.missing) > 0 {
				t.Errorf("%d records were given up", len(s.missing))
			}
		})
	}
}
