package controller_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/yaml"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/controller"
)

// underPolicy makes the API server's policy on bindings, as it is shipped, and returns a client that is the operator to it, and may do anything
// else. It returns when the policy is enforced.
var underPolicy = sync.OnceValues(func() (client.WithWatch, error) {
	shipped, err := os.ReadFile("../../config/policy/bindings.yaml")
	if err != nil {
		return nil, err
	}
	for _, text := range bytes.Split(shipped, []byte("\n---\n")) {
		o := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict(text, &o.Object); err != nil {
			return nil, err
		}
		if err := direct.Create(context.Background(), o); err != nil {
			return nil, err
		}
	}
	config := rest.CopyConfig(environment.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:replyqueue-system:replyqueue-controller-manager", Groups: []string{"system:masters"}}
	c, err := client.NewWithWatch(config, client.Options{Scheme: direct.Scheme()})
	if err != nil {
		return nil, err
	}
	gomega.Eventually(func() error {
		return c.Create(context.Background(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "plain"}}, client.DryRunAll)
	}).WithTimeout(30 * time.Second).Should(gomega.MatchError(gomega.ContainSubstring("replyqueue-bindings")))
	return c, nil
})

// guarded puts the operator under the policy on bindings, as it is in a cluster.
func (w *world) guarded() {
	ginkgo.GinkgoHelper()
	c, err := underPolicy()
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	w.client = interceptor.NewClient(c, w.interceptors())
	w.restart()
}

// denied has the API server ask a webhook that denies those operations on the Secrets of the world's namespace with that code; 0: it gives none,
// as Kyverno does. It returns when that is so. The returned function takes the webhook's server away, not its registration.
func (w *world) denied(operation admissionregistrationv1.OperationType, code int32) (down func()) {
	ginkgo.GinkgoHelper()
	probe := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "probe"}, Data: map[string][]byte{"a": nil}}
	w.apply(probe)
	server := httptest.NewTLSServer(http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(request.Body).Decode(&review); err != nil {
			http.Error(answer, err.Error(), http.StatusBadRequest)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Result: &metav1.Status{Code: code, Message: "blocked due to the policy keep-secrets"}}
		answer.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(answer).Encode(review)
	}))
	ginkgo.DeferCleanup(server.Close)
	hook := &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "denies-" + w.namespace},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "validate.example.com", AdmissionReviewVersions: []string{"v1"}, SideEffects: ptr.To(admissionregistrationv1.SideEffectClassNone),
			ClientConfig: admissionregistrationv1.WebhookClientConfig{
				URL: &server.URL, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
			},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: w.namespace}},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{operation},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
			}},
		}},
	}
	gomega.Expect(direct.Create(w.ctx, hook)).To(gomega.Succeed())
	ginkgo.DeferCleanup(func(ctx context.Context) { gomega.Expect(direct.Delete(ctx, hook)).To(gomega.Succeed()) })
	gomega.Eventually(func() error {
		switch operation {
		case admissionregistrationv1.Create:
			another := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "another"}}
			return direct.Create(w.ctx, another, client.DryRunAll)
		case admissionregistrationv1.Update:
			changed := probe.DeepCopy()
			changed.Data["b"] = nil
			return direct.Update(w.ctx, changed, client.DryRunAll)
		default:
			return direct.Delete(w.ctx, probe.DeepCopy(), client.DryRunAll)
		}
	}).WithTimeout(30 * time.Second).Should(gomega.MatchError(gomega.ContainSubstring("keep-secrets")))
	return server.Close
}

var _ = ginkgo.Describe("A binding's Secret that the cluster refuses", func() {
	var w *world
	ginkgo.BeforeEach(func(ctx context.Context) { w = newWorld(context.WithoutCancel(ctx)) })
	bound := func(to string) *v1alpha1.RequestChannel {
		ginkgo.GinkgoHelper()
		c := channelNamed("login", bindingTo(to))
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		w.pass(2 * time.Hour)
		w.heard()
		return c
	}
	secret := func(name string) *corev1.Secret {
		ginkgo.GinkgoHelper()
		s := &corev1.Secret{}
		gomega.Expect(direct.Get(w.ctx, client.ObjectKey{Namespace: w.namespace, Name: name}, s)).To(gomega.Succeed())
		return s
	}
	there := func(name string) bool {
		return w.exists(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}})
	}
	rename := func(c *v1alpha1.RequestChannel, to string) {
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Binding.SecretName = to })
	}
	force := func(c *v1alpha1.RequestChannel) {
		change(w, c, func(c *v1alpha1.RequestChannel) {
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, v1alpha1.AnnotationForceDelete, "true")
		})
	}
	// fails has these writes end so.
	fails := func(how error, writes ...string) {
		w.before = func(write string) error {
			for _, one := range writes {
				if write == one {
					return how
				}
			}
			return nil
		}
	}
	left := gomega.ContainElement(gomega.HavePrefix("Warning " + controller.EventSecretLeft))
	told := func(words ...string) gomega.OmegaMatcher {
		return gomega.And(beStalled(v1alpha1.ReasonSecretRefused, words...), haveCondition(v1alpha1.ConditionBindingReady, metav1.ConditionFalse, v1alpha1.ReasonSecretRefused),
			haveCondition(v1alpha1.ConditionQueueReady, metav1.ConditionTrue, v1alpha1.ReasonAvailable))
	}
	refusals := map[string]error{
		"a quota":                      apierrors.NewForbidden(corev1.Resource("secrets"), "a", errors.New("keep-secrets")),
		"a policy":                     apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Secret").GroupKind(), "keep-secrets", nil),
		"a webhook that gives no code": &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusBadRequest, Message: "keep-secrets"}},
	}

	ginkgo.It("when it is new is told in the words of a webhook, and costs no more writes than it is tried", func() {
		w.denied(admissionregistrationv1.Create, 0)
		c := channelNamed("login", bindingTo("login-queue"))
		w.apply(c)
		w.reconciled(c)
		gomega.Expect(c).To(told("login-queue", "keep-secrets"))
		w.pass(10 * time.Minute)
		_, writes := w.costing(func() { w.reconciled(c) })
		gomega.Expect(writes).To(gomega.Equal([]string{"patch Secret", "apply Secret"}), "it is tried again, and nothing else is written")
	})

	for how, code := range map[string]int32{"no code": 0, "403": http.StatusForbidden} {
		ginkgo.It("to change even by a look is told, and goes when it should all the same, where it is as it was: "+how, func() {
			w.guarded()
			c := bound("a")
			w.denied(admissionregistrationv1.Update, code)
			w.reconciled(c)
			gomega.Expect(c).To(told("Secret a cannot be looked at", "keep-secrets"))
			gomega.Expect(c.Status.Binding).To(gomega.HaveValue(gomega.HaveField("Name", "a")), "it is there, and right")
			w.pass(10 * time.Minute)
			_, writes := w.costing(func() { w.reconciled(c) })
			gomega.Expect(writes).To(gomega.Equal([]string{"patch Secret"}))

			rename(c, "b")
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			gomega.Expect(there("a")).To(gomega.BeFalse())
			gomega.Expect(secret("b").Data).To(gomega.HaveKeyWithValue("uri", []byte(c.Status.QueueURL)))

			w.untag(w.named("login"), v1alpha1.TagCluster)
			w.pass(2 * time.Hour)
			w.reconciled(c)
			gomega.Expect(c).To(gomega.And(beStalled(v1alpha1.ReasonNotOwned), haveCondition(v1alpha1.ConditionBindingReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing, "was removed")))
			gomega.Expect(there("b")).To(gomega.BeFalse())

			w.tag(w.named("login"), map[string]string{v1alpha1.TagCluster: clusterUID})
			w.pass(2 * time.Hour)
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			w.remove(c)
			w.pass(2 * time.Hour)
			w.heard()
			w.reconciled(c)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(there("b")).To(gomega.BeFalse())
			gomega.Expect(w.heard()).NotTo(left)
		})
	}

	for what, since := range map[string]func(){
		"the operator started anew": func() { w.restart() },
		"somebody else wrote to it": func() { change(w, secret("a"), func(s *corev1.Secret) { s.Data["theirs"] = []byte("x") }) },
	} {
		ginkgo.It("to change even by a look is left, and told, until it may be looked at, where since the last look "+what, func() {
			c := bound("a")
			since()
			fails(refusals["a quota"], "patch Secret")
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Binding = nil })
			for range 2 {
				w.reconciled(c)
				gomega.Expect(c).To(told("Secret a cannot be looked at", "keep-secrets"))
				gomega.Expect(c.Status.Binding).To(gomega.HaveValue(gomega.HaveField("Name", "a")))
				gomega.Expect(there("a")).To(gomega.BeTrue())
				w.pass(10 * time.Minute)
			}
			fails(nil)
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			gomega.Expect(c.Status.Binding).To(gomega.BeNil())
			gomega.Expect(there("a")).To(gomega.BeFalse())
		})
	}

	ginkgo.It("to delete by a webhook holds no deletion, and hands out nothing", func() {
		c := bound("login-queue")
		w.denied(admissionregistrationv1.Delete, 0)
		w.remove(c)
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.heard()).To(left)
		gomega.Expect(secret("login-queue").Data).To(gomega.BeEmpty())
	})

	for how, refusal := range refusals {
		ginkgo.It("to delete gives way to the one that the spec names now, and hands out nothing: "+how, func() {
			c := bound("a")
			fails(refusal, "delete Secret")
			change(w, secret("a"), func(s *corev1.Secret) { s.Data["theirs"] = []byte("x") })
			rename(c, "b")
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			gomega.Expect(w.heard()).To(gomega.ContainElement(gomega.And(gomega.HavePrefix("Warning "+controller.EventSecretLeft), gomega.ContainSubstring("keep-secrets"))))
			gomega.Expect(secret("a").Data).To(gomega.Equal(map[string][]byte{"theirs": []byte("x")}))
			gomega.Expect(secret("b").Data).To(gomega.HaveKeyWithValue("uri", []byte(c.Status.QueueURL)))
			_, writes := w.costing(func() { w.reconciled(c) })
			gomega.Expect(writes).To(gomega.BeEmpty())
			rename(c, "a")
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			gomega.Expect(secret("a").Data).To(gomega.HaveKeyWithValue("uri", []byte(c.Status.QueueURL)))
		})

		ginkgo.It("both to delete and to empty is told, whatever asks for it: "+how, func() {
			c := bound("a")
			fails(refusal, "delete Secret", "apply Secret")
			rename(c, "b")
			w.reconciled(c)
			gomega.Expect(c).To(told("Secret a", "keep-secrets", "nor can it be emptied"))
			gomega.Expect(w.result.RequeueAfter).To(gomega.BeNumerically(">", 0))
			rename(c, "a")
			w.reconciled(c)
			gomega.Expect(c).To(beReady())
			w.untag(w.named("login"), v1alpha1.TagCluster)
			w.pass(2 * time.Hour)
			w.reconciled(c)
			gomega.Expect(c).To(gomega.And(beStalled(v1alpha1.ReasonNotOwned), haveCondition(v1alpha1.ConditionBindingReady, metav1.ConditionFalse, v1alpha1.ReasonSecretRefused)))
			change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = ptr.To(true) })
			w.reconciled(c)
			gomega.Expect(c).To(haveCondition(v1alpha1.ConditionBindingReady, metav1.ConditionFalse, v1alpha1.ReasonSecretRefused))
			w.remove(c)
			w.pass(2 * time.Minute)
			w.reconciled(c)
			gomega.Expect(w.exists(c)).To(gomega.BeFalse())
			gomega.Expect(w.heard()).To(left)
		})
	}

	ginkgo.It("to delete since a webhook cannot be asked holds a deletion, and says so, until that is forced", func() {
		c := bound("login-queue")
		w.denied(admissionregistrationv1.Delete, 0)()
		w.remove(c)
		w.failed(c)
		gomega.Expect(c).To(beReconciling(v1alpha1.ReasonDeleting, "done with the queues", "login-queue", "validate.example.com", v1alpha1.AnnotationForceDelete))
		gomega.Expect(c.Status.QueueURL).To(gomega.BeEmpty())
		w.pass(10 * time.Minute)
		_, writes := w.costing(func() { w.failed(c) })
		gomega.Expect(writes).To(gomega.Equal([]string{"patch Secret", "delete Secret"}))
		w.restart()
		force(c)
		w.failed(c)
		gomega.Expect(c).To(beReconciling(v1alpha1.ReasonDeleting, "login-queue", "is set, and what may pass is waited for"))
		w.pass(2 * time.Minute)
		w.heard()
		w.reconciled(c)
		gomega.Expect(w.exists(c)).To(gomega.BeFalse())
		gomega.Expect(w.heard()).To(left)
	})

	ginkgo.It("by trouble that passes is told where it is new, once, and not where it was only looked at", func() {
		port := 40000
		trouble := func(writes ...string) {
			w.before = func(write string) error {
				if port++; slices.Contains(writes, write) {
					return apierrors.NewInternalError(fmt.Errorf("failed calling webhook: read tcp 10.0.0.1:%d: connection reset by peer", port))
				}
				return nil
			}
		}
		met := func(c *v1alpha1.RequestChannel, tried ...string) {
			ginkgo.GinkgoHelper()
			w.failed(c)
			gomega.Expect(c).To(gomega.And(beReconciling(v1alpha1.ReasonProgressing, "failed calling webhook"),
				haveCondition(v1alpha1.ConditionBindingReady, metav1.ConditionFalse, v1alpha1.ReasonProgressing, "failed calling webhook")))
			w.pass(10 * time.Minute)
			_, writes := w.costing(func() { w.failed(c) })
			gomega.Expect(writes).To(gomega.Equal(tried), "the same in other words is not told again")
		}
		trouble("apply Secret")
		c := channelNamed("login", bindingTo("a"))
		w.apply(c)
		met(c, "patch Secret")
		w.before = nil
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		w.pass(2 * time.Hour)
		trouble("patch Secret")
		w.failed(c)
		gomega.Expect(c).To(gomega.And(beReady(), haveCondition(v1alpha1.ConditionBindingReady, metav1.ConditionTrue, v1alpha1.ReasonAvailable)))
		rename(c, "b")
		trouble("patch Secret", "delete Secret")
		met(c)
		trouble("apply Secret")
		met(c, "patch Secret")
		change(w, c, func(c *v1alpha1.RequestChannel) { c.Spec.Suspend = ptr.To(true) })
		met(c, "patch Secret")
	})
})
