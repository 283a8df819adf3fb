package operator_test

import (
	"context"
	"fmt"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/operator"
	"github.com/replyqueue/replyqueue/internal/webhook"
)

// The users of these tests, as the API server names them. The group masters is added where RBAC is not what is
// tested: it is exempt from the policy on heartbeats alone.
const (
	theOperator      = "system:serviceaccount:replyqueue-system:replyqueue-controller-manager"
	garbageCollector = "system:serviceaccount:kube-system:generic-garbage-collector"
	namespaces       = "system:serviceaccount:kube-system:namespace-controller"
	masters          = "system:masters"
)

var _ = Describe("The policy on heartbeats", Ordered, func() {
	var (
		own, other *corev1.Pod
		// bearer holds the token of the pod own.
		bearer client.Client
	)

	// Reads nothing first, as rpcclient does: pods may not read Leases.
	renew := func(ctx context.Context, c client.Client, name, patch string) (*coordinationv1.Lease, error) {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.HeartbeatNamespace, Name: name}}
		return lease, c.Patch(ctx, lease, client.RawPatch(types.MergePatchType, []byte(patch)))
	}
	heartbeat := func() string {
		return fmt.Sprintf(`{"spec":{"renewTime":%q,"holderIdentity":"it"}}`, metav1.NowMicro().UTC().Format(metav1.RFC3339Micro))
	}
	tokenClient := func(token string) client.Client {
		c, err := client.New(as(token), client.Options{Scheme: operator.Scheme()})
		Expect(err).NotTo(HaveOccurred())
		return c
	}

	BeforeAll(func(ctx SpecContext) {
		ns := namespace(ctx)
		for _, p := range []**corev1.Pod{&own, &other} {
			*p = plainPod(ns)
			Expect(admin.Create(ctx, *p)).To(Succeed())
			Expect(impersonate(theOperator).Create(ctx, &coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: v1alpha1.HeartbeatNamespace, Name: string((*p).UID),
					Labels:      map[string]string{v1alpha1.LabelPodUID: string((*p).UID)},
					Annotations: map[string]string{"replyqueue.dev/reply-queue-url": "https://queue"},
				},
			})).To(Succeed())
		}
		bearer = tokenClient(token(ctx, ns, "default", own))
	})

	It("lets a pod renew its own, and answers with the annotations", func(ctx SpecContext) {
		lease, err := renew(ctx, bearer, string(own.UID), heartbeat())
		Expect(err).NotTo(HaveOccurred())
		Expect(lease.Spec.RenewTime.Time).To(BeTemporally("~", time.Now(), time.Minute))
		Expect(lease.Annotations).To(HaveKeyWithValue("replyqueue.dev/reply-queue-url", "https://queue"))
	})

	It("refuses another pod's", func(ctx SpecContext) {
		_, err := renew(ctx, bearer, string(other.UID), heartbeat())
		Expect(err).To(beForbidden("only its own heartbeat", string(own.UID)))
	})

	It("refuses a token that belongs to no pod", func(ctx SpecContext) {
		_, err := renew(ctx, tokenClient(token(ctx, own.Namespace, "default", nil)), string(own.UID), heartbeat())
		Expect(err).To(beForbidden("belongs to no pod"))
	})

	DescribeTable("freezes the rest of the Lease", func(ctx SpecContext, patch, want string) {
		_, err := renew(ctx, bearer, string(own.UID), patch)
		Expect(err).To(beForbidden(want))
	},
		Entry("labels", `{"metadata":{"labels":{"a":"b"}}}`, "labels, annotations"),
		Entry("a label removed", `{"metadata":{"labels":{"replyqueue.dev/pod-uid":null}}}`, "labels, annotations"),
		Entry("annotations", `{"metadata":{"annotations":{"replyqueue.dev/reply-queue-url":"https://other"}}}`, "labels, annotations"),
		Entry("finalizers", `{"metadata":{"finalizers":["a.example/b"]}}`, "labels, annotations"),
		Entry("owners", `{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"p","uid":"u"}]}}`, "labels, annotations"),
		Entry("duration", `{"spec":{"leaseDurationSeconds":1}}`, "renewTime"),
		Entry("transitions", `{"spec":{"leaseTransitions":1}}`, "renewTime"),
		Entry("acquire time", `{"spec":{"acquireTime":"2026-01-02T03:04:05.000000Z"}}`, "renewTime"),
		Entry("an essay as holder", fmt.Sprintf(`{"spec":{"holderIdentity":"%0300d"}}`, 0), "253"),
	)

	It("gives pods nothing but the patch", func(ctx SpecContext) {
		key := client.ObjectKey{Namespace: v1alpha1.HeartbeatNamespace, Name: string(own.UID)}
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
		Expect(apierrors.IsForbidden(bearer.Get(ctx, key, &coordinationv1.Lease{}))).To(BeTrue(), "get")
		Expect(apierrors.IsForbidden(bearer.List(ctx, &coordinationv1.LeaseList{}, client.InNamespace(key.Namespace)))).To(BeTrue(), "list")
		Expect(apierrors.IsForbidden(bearer.Delete(ctx, lease))).To(BeTrue(), "delete")
		Expect(apierrors.IsForbidden(bearer.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: "mine"}}))).To(BeTrue(), "create")
		_, err := renew(ctx, bearer, "5e0cb2f6-0000-0000-0000-000000000000", heartbeat())
		Expect(apierrors.IsNotFound(err)).To(BeTrue(), "%v", err)
		elsewhere := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: own.Namespace, Name: key.Name}}
		Expect(apierrors.IsForbidden(bearer.Patch(ctx, elsewhere, client.RawPatch(types.MergePatchType, []byte(heartbeat()))))).To(BeTrue(), "another namespace")
	})

	It("lets the operator write annotations, and administrators repair", func(ctx SpecContext) {
		for _, c := range []client.Client{impersonate(theOperator), admin} {
			_, err := renew(ctx, c, string(other.UID), `{"metadata":{"annotations":{"replyqueue.dev/state":"closing"}}}`)
			Expect(err).NotTo(HaveOccurred())
		}
	})

	It("leaves other Leases of the cluster alone", func(ctx SpecContext) {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: own.Namespace, Name: "theirs"}}
		Expect(admin.Create(ctx, lease)).To(Succeed())
		lease.Labels = map[string]string{"a": "b"}
		Expect(impersonate("system:serviceaccount:kube-system:leader", masters).Update(ctx, lease)).To(Succeed())
	})
})

var _ = Describe("The policy on ReplyQueues", func() {
	record := func(ns string) *v1alpha1.ReplyQueue {
		return &v1alpha1.ReplyQueue{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, GenerateName: "rq-"},
			Spec: v1alpha1.ReplyQueueSpec{
				HostRef:                  v1alpha1.HostReference{Name: "web"},
				PodRef:                   v1alpha1.PodReference{Name: "p", UID: "u"},
				Identity:                 v1alpha1.IdentityPod,
				Heartbeat:                v1alpha1.HeartbeatLease,
				ProviderRef:              v1alpha1.ProviderReference{Name: v1alpha1.DefaultProviderName},
				HeartbeatIntervalSeconds: 60, IdleRetentionSeconds: 600, DrainSeconds: ptr.To[int32](30),
			},
		}
	}

	It("lets the operator write them", func(ctx SpecContext) {
		c, rq := impersonate(theOperator, masters), record(namespace(ctx))
		Expect(c.Create(ctx, rq)).To(Succeed())
		rq.Labels = map[string]string{"a": "b"}
		Expect(c.Update(ctx, rq)).To(Succeed())
		Expect(c.Status().Patch(ctx, rq, client.RawPatch(types.MergePatchType, []byte(`{"status":{"observedGeneration":1}}`)))).To(Succeed())
		Expect(c.Delete(ctx, rq)).To(Succeed())
	})

	It("refuses everybody else, administrators too, and says what to do", func(ctx SpecContext) {
		ns := namespace(ctx)
		Expect(admin.Create(ctx, record(ns))).To(beForbidden("written by the operator alone", "label a pod", "replyqueue.dev/reply-host"))
		rq := record(ns)
		Expect(impersonate(theOperator, masters).Create(ctx, rq)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(impersonate(theOperator, masters).Delete(ctx, rq)).To(Succeed()) })
		for _, patch := range []string{`{"metadata":{"labels":{"a":"b"}}}`, `{"metadata":{"annotations":{"a":"b"}}}`} {
			Expect(admin.Patch(ctx, rq.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)))).To(beForbidden("change the ReplyHost"), patch)
		}
		Expect(admin.Status().Patch(ctx, rq.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"status":{"observedGeneration":7}}`)))).To(beForbidden("change the ReplyHost"))
		Expect(admin.Delete(ctx, rq.DeepCopy())).To(beForbidden("delete its pod or its ReplyHost"))
		Expect(admin.DeleteAllOf(ctx, &v1alpha1.ReplyQueue{}, client.InNamespace(ns))).To(beForbidden("delete its pod or its ReplyHost"))
	})

	It("lets a cluster administrator give a queue up, and change nothing else with it", func(ctx SpecContext) {
		rq := record(namespace(ctx))
		rq.Finalizers, rq.Annotations = []string{v1alpha1.FinalizerReplyQueue}, map[string]string{"a": "b"}
		rq.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "u"}}
		Expect(impersonate(theOperator, masters).Create(ctx, rq)).To(Succeed())
		patchAs := func(c client.Client, text string) error {
			return c.Patch(ctx, rq.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(text)))
		}
		const giveUp = `{"metadata":{"annotations":{"replyqueue.dev/force-delete":"true"}}}`

		// RBAC lets this one do everything.
		powerful := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "powerful-"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "powerful"}},
		}
		Expect(admin.Create(ctx, powerful)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, powerful)).To(Succeed()) })
		Eventually(ctx, func() error { return patchAs(impersonate("powerful"), giveUp) }).
			Should(beForbidden("system:masters", "replyqueue.dev/force-delete=true", "left behind in SQS"))

		for _, text := range []string{
			`{"metadata":{"annotations":{"replyqueue.dev/force-delete":"true","c":"d"}}}`,
			`{"metadata":{"annotations":{"replyqueue.dev/force-delete":"true","a":"c"}}}`,
			`{"metadata":{"annotations":{"replyqueue.dev/force-delete":"true","a":null}}}`,
			`{"metadata":{"annotations":{"replyqueue.dev/force-delete":"true"},"labels":{"a":"b"}}}`,
			`{"metadata":{"annotations":{"replyqueue.dev/force-delete":"true"},"finalizers":null}}`,
			`{"metadata":{"annotations":{"replyqueue.dev/force-delete":"true"},"finalizers":["replyqueue.dev/reply-queue","orphan"]}}`,
			`{"metadata":{"annotations":{"replyqueue.dev/force-delete":"true"},"ownerReferences":null}}`,
		} {
			Expect(patchAs(admin, text)).To(beForbidden("and nothing else"), text)
		}
		// The kind refuses this one before any policy is asked.
		Expect(patchAs(admin, `{"metadata":{"annotations":{"replyqueue.dev/force-delete":"true"}},"spec":{"drainSeconds":0}}`)).
			To(MatchError(apierrors.IsInvalid, "IsInvalid"))
		Expect(admin.Status().Patch(ctx, rq.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"replyqueue.dev/force-delete":"true"}},"status":{"observedGeneration":7}}`)))).
			To(beForbidden("and nothing else"))
		Expect(patchAs(admin, giveUp)).To(Succeed())
		Expect(patchAs(admin, `{"metadata":{"annotations":{"replyqueue.dev/force-delete":null}}}`)).To(Succeed(), "thinking better of it")

		Expect(impersonate(namespaces, masters).Delete(ctx, rq.DeepCopy())).To(Succeed())
		Expect(patchAs(admin, `{"metadata":{"finalizers":null}}`)).To(beForbidden("change the ReplyHost"), "the finalizer stays the operator's")
		Expect(patchAs(admin, giveUp)).To(Succeed(), "while it is being deleted")
		Expect(patchAs(impersonate(theOperator, masters), `{"metadata":{"finalizers":null}}`)).To(SatisfyAny(Succeed(), MatchError(apierrors.IsNotFound, "the running operator was first")))
	})

	It("lets Kubernetes delete with a namespace or an owner, but not write", func(ctx SpecContext) {
		for _, user := range []string{garbageCollector, namespaces, "system:kube-controller-manager"} {
			rq := record(namespace(ctx))
			rq.Finalizers = []string{v1alpha1.FinalizerReplyQueue, metav1.FinalizerDeleteDependents}
			Expect(impersonate(theOperator, masters).Create(ctx, rq)).To(Succeed())
			c := impersonate(user, masters)
			patch := func(text string) error {
				return c.Patch(ctx, rq.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(text)))
			}
			Expect(patch(`{"metadata":{"annotations":{"a":"b"}}}`)).To(beForbidden("operator alone"))
			Expect(patch(`{"metadata":{"finalizers":["foregroundDeletion"]}}`)).To(beForbidden("operator alone"))
			Expect(patch(`{"metadata":{"finalizers":["replyqueue.dev/reply-queue"]}}`)).To(Succeed(), "the collector removes its own finalizer")
			Expect(c.Delete(ctx, rq.DeepCopy())).To(Succeed())
		}
	})
})

var _ = Describe("The policy on pods", func() {
	const injectedPod = `{"metadata":{"annotations":{%q:%q}}}`
	patchAs := func(ctx context.Context, c client.Client, pod *corev1.Pod, text string) error {
		return c.Patch(ctx, pod.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(text)))
	}
	// A pod that the webhook has seen, with the outputs that the operator has written.
	opted := func(ctx context.Context) *corev1.Pod {
		GinkgoHelper()
		pod := plainPod(namespace(ctx))
		pod.Labels = map[string]string{v1alpha1.LabelInject: v1alpha1.InjectTrue}
		pod.Annotations = map[string]string{v1alpha1.AnnotationServes: "login"}
		Expect(admin.Create(ctx, pod)).To(Succeed())
		Expect(patchAs(ctx, impersonate(theOperator, masters), pod, fmt.Sprintf(injectedPod, "url.replyqueue.dev/login", "https://queue"))).To(Succeed())
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
		return pod
	}

	It("refuses outputs from anybody but the operator, and says what to edit", func(ctx SpecContext) {
		pod := opted(ctx)
		for _, key := range append(webhook.Outputs(), "url.replyqueue.dev/login", "url.replyqueue.dev/other") {
			err := patchAs(ctx, admin, pod, fmt.Sprintf(injectedPod, key, "mine"))
			Expect(err).To(beForbidden(key+" is written by Replyqueue", "replyqueue.dev/calls", "pod template"))
			Expect(patchAs(ctx, impersonate(theOperator, masters), pod, fmt.Sprintf(injectedPod, key, "the operator's"))).To(Succeed())
			Expect(patchAs(ctx, admin, pod, fmt.Sprintf(`{"metadata":{"annotations":{%q:null}}}`, key))).To(beForbidden(key))
		}
		Expect(admin.Status().Patch(ctx, pod.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(fmt.Sprintf(injectedPod, v1alpha1.AnnotationReplyQueueURL, "by way of the status"))))).
			To(beForbidden(v1alpha1.AnnotationReplyQueueURL))
	})

	It("names them all, and leaves the user's own annotations to the user", func(ctx SpecContext) {
		pod := opted(ctx)
		Expect(patchAs(ctx, admin, pod, `{"metadata":{"annotations":{"replyqueue.dev/region":"x","replyqueue.dev/endpoint":"y"}}}`)).
			To(beForbidden("replyqueue.dev/region", "replyqueue.dev/endpoint", " are written"))
		Expect(patchAs(ctx, admin, pod, `{"metadata":{"annotations":{"example.com/a":"b"},"labels":{"c":"d"}}}`)).To(Succeed())
	})

	It("freezes what an injected pod asks for, for everybody", func(ctx SpecContext) {
		pod := opted(ctx)
		for _, c := range []client.Client{admin, impersonate(theOperator, masters)} {
			for _, key := range []string{v1alpha1.AnnotationCalls, v1alpha1.AnnotationReplyHost, v1alpha1.AnnotationHeartbeat, v1alpha1.AnnotationCallerContainer} {
				Expect(patchAs(ctx, c, pod, fmt.Sprintf(injectedPod, key, "other"))).
					To(beForbidden(key+" does not change", "fixed when it is created", "change the pod template"), "added")
			}
			const serves = v1alpha1.AnnotationServes
			Expect(patchAs(ctx, c, pod, fmt.Sprintf(injectedPod, serves, "logout"))).To(beForbidden(serves+" does not change"), "changed")
			Expect(patchAs(ctx, c, pod, fmt.Sprintf(`{"metadata":{"annotations":{%q:null}}}`, serves))).To(beForbidden(serves+" does not change"), "removed")
			Expect(patchAs(ctx, c, pod, fmt.Sprintf(injectedPod, serves, "login"))).To(Succeed(), "the same again")
		}
		Expect(admin.Status().Patch(ctx, pod.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(fmt.Sprintf(injectedPod, v1alpha1.AnnotationCalls, "other"))))).
			To(beForbidden(v1alpha1.AnnotationCalls), "by way of the status")
		Expect(patchAs(ctx, admin, pod, `{"metadata":{"labels":{"replyqueue.dev/inject":null},"annotations":{"replyqueue.dev/calls":"other","replyqueue.dev/serves":null}}}`)).
			To(beForbidden("replyqueue.dev/calls, replyqueue.dev/serves do not change"), "taking the label off in the same breath")
	})

	It("leaves alone what a pod asks for that was not injected", func(ctx SpecContext) {
		const edit = `{"metadata":{"annotations":{"replyqueue.dev/calls":"other","replyqueue.dev/serves":null,"replyqueue.dev/reply-host":"web"}}}`
		plain := plainPod(namespace(ctx))
		plain.Annotations = map[string]string{v1alpha1.AnnotationServes: "login", v1alpha1.AnnotationInjected: "pod"}
		Expect(admin.Create(ctx, plain)).To(Succeed())
		Expect(patchAs(ctx, admin, plain, edit)).To(Succeed(), "a pod that did not opt in")

		late := plainPod(plain.Namespace)
		late.Annotations = map[string]string{v1alpha1.AnnotationServes: "login"}
		Expect(admin.Create(ctx, late)).To(Succeed())
		Expect(patchAs(ctx, admin, late, `{"metadata":{"labels":{"replyqueue.dev/inject":"true"}}}`)).To(Succeed())
		Expect(patchAs(ctx, admin, late, edit)).To(Succeed(), "a pod that was labelled too late")
	})

	It("keeps the gate for the operator", func(ctx SpecContext) {
		pod := opted(ctx)
		Expect(pod.Spec.SchedulingGates).To(ConsistOf(corev1.PodSchedulingGate{Name: v1alpha1.SchedulingGate}))
		Expect(patchAs(ctx, admin, pod, `{"spec":{"schedulingGates":null}}`)).To(beForbidden("replyqueue.dev/waiting-for", "best-effort"))
		Expect(patchAs(ctx, impersonate(theOperator, masters), pod, `{"spec":{"schedulingGates":null}}`)).To(Succeed())
	})

	It("leaves the kubelet's work alone, also at the end", func(ctx SpecContext) {
		pod := opted(ctx)
		kubelet := impersonate("system:node:n", "system:nodes", masters)
		pod.Status.Phase = corev1.PodRunning
		Expect(kubelet.Status().Update(ctx, pod)).To(Succeed())
		Expect(admin.Delete(ctx, pod, client.GracePeriodSeconds(0))).To(Succeed())
	})

	It("refuses a label that would make preset outputs look like ours", func(ctx SpecContext) {
		pod := plainPod(namespace(ctx))
		pod.Annotations = map[string]string{v1alpha1.AnnotationInjected: "lease", v1alpha1.AnnotationReplyQueueURL: "https://theirs"}
		Expect(admin.Create(ctx, pod)).To(Succeed(), "a pod that did not opt in is none of our business")
		Expect(patchAs(ctx, admin, pod, `{"metadata":{"labels":{"replyqueue.dev/inject":"true"}}}`)).
			To(beForbidden("replyqueue.dev/injected", "Remove it before labelling", "only when a pod is created"))
		pod = opted(ctx)
		Expect(patchAs(ctx, admin, pod, `{"metadata":{"labels":{"replyqueue.dev/inject":null},"annotations":{"url.replyqueue.dev/login":"mine"}}}`)).
			To(beForbidden("url.replyqueue.dev/login"), "taking the label off in the same breath")
	})

	It("refuses a mark that the webhook did not make", func(ctx SpecContext) {
		// Mirror pods are left alone by the webhook, so this is what a pod looks like that got past it.
		pod := plainPod(namespace(ctx))
		pod.Labels = map[string]string{v1alpha1.LabelInject: v1alpha1.InjectTrue}
		pod.Spec.NodeName = "n"
		pod.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "hash", v1alpha1.AnnotationServes: "login", v1alpha1.AnnotationInjected: "pod"}
		pod.Spec.ServiceAccountName, pod.Spec.AutomountServiceAccountToken = "", ptr.To(false)
		Expect(admin.Create(ctx, pod)).To(beForbidden("replyqueue.dev/injected is written by Replyqueue", "Leave it out"))
	})
})

// plainPod is a pod that did not opt in, as small as the API server takes it.
func plainPod(ns string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, GenerateName: "p-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "i"}}},
	}
}

var _ = Describe("The policy on bindings", func() {
	const sqs = corev1.SecretType("servicebinding.io/sqs")
	controlled := func(kind, uid string) []metav1.OwnerReference {
		version := v1alpha1.GroupVersion.String()
		if kind == "ReplicaSet" {
			version = "apps/v1"
		}
		return []metav1.OwnerReference{{APIVersion: version, Kind: kind, Name: "login", UID: types.UID(uid), Controller: ptr.To(true)}}
	}
	secret := func(ns string, kind corev1.SecretType, owners []metav1.OwnerReference) *corev1.Secret {
		return &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, GenerateName: "s-", OwnerReferences: owners}, Type: kind, Data: map[string][]byte{"password": []byte("x")},
		}
	}
	patch := func(ctx context.Context, s *corev1.Secret, patch string) (*corev1.Secret, error) {
		answer := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name}}
		return answer, impersonate(theOperator).Patch(ctx, answer, client.RawPatch(types.MergePatchType, []byte(patch)))
	}

	It("lets the operator make, look at, change and remove a channel's", func(ctx SpecContext) {
		s := secret(namespace(ctx), sqs, controlled("RequestChannel", "u-1"))
		Expect(impersonate(theOperator).Create(ctx, s)).To(Succeed())
		answer, err := patch(ctx, s, `{}`)
		Expect(err).NotTo(HaveOccurred())
		Expect(answer.ResourceVersion).To(Equal(s.ResourceVersion), "a look stores nothing")
		Expect(answer.Data).To(HaveKey("password"))
		_, err = patch(ctx, s, `{"data":{"uri":"eA=="}}`)
		Expect(err).NotTo(HaveOccurred())
		_, err = patch(ctx, s, `{"metadata":{"ownerReferences":[{"apiVersion":"replyqueue.dev/v1alpha1","kind":"RequestChannel","name":"b","uid":"u-2","controller":true}]}}`)
		Expect(err).To(beForbidden("does not become another's"))
		Expect(impersonate(theOperator).Delete(ctx, s)).To(Succeed())
	})

	DescribeTable("keeps the operator from every other", func(ctx SpecContext, kind corev1.SecretType, owners []metav1.OwnerReference) {
		s := secret(namespace(ctx), kind, owners)
		Expect(impersonate(theOperator).Create(ctx, s.DeepCopy())).To(beForbidden("writes no Secrets but those"))
		Expect(admin.Create(ctx, s)).To(Succeed())
		answer, err := patch(ctx, s, `{}`)
		Expect(err).To(beForbidden("leaves it alone"))
		Expect(answer.Data).To(BeEmpty(), "and is not shown it")
		_, err = patch(ctx, s, `{"metadata":{"ownerReferences":[{"apiVersion":"replyqueue.dev/v1alpha1","kind":"RequestChannel","name":"b","uid":"u-2","controller":true}]}}`)
		Expect(err).To(beForbidden("leaves it alone"))
		Expect(impersonate(theOperator).Delete(ctx, s)).To(beForbidden("leaves it alone"))
		Expect(apierrors.IsForbidden(impersonate(theOperator).Get(ctx, client.ObjectKeyFromObject(s), &corev1.Secret{}))).To(BeTrue())
	},
		Entry("plain", corev1.SecretTypeOpaque, nil),
		Entry("of the type, nobody's", sqs, nil),
		Entry("of the type, another kind's", sqs, controlled("ReplicaSet", "u-1")),
		Entry("of a channel, another type", corev1.SecretTypeOpaque, controlled("RequestChannel", "u-1")),
	)

	It("is no concern of anybody else's", func(ctx SpecContext) {
		s := secret(namespace(ctx), corev1.SecretTypeOpaque, nil)
		Expect(admin.Create(ctx, s)).To(Succeed())
		Expect(admin.Delete(ctx, s)).To(Succeed())
	})
})
