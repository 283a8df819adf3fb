package controller_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// The attacker of these specs may do in one namespace what config/rbac lets its editors do, and nothing else. The victim
// is a queue of the same AWS account that is not that namespace's. The operator could do everything to it.
var _ = ginkgo.Describe("A user of one namespace", func() {
	const victim = "vault"
	var (
		w        *world
		attacker client.Client
		bank     string
		before   sqstest.QueueInfo
	)
	ginkgo.BeforeEach(func(ctx context.Context) {
		w = newWorld(context.WithoutCancel(ctx))
		attacker = w.editor()
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "bank-"}}
		gomega.Expect(direct.Create(w.ctx, ns)).To(gomega.Succeed())
		bank = ns.Name
		w.queueTagged(victim, map[string]string{
			v1alpha1.TagCluster: clusterUID, v1alpha1.TagKind: v1alpha1.TagKindRequest, v1alpha1.TagNamespace: bank, v1alpha1.TagName: victim,
			v1alpha1.TagAdoptableBy: clusterName + "/" + bank,
		})
		w.sendTo(victim)
		before, _ = w.sqs.Queue(victim)
	})
	// unharmed: nobody wrote to the victim, and it is what it was.
	unharmed := func() {
		ginkgo.GinkgoHelper()
		for _, r := range w.sqs.RequestLog(sqstest.OnQueue(victim)) {
			gomega.Expect(r.Action).NotTo(gomega.BeElementOf("DeleteQueue", "SetQueueAttributes", "TagQueue", "UntagQueue", "SendMessage", "ReceiveMessage"))
		}
		after, there := w.sqs.Queue(victim)
		gomega.Expect(there).To(gomega.BeTrue())
		after.OldestAge = before.OldestAge // Time goes by.
		gomega.Expect(after).To(gomega.Equal(before))
	}
	// tries has the attacker apply a channel, and the operator work on it until it is deleted again.
	tries := func(spec string) *v1alpha1.RequestChannel {
		ginkgo.GinkgoHelper()
		c := channelNamed("try")
		gomega.Expect(yaml.UnmarshalStrict([]byte(spec), &c.Spec)).To(gomega.Succeed())
		c.Namespace = w.namespace
		gomega.Expect(attacker.Create(w.ctx, c)).To(gomega.Succeed())
		w.sqs.ResetRequests()
		w.reconciled(c)
		unharmed()
		return c
	}
	// and deletes it, however it ended.
	gone := func(c *v1alpha1.RequestChannel) {
		ginkgo.GinkgoHelper()
		gomega.Expect(attacker.Delete(w.ctx, c)).To(gomega.Succeed())
		w.reconciled(c)
		if w.exists(c) {
			// A process that has seen the channel but lately waits for queues that another may just have made.
			w.pass(time.Minute)
			w.reconciled(c)
		}
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		unharmed()
	}

	ginkgo.DescribeTable("gets nothing out of", func(spec, reason, words string, reads bool, provider ...func(*v1alpha1.QueueProviderSpec)) {
		if len(provider) > 0 {
			spec = strings.Replace(spec, "{", "{providerRef: {name: "+w.providerFor(provider...).Name+"}, ", 1)
		}
		c := tries(strings.ReplaceAll(spec, "ARN", before.ARN))
		gomega.Expect(c).To(gomega.Or(beStalled(reason, words), beReconciling(reason, words)))
		gomega.Expect(c.Status.QueueURL).To(gomega.BeEmpty(), "the address is a secret too")
		if !reads {
			gomega.Expect(w.sqs.Requests()).To(gomega.BeZero(), "it is not even looked at")
		}
		gone(c)
	},
		ginkgo.Entry("its name, without a provider", `{queueName: vault}`, v1alpha1.ReasonQueueNameNotAllowed, "spec.queueName", false),
		ginkgo.Entry("its name, to observe it", `{queueName: vault, managementPolicy: Observe}`, v1alpha1.ReasonQueueNameNotAllowed, "spec.queueName", false),
		ginkgo.Entry("its name, outside the patterns", `{queueName: vault}`, v1alpha1.ReasonQueueNameNotAllowed, "spec.allowedQueueNames", false, allowing("${namespace}_*", "vaults-*")),
		ginkgo.Entry("its name, within the patterns", `{queueName: vault}`, v1alpha1.ReasonNotOwned, "vault", true, allowing("*")),
		ginkgo.Entry("another's consent", `{queueName: vault, adoptionPolicy: IfConsented}`, v1alpha1.ReasonNotOwned, "vault", true, allowing("*")),
		ginkgo.Entry("another's consent, to observe it", `{queueName: vault, managementPolicy: Observe}`, v1alpha1.ReasonNotOwned, "vault", true, allowing("*")),
		ginkgo.Entry("its ARN for dead letters", `{deadLetter: {maxReceiveCount: 1, arn: "ARN"}}`, v1alpha1.ReasonDeadLetterNotAllowed, "spec.deadLetter.arn", true),
		ginkgo.Entry("the ARN of another account", `{deadLetter: {maxReceiveCount: 1, arn: "arn:aws:sqs:us-east-1:999999999999:vault"}}`, v1alpha1.ReasonDeadLetterNotAllowed, "spec.deadLetter.arn", true),
		ginkgo.Entry("the ARN of another region", `{deadLetter: {maxReceiveCount: 1, arn: "arn:aws:sqs:eu-west-1:000000000000:vault"}}`, v1alpha1.ReasonDeadLetterNotAllowed, "one account and region", false),
		ginkgo.Entry("another namespace's channel for dead letters", `{deadLetter: {maxReceiveCount: 1, channelRef: {name: vault}}}`, v1alpha1.ReasonWaitingForDeadLetter, "in this namespace", false),
		ginkgo.Entry("a policy", `{policy: '{"Statement":[{"Effect":"Allow","Principal":"*","Action":"sqs:*","Resource":"*"}]}'}`, v1alpha1.ReasonPolicyNotAllowed, "spec.policy", false),
		ginkgo.Entry("a policy, with a provider for names", `{policy: '{"Statement":[]}'}`, v1alpha1.ReasonPolicyNotAllowed, "spec.allowPolicies", false, allowing("*")),
		ginkgo.Entry("a provider given to others", `{}`, v1alpha1.ReasonProviderNotAllowed, "spec.namespaces", false, func(spec *v1alpha1.QueueProviderSpec) {
			spec.Namespaces.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "bank"}}
		}),
		ginkgo.Entry("a provider that is not there", `{providerRef: {name: nobodys}}`, v1alpha1.ReasonWaitingForProvider, "nobodys", false),
	)

	ginkgo.DescribeTable("is refused at once", func(spec, words string) {
		c := channelNamed("try")
		gomega.Expect(yaml.UnmarshalStrict([]byte(spec), &c.Spec)).To(gomega.Succeed())
		c.Namespace = w.namespace
		gomega.Expect(attacker.Create(w.ctx, c)).To(gomega.And(gomega.Satisfy(apierrors.IsInvalid), gomega.MatchError(gomega.ContainSubstring(words))))
	},
		ginkgo.Entry("an ownership tag", `{tags: {replyqueue.dev/namespace: bank}}`, "carry ownership"),
		ginkgo.Entry("a consent of one's own making", `{tags: {replyqueue.dev/adoptable-by: c1/bank}}`, "carry ownership"),
		ginkgo.Entry("a tag that opens a pod's queue to another pod, in another case", `{tags: {Kubernetes-Pod-UID: "1"}}`, "carry ownership"),
		ginkgo.Entry("a tag of AWS's", `{tags: {"aws:cloudformation:stack-name": x}}`, "carry ownership"),
		ginkgo.Entry("a tag by which others delete queues", `{tags: {__AmazonSQSVirtualQueuesClient.x: "1"}}`, "carry ownership"),
		ginkgo.Entry("a policy by the back door", `{extraAttributes: {Policy: "{}"}}`, "field of its own"),
		ginkgo.Entry("a redrive policy by the back door", `{extraAttributes: {RedrivePolicy: "{}"}}`, "field of its own"),
		ginkgo.Entry("a redrive-allow policy by the back door", `{extraAttributes: {RedriveAllowPolicy: '{"redrivePermission":"allowAll"}'}}`, "field of its own"),
		ginkgo.Entry("something that is no ARN of a queue", `{deadLetter: {maxReceiveCount: 1, arn: "arn:aws:s3:::vault"}}`, "spec.deadLetter.arn"),
		ginkgo.Entry("another namespace's channel, by a path", `{deadLetter: {maxReceiveCount: 1, channelRef: {name: ../bank/vault}}}`, "spec.deadLetter.channelRef.name"),
		ginkgo.Entry("another namespace's channel to take dead letters from", `{deadLettersFrom: {permission: Channels, channels: [{name: bank/vault}]}}`, "spec.deadLettersFrom.channels[0].name"),
		ginkgo.Entry("an ARN to take dead letters from", `{deadLettersFrom: {permission: Channels, channels: [{name: "arn:aws:sqs:us-east-1:000000000000:vault"}]}}`, "spec.deadLettersFrom.channels[0].name"),
		ginkgo.Entry("a name that leaves SQS's alphabet", `{queueName: "../vault"}`, "spec.queueName"),
	)

	ginkgo.It("is forbidden whatever would make the operator believe otherwise", func() {
		forbidden := func(err error, what string) {
			ginkgo.GinkgoHelper()
			gomega.Expect(apierrors.IsForbidden(err)).To(gomega.BeTrue(), "%s: %v", what, err)
		}
		c := channelNamed("try")
		c.Namespace = w.namespace
		gomega.Expect(attacker.Create(w.ctx, c)).To(gomega.Succeed())
		stolen := c.DeepCopy()
		stolen.Status.QueueURL, stolen.Status.Adopted, stolen.Status.AppliedTags = before.URL, ptr.To(true), []string{v1alpha1.TagCluster}
		forbidden(attacker.Status().Patch(w.ctx, stolen, mergeFrom(c)), "a status")

		provider := &v1alpha1.QueueProvider{ObjectMeta: metav1.ObjectMeta{Name: "mine-" + w.namespace}}
		provider.Spec.Namespaces.From, provider.Spec.AllowedQueueNames = v1alpha1.NamespacesFromAll, []string{"*"}
		forbidden(attacker.Create(w.ctx, provider), "a provider of one's own")
		theirs := w.providerFor()
		widened := theirs.DeepCopy()
		widened.Spec.AllowPolicies = ptr.To(true)
		forbidden(attacker.Patch(w.ctx, widened, mergeFrom(theirs)), "better terms")

		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}
		labelled := ns.DeepCopy()
		labelled.Labels = map[string]string{"team": "bank"}
		forbidden(attacker.Patch(w.ctx, labelled, mergeFrom(ns)), "a label that a provider selects")

		other := channelNamed("vault")
		other.Namespace = bank
		gomega.Expect(direct.Create(w.ctx, other)).To(gomega.Succeed())
		for _, key := range []string{v1alpha1.AnnotationForceDelete, v1alpha1.AnnotationReconcileAt} {
			annotated := other.DeepCopy()
			annotated.Annotations = map[string]string{key: "true"}
			forbidden(attacker.Patch(w.ctx, annotated, mergeFrom(other)), key+" on another's channel")
		}
		forbidden(attacker.Delete(w.ctx, other), "another's channel")
		elsewhere := channelNamed("try")
		elsewhere.Namespace = bank
		forbidden(attacker.Create(w.ctx, elsewhere), "a channel in another namespace")
		record := &v1alpha1.ReplyQueue{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "r"}}
		record.Spec = v1alpha1.ReplyQueueSpec{
			HostRef: v1alpha1.HostReference{Name: "h"}, PodRef: v1alpha1.PodReference{Name: "p", UID: "u"}, Identity: v1alpha1.IdentityPod, Heartbeat: v1alpha1.HeartbeatPod,
			ProviderRef: v1alpha1.ProviderReference{Name: "default"}, HeartbeatIntervalSeconds: 1, IdleRetentionSeconds: 5, DrainSeconds: ptr.To[int32](0),
		}
		forbidden(attacker.Create(w.ctx, record), "a record of a reply queue")
	})

	ginkgo.It("deletes by force and by policy what is the channel's own, and nothing else", func() {
		p := w.providerFor(allowing("*"))
		c := tries(fmt.Sprintf(`{providerRef: {name: %s}, queueName: vault, deletionPolicy: Delete, adoptionPolicy: IfConsented}`, p.Name))
		annotated := c.DeepCopy()
		annotated.Annotations = map[string]string{v1alpha1.AnnotationForceDelete: "true", v1alpha1.AnnotationReconcileAt: "now"}
		gomega.Expect(attacker.Patch(w.ctx, annotated, mergeFrom(c))).To(gomega.Succeed())
		w.reconciled(c)
		unharmed()
		gone(c)

		// A status that lies, as one that somebody with more rights was talked into writing, changes nothing either.
		c = tries(`{}`)
		gomega.Expect(c).To(beReady())
		lying := c.DeepCopy()
		lying.Status.QueueURL, lying.Status.QueueARN, lying.Status.DeadLetterQueueURL = before.URL, before.ARN, before.URL
		gomega.Expect(direct.Status().Patch(w.ctx, lying, mergeFrom(c))).To(gomega.Succeed())
		w.restart()
		w.pass(2 * time.Hour)
		w.reconciled(c)
		unharmed()
		gone(c)
		gomega.Expect(w.sqs.Queues()).To(gomega.HaveLen(1))
	})

	ginkgo.It("cannot name a queue of its own like one of another namespace, whatever the provider adds", func() {
		p := w.providerFor(func(spec *v1alpha1.QueueProviderSpec) { spec.DefaultTags = v1alpha1.Tags{"team": "platform"} })
		c := tries(fmt.Sprintf(`{providerRef: {name: %s}, tags: {team: mine}}`, p.Name))
		gomega.Expect(c).To(beReady())
		names := []string{}
		for _, q := range w.sqs.Queues() {
			names = append(names, q.Name)
		}
		mine := slices.DeleteFunc(names, func(name string) bool { return name == victim })
		gomega.Expect(mine).To(gomega.HaveExactElements(gomega.HavePrefix("rq_"+clusterName+"_"+w.namespace+"_")), "names say whose they are")
		gone(c)
	})
})

// editor is a user who may do in the world's namespace what config/rbac lets its editors do.
func (w *world) editor() client.Client {
	ginkgo.GinkgoHelper()
	role := &rbacv1.ClusterRole{}
	text, err := os.ReadFile("../../config/rbac/aggregate_edit_role.yaml")
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	gomega.Expect(yaml.UnmarshalStrict(text, role)).To(gomega.Succeed())
	role.Name = "edit-" + w.namespace
	user := "editor-of-" + w.namespace
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "edit"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}
	gomega.Expect(direct.Create(w.ctx, role)).To(gomega.Succeed())
	gomega.Expect(direct.Create(w.ctx, binding)).To(gomega.Succeed())
	ginkgo.DeferCleanup(func() { gomega.Expect(direct.Delete(w.ctx, role)).To(gomega.Succeed()) })
	config := rest.CopyConfig(environment.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:authenticated"}}
	c, err := client.New(config, client.Options{Scheme: direct.Scheme()})
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	// RBAC's own caches follow at their own pace.
	gomega.Eventually(func() error {
		return c.Create(w.ctx, &v1alpha1.RequestChannel{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "x"}}, client.DryRunAll)
	}).WithTimeout(10 * time.Second).Should(gomega.Succeed())
	return c
}
