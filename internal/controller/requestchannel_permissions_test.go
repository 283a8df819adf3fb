package controller_test

import (
	"context"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// The life of a channel under what is shipped for the operator's role in IAM, with the fence, and under that without one action in turn:
// whether it is Ready when it was edited, and gone when it was deleted, is what docs/operations.md says of the action.
var _ = ginkgo.DescribeTable("The operator's policy for IAM", func(ctx context.Context, without string, ready, gone bool) {
	w := newWorld(context.WithoutCancel(ctx))
	document, err := os.ReadFile("../../config/iam/operator.json")
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	access, err := sqstest.AccessByPolicy(sqstest.AccessKey, document)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	var wantDenied []string
	if without != "" {
		wantDenied = []string{without}
		whole := len(access)
		access = slices.DeleteFunc(access, func(r sqstest.AccessRule) bool { return r.Action == without })
		gomega.Expect(access).To(gomega.HaveLen(whole - 1))
	}
	w.sqs.SetAccess(access...)
	f := w.fenced("identity")
	w.compared(f, 2)
	c := channelNamed("login", withDeadLetter, func(s *v1alpha1.RequestChannelSpec) { s.Tags = v1alpha1.Tags{"cost": "1"} })
	w.apply(c)
	goOn := func(times int) {
		for range times {
			if w.exists(c) {
				_ = w.reconcile(c) // What it meets is told by its conditions.
			}
			w.pass(time.Minute)
			w.compared(f, 1)
		}
	}
	goOn(3)
	w.restart() // What URLs begin with has to be asked for again.
	f = w.fenced("identity")
	w.compared(f, 12)
	change(w, c, func(c *v1alpha1.RequestChannel) {
		c.Spec.Tags = nil
		c.Spec.Queue = &v1alpha1.QueueAttributes{DelaySeconds: ptr.To[int32](5)}
	})
	goOn(7)
	gomega.Expect(meta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ConditionReady)).To(gomega.Equal(ready), "Ready, of %v", c.Status.Conditions)
	w.remove(c)
	goOn(10)
	gomega.Expect(!w.exists(c)).To(gomega.Equal(gone), "gone; else %v", c.Status.Conditions)
	if gone {
		gomega.Expect(w.sqs.Queues()).To(gomega.ConsistOf(gomega.HaveField("Name", gomega.HaveSuffix("_identity"))))
	}
	var denied []string
	for _, r := range w.sqs.RequestLog(func(r *sqstest.Request) bool { return r.Status == http.StatusForbidden }) {
		denied = append(denied, r.Action)
	}
	slices.Sort(denied)
	gomega.Expect(slices.Compact(denied)).To(gomega.Equal(wantDenied))
},
	ginkgo.Entry("suffices", "", true, true),
	ginkgo.Entry("without CreateQueue makes nothing, and deletes nothing", "CreateQueue", false, false),
	ginkgo.Entry("without TagQueue deletes nothing", "TagQueue", true, false),
	ginkgo.Entry("without GetQueueUrl knows no queue, and deletes nothing", "GetQueueUrl", false, false),
	ginkgo.Entry("without ListQueueTags knows whose no queue is, and deletes nothing", "ListQueueTags", false, false),
	ginkgo.Entry("without GetQueueAttributes has no channel Ready", "GetQueueAttributes", false, true),
	ginkgo.Entry("without SetQueueAttributes carries out no edit", "SetQueueAttributes", false, true),
	ginkgo.Entry("without UntagQueue takes no tag away", "UntagQueue", false, true),
	ginkgo.Entry("without DeleteQueue deletes nothing", "DeleteQueue", true, false),
)
