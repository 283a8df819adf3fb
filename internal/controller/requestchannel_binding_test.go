package controller_test

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/replyqueue/replyqueue/internal/controller"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func bindingTo(name string) func(*v1alpha1.RequestChannelSpec) {
	return func(spec *v1alpha1.RequestChannelSpec) { spec.Binding = &v1alpha1.Binding{SecretName: name} }
}

var _ = ginkgo.Describe("A channel's binding", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	secret := func(name string) *corev1.Secret {
		ginkgo.GinkgoHelper()
		s := &corev1.Secret{}
		gomega.Expect(direct.Get(w.ctx, client.ObjectKey{Namespace: w.namespace, Name: name}, s)).To(gomega.Succeed())
		return s
	}
	gone := func(name string) bool {
		return !w.exists(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}})
	}
	look := func(c *v1alpha1.RequestChannel) {
		ginkgo.GinkgoHelper()
		w.pass(2 * time.Hour)
		w.reconciled(c)
	}

	ginkgo.It("is a Secret as servicebinding.io wants it, which the channel controls and its status names", func() {
		c := channelNamed("login", bindingTo("login-queue"))
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(gomega.And(beReady(), haveCondition(v1alpha1.ConditionBindingReady, metav1.ConditionTrue, v1alpha1.ReasonAvailable)))
		gomega.Expect(c.Status.Binding).To(gomega.HaveValue(gomega.HaveField("Name", "login-queue")))
		s := secret("login-queue")
		gomega.Expect(s.Type).To(gomega.BeEquivalentTo("servicebinding.io/sqs"))
		gomega.Expect(s.Data).To(gomega.Equal(map[string][]byte{
			"type": []byte("sqs"), "provider": []byte("aws"), "uri": []byte(c.Status.QueueURL), "region": []byte("us-east-1"), "arn": []byte(c.Status.QueueARN),
		}))
		gomega.Expect(metav1.IsControlledBy(s, c)).To(gomega.BeTrue(), "so that it goes with the channel")
		gomega.Expect(s.ManagedFields).To(gomega.ConsistOf(gomega.And(gomega.HaveField("Manager", "replyqueue"), gomega.HaveField("Operation", metav1.ManagedFieldsOperationApply))))

		_, writes := w.costing(func() { w.reconciled(c) })
		gomega.Expect(writes).To(gomega.BeEmpty())
		look(c)
		gomega.Expect(secret("login-queue").ResourceVersion).To(gomega.Equal(s.ResourceVersion), "a look changes nothing")
	})

	ginkgo.It("is written for an observed queue too", func() {
		p := w.providerFor(allowing("orders"))
		c := channelNamed("orders", using(p), called("orders"), bindingTo("orders"), func(spec *v1alpha1.RequestChannelSpec) {
			spec.ManagementPolicy = v1alpha1.ManagementPolicyObserve
		})
		url := w.queueTagged("orders", map[string]string{v1alpha1.TagAdoptableBy: clusterName + "/" + w.namespace})
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(secret("orders").Data).To(gomega.HaveKeyWithValue("uri", []byte(url)))
	})

	ginkgo.It("is put right when someone changed it, written again when someone deleted it, and leaves what others added", func() {
		c := channelNamed("login", bindingTo("login-queue"))
		w.apply(c)
		w.reconciled(c)
		change(w, secret("login-queue"), func(s *corev1.Secret) {
			s.Data["uri"], s.Data["theirs"] = []byte("https://elsewhere"), []byte("x")
		})
		look(c)
		gomega.Expect(secret("login-queue").Data).To(gomega.And(
			gomega.HaveKeyWithValue("uri", []byte(c.Status.QueueURL)), gomega.HaveKeyWithValue("theirs", []byte("x"))))
		w.remove(secret("login-queue"))
		look(c)
		gomega.Expect(secret("login-queue").Data).To(gomega.HaveKeyWithValue("uri", []byte(c.Status.QueueURL)))
	})

	ginkgo.It("is removed when it is no longer asked for, and moves when its name changes", func() {
		c := channelNamed("login", bindingTo("first"))
		w.apply(c)
		w.reconciled(c)
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Binding.SecretName = "second" })
		w.reconciled(c)
		gomega.Expect(gone("first")).To(gomega.BeTrue())
		secret("second")
		gomega.Expect(c.Status.Binding.Name).To(gomega.Equal("second"))
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Binding = nil })
		w.reconciled(c)
		gomega.Expect(gone("second")).To(gomega.BeTrue())
		gomega.Expect(c).To(beReady())
		gomega.Expect(c.Status.Binding).To(gomega.BeNil())
		gomega.Expect(c.Status.Conditions).NotTo(gomega.ContainElement(gomega.HaveField("Type", v1alpha1.ConditionBindingReady)))
	})

	for under, guard := range map[string]func(){"": func() {}, ", as the policy on bindings has it": func() { w.guarded() }} {
		ginkgo.DescribeTable("never overwrites, nor removes, a Secret that is not the channel's"+under, func(edit func(*corev1.Secret, *v1alpha1.RequestChannel)) {
			guard()
			c := channelNamed("login", bindingTo("theirs"))
			w.apply(c)
			s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "theirs"}, Data: map[string][]byte{"password": []byte("x")}}
			edit(s, c)
			w.apply(s)
			w.reconciled(c)
			gomega.Expect(c).To(gomega.And(beStalled(v1alpha1.ReasonSecretNotOwned, "spec.binding.secretName", "theirs"),
				haveCondition(v1alpha1.ConditionBindingReady, metav1.ConditionFalse, v1alpha1.ReasonSecretNotOwned),
				haveCondition(v1alpha1.ConditionQueueReady, metav1.ConditionTrue, v1alpha1.ReasonAvailable)))
			gomega.Expect(c.Status.Binding).To(gomega.BeNil())
			gomega.Expect(c.Status.QueueURL).NotTo(gomega.BeEmpty(), "the queue is there for callers all the same")
			gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically(">", 0))
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Binding = nil })
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			gomega.Expect(secret("theirs")).To(gomega.Equal(s))
		},
			ginkgo.Entry("a plain one", func(*corev1.Secret, *v1alpha1.RequestChannel) {}),
			ginkgo.Entry("one of the same type", func(s *corev1.Secret, _ *v1alpha1.RequestChannel) { s.Type = "servicebinding.io/sqs" }),
			ginkgo.Entry("another channel's", func(s *corev1.Secret, _ *v1alpha1.RequestChannel) {
				s.Type = "servicebinding.io/sqs"
				s.OwnerReferences = controlledBy("pricing", "5e0cb2f6-0000-0000-0000-000000000000")
			}),
			ginkgo.Entry("of another type, under the channel's control", func(s *corev1.Secret, c *v1alpha1.RequestChannel) {
				s.OwnerReferences = controlledBy(c.Name, c.UID)
			}),
		)
	}

	ginkgo.It("waits for what an earlier channel of its name left, as a restore from a backup does", func() {
		c := channelNamed("login", bindingTo("login-queue"))
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "login-queue", OwnerReferences: controlledBy("login", "5e0cb2f6-0000-0000-0000-000000000000")}, Type: "servicebinding.io/sqs"}
		w.apply(c, s)
		w.reconciled(c)
		gomega.Expect(c).To(beReconciling(v1alpha1.ReasonProgressing, "login-queue", "garbage collector"))
		w.remove(s) // By the garbage collector.
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(metav1.IsControlledBy(secret("login-queue"), c)).To(gomega.BeTrue())
	})

	for what, held := range map[string]struct {
		up     func()
		reason string
	}{
		"is withheld, since the queue is offered": {func() { w.tag(w.named("login"), map[string]string{v1alpha1.TagAdoptableBy: "c2/shop"}) }, v1alpha1.ReasonOffered},
		"is denied": {func() {
			w.sqs.SetFaults(sqstest.Plan{Rules: []sqstest.Rule{{Fault: sqstest.AccessDenied, Action: "TagQueue"}}})
		}, v1alpha1.ReasonAccessDenied},
	} {
		ginkgo.It("is written, moved and removed though an edit of the queue "+what, func() {
			c := channelNamed("login")
			w.apply(c)
			w.reconciled(c)
			held.up()
			w.pass(2 * time.Hour)
			queueHeld := gomega.And(beStalled(held.reason), haveCondition(v1alpha1.ConditionQueueReady, metav1.ConditionFalse, held.reason))
			change(w, c, func(c *v1alpha1.RequestChannel) {
				c.Spec.Tags, c.Spec.Binding = v1alpha1.Tags{"team": "x"}, &v1alpha1.Binding{SecretName: "first"}
			})
			w.reconciled(c)
			gomega.Expect(c).To(gomega.And(queueHeld, haveCondition(v1alpha1.ConditionBindingReady, metav1.ConditionTrue, v1alpha1.ReasonAvailable)))
			gomega.Expect(secret("first").Data).To(gomega.HaveKeyWithValue("uri", []byte(c.Status.QueueURL)))
			w.pass(10 * time.Minute)
			version := secret("first").ResourceVersion
			_, writes := w.costing(func() { w.reconciled(c) })
			gomega.Expect(writes).To(gomega.Equal([]string{"patch Secret"}), "it is looked at with the queue")
			gomega.Expect(secret("first").ResourceVersion).To(gomega.Equal(version))
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Binding.SecretName = "second" })
			w.reconciled(c)
			gomega.Expect(c).To(queueHeld)
			gomega.Expect(gone("first")).To(gomega.BeTrue())
			gomega.Expect(gone("second")).To(gomega.BeFalse())
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Binding = nil })
			w.reconciled(c)
			gomega.Expect(c).To(queueHeld)
			gomega.Expect(gone("second")).To(gomega.BeTrue())
			gomega.Expect(c.Status.Conditions).NotTo(gomega.ContainElement(gomega.HaveField("Type", v1alpha1.ConditionBindingReady)))
		})
	}

	ginkgo.It("is removed when the channel's queue is, whoever else holds the channel", func() {
		c := channelNamed("login", bindingTo("login-queue"))
		c.Finalizers = []string{"example.com/held"}
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(gone("login-queue")).To(gomega.BeFalse())
		w.pass(time.Hour)
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(c.Finalizers).To(gomega.ConsistOf("example.com/held"))
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		gomega.Expect(gone("login-queue")).To(gomega.BeTrue())
		gomega.Expect(c.Status.Binding).To(gomega.BeNil())
	})

	ginkgo.It("is left with a warning where the API server refuses to delete it, and holds nothing", func() {
		c := channelNamed("login", bindingTo("login-queue"))
		w.apply(c)
		w.reconciled(c)
		w.before = func(write string) error {
			if write == "delete Secret" {
				return apierrors.NewForbidden(corev1.Resource("secrets"), "login-queue", errors.New("a policy keeps Secrets"))
			}
			return nil
		}
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.sqs.Queues()).To(gomega.BeEmpty())
		gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.And(gomega.HavePrefix("Warning "+controller.EventSecretLeft), gomega.ContainSubstring("a policy keeps Secrets"))))
	})

	ginkgo.It("is removed although the process stopped between writing it and noting so", func() {
		c := channelNamed("login", bindingTo("login-queue"))
		w.apply(c)
		w.around = func(write string, do func() error) error {
			if write == "apply Secret" {
				w.before = func(string) error { return errStopped }
			}
			return do()
		}
		w.stopped(c)
		w.before, w.around = nil, nil
		w.restart()
		secret("login-queue")
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Binding = nil })
		w.reconciled(c)
		gomega.Expect(gone("login-queue")).To(gomega.BeTrue())
	})
})

func controlledBy(channel string, uid types.UID) []metav1.OwnerReference {
	yes := true
	return []metav1.OwnerReference{{APIVersion: v1alpha1.GroupVersion.String(), Kind: "RequestChannel", Name: channel, UID: uid, Controller: &yes}}
}
