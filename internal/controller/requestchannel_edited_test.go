package controller_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// A process that comes back to the spec that it was working on does all of it again, whatever it forgot. What it wrote down
// before each call is needed when the spec is another by then.
var _ = ginkgo.Describe("Crash points of a channel that is edited meanwhile", func() {
	ginkgo.It("lead where the last edit says, wherever the process stops", func(ctx context.Context) {
		ctx = context.WithoutCancel(ctx)
		want := editedLife(ctx, &crashPoints{}, nextEdit, 0)
		lives := make(chan func())
		var runners sync.WaitGroup
		for range 4 {
			runners.Go(func() {
				for live := range lives {
					live()
				}
			})
		}
		// All of it is make crashpoints'.
		sample, n := 25, 0
		for at := 1; at <= want.calls; at++ {
			for _, lands := range []landing{nextEdit, deletion} {
				for _, lag := range []time.Duration{0, 5 * time.Second} {
					if n++; *everyPoint || n%sample == 0 {
						lives <- func() { tryEdited(ctx, at, lands, lag, want) }
					}
				}
			}
		}
		close(lives)
		runners.Wait()
	})
})

// landing is what the user does between the stop of the process and its restart.
type landing string

const (
	nextEdit landing = "the next edit"
	deletion landing = "the deletion"
)

func tryEdited(ctx context.Context, at int, lands landing, lag time.Duration, want lived) {
	defer ginkgo.GinkgoRecover()
	points := &crashPoints{at: at, what: stops}
	got := editedLife(ctx, points, lands, lag)
	where := fmt.Sprintf("%s after call %d of %d, %s, SQS shows writes after %s", lands, at, want.calls, points.call, lag)
	gomega.Expect(points.calls).To(gomega.BeNumerically(">=", at), "the point was never reached: %s", where)
	if lands == deletion {
		gomega.Expect(got.states[len(got.states)-1]).To(gomega.ConsistOf(want.states[len(want.states)-1]), where)
		return
	}
	for i, state := range got.states {
		if state != nil {
			gomega.Expect(state).To(gomega.ConsistOf(want.states[i]), "after edit %d: %s", i+1, where)
		}
	}
}

// editedLife is a channel with all that can be unset, without it, with more of it, without it again, and deleted. When the
// process stops, the next edit, or the deletion, lands before it is back. Calls are counted up to the deletion.
func editedLife(ctx context.Context, points *crashPoints, lands landing, lag time.Duration) (l lived) {
	ginkgo.GinkgoHelper()
	const policy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"sqs:SendMessage","Resource":"*"}]}`
	w := newWorld(ctx)
	_, err := w.sqs.Client().CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: ptr.To("bystander")})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.AllowPolicies = ptr.To(true) })
	dead := channelNamed("dead", using(p))
	w.apply(dead)
	w.settle(dead)
	w.pass(20 * time.Minute)
	if lag > 0 {
		w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.StaleReads, Duration: lag}}})
	}
	w.interrupted(points)
	w.restart()

	c := channelNamed("login", using(p))
	rich := func(spec *v1alpha1.RequestChannelSpec) {
		spec.Policy = policy
		spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45), DelaySeconds: ptr.To[int32](5)}
		spec.Tags = v1alpha1.Tags{"team": "identity"}
		spec.Binding = &v1alpha1.Binding{SecretName: "login"}
		deadTo("dead")(spec)
	}
	bare := func(spec *v1alpha1.RequestChannelSpec) {
		*spec = v1alpha1.RequestChannelSpec{ManagementPolicy: spec.ManagementPolicy, ProviderRef: spec.ProviderRef}
	}
	edit := func(to func(*v1alpha1.RequestChannelSpec)) func() {
		return func() { change(w, c, func(c *v1alpha1.RequestChannel) { to(&c.Spec) }) }
	}
	edits := []func(){
		func() {
			rich(&c.Spec)
			w.apply(c)
		},
		edit(bare),
		edit(func(spec *v1alpha1.RequestChannelSpec) {
			rich(spec)
			spec.Queue.ReceiveWaitSeconds, spec.Tags["cost"] = ptr.To[int32](20), "1"
			spec.Encryption = &v1alpha1.Encryption{Type: v1alpha1.EncryptionKMS, KMSKeyID: "alias/a"}
		}),
		edit(bare),
		func() { w.remove(c) },
	}
	l.states = make([][]string, len(edits))
	last := len(edits) - 1
	for i := 0; i <= last; i++ {
		w.afterStop = func() {
			if lands == deletion {
				i = last
			} else {
				i++
			}
			edits[i]()
		}
		if i == last {
			l.calls = points.calls
			w.afterStop = nil
		}
		edits[i]()
		w.settle(c)
		w.pass(time.Minute)
		l.states[i] = w.state(c)
		w.pass(20 * time.Minute)
	}
	gomega.Expect(w.exists(c)).To(gomega.BeFalse())
	// No garbage collector runs here that would remove the Secret of a channel that was deleted.
	l.states[last] = slices.DeleteFunc(l.states[last], func(line string) bool { return strings.HasPrefix(line, "secret ") })
	return l
}
