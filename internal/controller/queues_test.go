package controller_test

import (
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// This file holds what people do in a world: to queues, in AWS, and to have the operator look at them.

// named is the computed name of the queue of a RequestChannel in the world's namespace.
func (w *world) named(channel string) string {
	return "rq_" + clusterName + "_" + w.namespace + "_" + channel
}

// consent is the tag by which the owner of a queue lets this namespace adopt it.
func (w *world) consent() map[string]string {
	return map[string]string{v1alpha1.TagAdoptableBy: clusterName + "/" + w.namespace}
}

// share is the tag by which the owner of a queue lets this namespace, and another, observe it and send dead letters there.
func (w *world) share() map[string]string {
	return map[string]string{v1alpha1.TagSharedWith: "c2/shop " + clusterName + "/" + w.namespace}
}

// look asks the operator to compare a channel's queues with its spec, by a value of the annotation that it had not before.
func (w *world) look(c *v1alpha1.RequestChannel, at string) {
	ginkgo.GinkgoHelper()
	change(w, c, func(c *v1alpha1.RequestChannel) {
		c.Annotations = map[string]string{v1alpha1.AnnotationReconcileAt: at}
	})
}

// there is a queue that exists.
func (w *world) there(name string) sqstest.QueueInfo {
	ginkgo.GinkgoHelper()
	q, there := w.sqs.Queue(name)
	gomega.Expect(there).To(gomega.BeTrue(), "there is no queue "+name)
	return q
}

// set sets attributes of a queue as somebody else might.
func (w *world) set(name string, attributes map[string]string) {
	ginkgo.GinkgoHelper()
	q := w.there(name)
	_, err := w.sqs.Client().SetQueueAttributes(w.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &q.URL, Attributes: attributes})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
}

// tag tags a queue as its owner in AWS does.
func (w *world) tag(name string, tags map[string]string) {
	ginkgo.GinkgoHelper()
	q := w.there(name)
	_, err := w.sqs.Client().TagQueue(w.ctx, &sqs.TagQueueInput{QueueUrl: &q.URL, Tags: tags})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
}

// untag takes tags off a queue.
func (w *world) untag(name string, keys ...string) {
	ginkgo.GinkgoHelper()
	q := w.there(name)
	_, err := w.sqs.Client().UntagQueue(w.ctx, &sqs.UntagQueueInput{QueueUrl: &q.URL, TagKeys: keys})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
}

// queueTagged creates a queue as its owner in AWS does, and returns its URL.
func (w *world) queueTagged(name string, tags map[string]string) string {
	ginkgo.GinkgoHelper()
	out, err := w.sqs.Client().CreateQueue(w.ctx, &sqs.CreateQueueInput{QueueName: &name, Tags: tags})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	return *out.QueueUrl
}

// deleteQueue deletes a queue as somebody else might, and forgets that request: the operator made none.
func (w *world) deleteQueue(name string) {
	ginkgo.GinkgoHelper()
	q := w.there(name)
	_, err := w.sqs.Client().DeleteQueue(w.ctx, &sqs.DeleteQueueInput{QueueUrl: &q.URL})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	w.sqs.ResetRequests()
}

// sendTo sends a message to a queue.
func (w *world) sendTo(name string) {
	ginkgo.GinkgoHelper()
	q := w.there(name)
	_, err := w.sqs.Client().SendMessage(w.ctx, &sqs.SendMessageInput{QueueUrl: &q.URL, MessageBody: ptr.To("x")})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
}
