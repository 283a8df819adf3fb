package operator_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"go.uber.org/goleak"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/operator"
)

// Serial, since operators come and go while other specs want one that answers.
var _ = Describe("Run", Serial, func() {
	It("pins the identity of the cluster", func(ctx SpecContext) {
		var system corev1.Namespace
		Expect(admin.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, &system)).To(Succeed())
		var pinned corev1.ConfigMap
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: operator.DefaultNamespace, Name: operator.IdentityConfigMapName}, &pinned)).To(Succeed())
		Expect(pinned.Data).To(And( // the fence's nonces are there too
			HaveKeyWithValue("clusterName", string(system.UID)[:8]), HaveKeyWithValue("clusterUID", string(system.UID)),
			HaveKeyWithValue("queueNamePrefix", "rq")))
	})

	DescribeTable("refuses to start with", func(ctx SpecContext, change func(*operator.Config), parts ...string) {
		cfg := operatorConfig(ctx)
		change(&cfg)
		err := operator.Run(ctx, cfg)
		Expect(err).To(HaveOccurred())
		Expect(without(err.Error(), parts...)).To(BeEmpty(), err.Error())
	},
		Entry("another prefix than its queues have", func(c *operator.Config) { c.QueueNamePrefix = "other" },
			"--queue-name-prefix=other", "differs from rq", operator.IdentityConfigMapName, "lost sight of"),
		Entry("another cluster name", func(c *operator.Config) { c.ClusterName = "other" }, "--cluster-name=other", "lost sight of"),
		Entry("a name that SQS or we could not split", func(c *operator.Config) { c.ClusterName = "a_b" }, "--cluster-name=a_b", "underscore"),
		Entry("an unknown certificate management", func(c *operator.Config) { c.CertManagement = "none" }, "--cert-management=none", "self-signed", "mounted"),
		Entry("mounted certificates from nowhere", func(c *operator.Config) { c.CertManagement, c.CertDir = operator.CertsMounted, "" }, "--cert-dir"),
		Entry("nothing to reach the API server by", func(c *operator.Config) { c.REST = nil }, "reach the API server"),
	)

	It("writes the CA of its certificate into both webhooks", func(ctx SpecContext) {
		var configuration admissionv1.MutatingWebhookConfiguration
		Expect(admin.Get(ctx, client.ObjectKey{Name: operator.WebhookConfigurationName}, &configuration)).To(Succeed())
		Expect(configuration.Webhooks).To(HaveLen(2))
		for _, w := range configuration.Webhooks {
			roots := x509.NewCertPool()
			Expect(roots.AppendCertsFromPEM(w.ClientConfig.CABundle)).To(BeTrue())
			connection, err := tls.Dial("tcp", fmt.Sprintf("localhost:%d", running.cfg.WebhookPort), &tls.Config{RootCAs: roots})
			Expect(err).NotTo(HaveOccurred())
			Expect(connection.ConnectionState().PeerCertificates[0].DNSNames).To(ContainElements("localhost", "replyqueue-webhook.replyqueue-system.svc"))
			Expect(connection.Close()).To(Succeed())
		}
	})

	It("serves metrics to those whom RBAC lets, and nobody else", func(ctx SpecContext) {
		ns := namespace(ctx)
		Expect(scrape(ctx, token(ctx, ns, "default", nil))).To(HavePrefix("403"))
		Expect(scrape(ctx, "")).To(HavePrefix("401"))
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "scraper-"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "replyqueue-metrics-reader"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: "default"}},
		}
		Expect(admin.Create(ctx, binding)).To(Succeed())
		DeferCleanup(func(ctx SpecContext) { Expect(admin.Delete(ctx, binding)).To(Succeed()) })
		// Another account, so that no answer of before is remembered.
		Expect(admin.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "scraper"}})).To(Succeed())
		binding.Subjects[0].Name = "scraper"
		Expect(admin.Update(ctx, binding)).To(Succeed())
		Eventually(ctx, scrape).WithArguments(token(ctx, ns, "scraper", nil)).Should(HavePrefix("200"))
	})

	It("notices when the policy on heartbeats is not enforced", func(ctx SpecContext) {
		const gauge = "replyqueue_heartbeat_policy_in_place"
		ns := namespace(ctx)
		Expect(admin.Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{GenerateName: "scraper-"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "replyqueue-metrics-reader"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: "default"}},
		})).To(Succeed())
		bearer := token(ctx, ns, "default", nil)
		Eventually(ctx, scrape).WithArguments(bearer).Should(ContainSubstring(gauge + " 1"))

		By("weakening a check of the policy")
		policy := &admissionv1.ValidatingAdmissionPolicy{}
		Expect(admin.Get(ctx, client.ObjectKey{Name: operator.HeartbeatPolicyName}, policy)).To(Succeed())
		policy.Spec.Validations[1].Expression = "true"
		Expect(admin.Update(ctx, policy)).To(Succeed())
		Eventually(ctx, scrape).WithArguments(bearer).Should(ContainSubstring(gauge + " 0"))
		for _, object := range installed {
			if object.GetKind() == "ValidatingAdmissionPolicy" && object.GetName() == operator.HeartbeatPolicyName {
				apply(ctx, []*unstructured.Unstructured{object})
			}
		}
		Eventually(ctx, scrape).WithArguments(bearer).Should(ContainSubstring(gauge + " 1"))

		By("weakening its binding")
		binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: operator.HeartbeatPolicyName}}
		Expect(admin.Patch(ctx, binding.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(`{"spec":{"validationActions":["Audit"]}}`)))).To(Succeed())
		Eventually(ctx, scrape).WithArguments(bearer).Should(ContainSubstring(gauge + " 0"))
		Expect(admin.Delete(ctx, binding)).To(Succeed())
		for _, object := range installed {
			if object.GetKind() == "ValidatingAdmissionPolicyBinding" && object.GetName() == operator.HeartbeatPolicyName {
				apply(ctx, []*unstructured.Unstructured{object})
			}
		}
		Eventually(ctx, scrape).WithArguments(bearer).Should(ContainSubstring(gauge + " 1"))
	})

	It("serves on every replica, and hands leadership over when it stops", func(ctx SpecContext) {
		lead(ctx, "")
		Eventually(ctx, leader).WithArguments(ctx).ShouldNot(BeEmpty())
		first, err := leader(ctx)
		Expect(err).NotTo(HaveOccurred())

		second := start(operatorConfig(ctx))
		DeferCleanup(func(ctx SpecContext) {
			Expect(second.stop()).To(Succeed())
			lead(ctx, "a replica elsewhere")
			running = start(operatorConfig(ctx))
			Eventually(ctx, running.ready).Should(Succeed())
		})
		Eventually(ctx, second.ready).Should(Succeed())
		Expect(leader(ctx)).To(Equal(first), "a replica that does not lead answers admission all the same")
		pod := plainPod(namespace(ctx))
		pod.Labels = map[string]string{v1alpha1.LabelInject: "true"}
		pod.Annotations = map[string]string{v1alpha1.AnnotationServes: "sum"}
		Expect(admin.Create(ctx, pod)).To(Succeed())
		Expect(pod.Annotations).To(HaveKey(v1alpha1.AnnotationInjected))

		Expect(running.stop()).To(Succeed())
		Eventually(ctx, leader).WithArguments(ctx).Should(And(Not(BeEmpty()), Not(Equal(first))))
	})

	It("serves a certificate that somebody else keeps", func(ctx SpecContext) {
		var secret corev1.Secret
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: operator.DefaultNamespace, Name: operator.CertificateSecretName}, &secret)).To(Succeed())
		cfg := operatorConfig(ctx)
		cfg.CertManagement, cfg.CertDir = operator.CertsMounted, GinkgoT().TempDir()
		for _, file := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
			Expect(os.WriteFile(filepath.Join(cfg.CertDir, file), secret.Data[file], 0o600)).To(Succeed())
		}
		mounted := start(cfg)
		DeferCleanup(func(ctx SpecContext) {
			Expect(mounted.stop()).To(Succeed())
			patchWebhookURL(ctx, running.url())
		})
		Eventually(ctx, mounted.ready).Should(Succeed())
		pod := plainPod(namespace(ctx))
		pod.Labels = map[string]string{v1alpha1.LabelInject: "true"}
		pod.Annotations = map[string]string{v1alpha1.AnnotationServes: "sum"}
		Expect(admin.Create(ctx, pod)).To(Succeed())
		Expect(pod.Annotations).To(HaveKey(v1alpha1.AnnotationInjected))
	})

	It("leaves no goroutine and no file behind", func(ctx SpecContext) {
		before := goleak.IgnoreCurrent()
		cfg := operatorConfig(ctx)
		cfg.CertDir = GinkgoT().TempDir()
		p := start(cfg)
		DeferCleanup(func(ctx SpecContext) { patchWebhookURL(ctx, running.url()) })
		Eventually(ctx, p.ready).Should(Succeed())
		Expect(p.stop()).To(Succeed())
		Eventually(ctx, func() error { return goleak.Find(before) }).Should(Succeed())
		Expect(os.ReadDir(cfg.CertDir)).To(BeEmpty())
	})

	It("is not needed by anybody but those who asked for it", func(ctx SpecContext) {
		Expect(running.stop()).To(Succeed())
		DeferCleanup(func(ctx SpecContext) {
			running = start(operatorConfig(ctx))
			Eventually(ctx, running.ready).Should(Succeed())
		})
		pod := func(labels map[string]string) *corev1.Pod {
			p := plainPod(namespace(ctx))
			p.Labels, p.Annotations = labels, map[string]string{v1alpha1.AnnotationServes: "sum"}
			return p
		}
		Expect(admin.Create(ctx, pod(nil))).To(Succeed())
		Expect(admin.Create(ctx, pod(map[string]string{v1alpha1.LabelInject: "best-effort"}))).To(Succeed())
		Expect(admin.Create(ctx, pod(map[string]string{v1alpha1.LabelInject: "true"}))).To(MatchError(ContainSubstring("pods.replyqueue.dev")))
	})
})

// scrape returns the status and the text of the running operator's metrics.
func scrape(ctx context.Context, bearer string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+running.cfg.MetricsBindAddress+"/metrics", nil)
	if err != nil {
		return "", err
	}
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return strings.TrimSpace(response.Status + "\n" + string(text)), err
}
