package controller_test

import (
	"context"
	"fmt"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// What is lost unless it is noted before SQS is asked to do it.
var _ = ginkgo.Describe("A note that comes first", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	named := func(name string) string { return "rq_" + clusterName + "_" + w.namespace + "_" + name }
	// stopsAt reconciles in a process that is stopped before its status write at, if it comes to that, and starts another.
	stopsAt := func(c *v1alpha1.RequestChannel, at int) (stopped bool) {
		writes := 0
		w.before = func(write string) error {
			if write == "patch status RequestChannel" {
				if writes++; writes >= at {
					return errStopped
				}
			}
			return nil
		}
		_, err := w.survives(c)
		w.before = nil
		w.restart()
		return err != nil
	}

	for what, begin := range map[string]func(*v1alpha1.RequestChannelSpec){
		"was there":    withDeadLetter,
		"is made anew": func(*v1alpha1.RequestChannelSpec) {},
	} {
		ginkgo.It("has a tag taken off again from a dead-letter queue that "+what+", wherever the process stopped", func() {
			for at, stopped := 1, true; stopped; at++ {
				c := channelNamed(fmt.Sprintf("login-%d", at), begin)
				w.apply(c)
				w.reconciled(c)
				w.pass(time.Hour)
				change(w, c, func(c *v1alpha1.RequestChannel) {
					withDeadLetter(&c.Spec)
					c.Spec.Tags = v1alpha1.Tags{"cost": "1"}
				})
				stopped = stopsAt(c, at)
				change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Tags = nil })
				w.settle(c)
				gomega.Expect(c).To(beReady())
				q, there := w.sqs.Queue(named(c.Name + "_dlq"))
				gomega.Expect(there).To(gomega.BeTrue())
				gomega.Expect(q.Tags).NotTo(gomega.HaveKey("cost"), fmt.Sprintf("stopped before status write %d", at))
				gomega.Expect(at).To(gomega.BeNumerically("<", 9))
			}
		})
	}
})
