package operator_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

var _ = Describe("The life of channels", Serial, func() {
	It("follows what is consented to, under the shipped permissions", func(ctx SpecContext) {
		_, log := leading(ctx)
		relabel := func(name string, labels map[string]string) {
			GinkgoHelper()
			var ns corev1.Namespace
			Expect(admin.Get(ctx, client.ObjectKey{Name: name}, &ns)).To(Succeed())
			before := ns.DeepCopy()
			ns.Labels = labels
			Expect(admin.Patch(ctx, &ns, client.MergeFrom(before))).To(Succeed())
		}
		// readiness is the reason of Ready.
		readiness := func(object interface {
			client.Object
			GetConditions() []metav1.Condition
		}) func() string {
			return func() string {
				if admin.Get(ctx, client.ObjectKeyFromObject(object), object) != nil {
					return ""
				}
				return ptr.Deref(meta.FindStatusCondition(object.GetConditions(), v1alpha1.ConditionReady), metav1.Condition{}).Reason
			}
		}

		By("a provider that is not given to the namespace, then is, then no more")
		ns := namespace(ctx)
		provider := &v1alpha1.QueueProvider{ObjectMeta: metav1.ObjectMeta{Name: "p-" + ns}}
		provider.Spec.Namespaces = v1alpha1.ProviderNamespaces{
			From: v1alpha1.NamespacesFromSelector, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": ns}},
		}
		ref := &v1alpha1.ProviderReference{Name: provider.Name}
		orders := &v1alpha1.RequestChannel{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "orders"}}
		orders.Spec.ProviderRef, orders.Spec.Binding = ref, &v1alpha1.Binding{SecretName: "orders-queue"}
		host := &v1alpha1.ReplyHost{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"}, Spec: v1alpha1.ReplyHostSpec{ProviderRef: ref}}
		for _, object := range []client.Object{provider, orders, host} {
			Expect(admin.Create(ctx, object)).To(Succeed())
		}
		for _, step := range []struct {
			labels map[string]string
			want   string
		}{
			{nil, v1alpha1.ReasonProviderNotAllowed},
			{map[string]string{"team": ns}, v1alpha1.ReasonAvailable},
			{map[string]string{"team": "other"}, v1alpha1.ReasonProviderNotAllowed},
			{map[string]string{"team": ns}, v1alpha1.ReasonAvailable},
		} {
			relabel(ns, step.labels)
			Eventually(ctx, readiness(orders)).Should(Equal(step.want))
			Eventually(ctx, readiness(host)).Should(Equal(step.want))
		}

		By("the binding, which the operator's permissions suffice for")
		secret := &corev1.Secret{}
		key := client.ObjectKey{Namespace: ns, Name: "orders-queue"}
		Expect(admin.Get(ctx, key, secret)).To(Succeed())
		Expect(string(secret.Data["uri"])).To(Equal(orders.Status.QueueURL))
		theirs := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "theirs"}, Data: map[string][]byte{"password": []byte("x")}}
		Expect(admin.Create(ctx, theirs)).To(Succeed())
		before := orders.DeepCopy()
		orders.Spec.Binding.SecretName = "theirs"
		Expect(admin.Patch(ctx, orders, client.MergeFrom(before))).To(Succeed())
		Eventually(ctx, readiness(orders)).Should(Equal(v1alpha1.ReasonSecretNotOwned))
		Expect(admin.Get(ctx, client.ObjectKeyFromObject(theirs), secret)).To(Succeed())
		Expect(secret.ResourceVersion).To(Equal(theirs.ResourceVersion))
		Expect(client.IgnoreNotFound(admin.Get(ctx, key, secret))).To(Succeed())
		before = orders.DeepCopy()
		orders.Spec.Binding = nil
		Expect(admin.Patch(ctx, orders, client.MergeFrom(before))).To(Succeed())
		Eventually(ctx, readiness(orders)).Should(Equal(v1alpha1.ReasonAvailable))

		By("pods of another namespace, whose calls the channel consents to by label")
		login := &v1alpha1.RequestChannel{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "login"}}
		login.Spec.AllowedCallers = &v1alpha1.AllowedCallers{
			From: v1alpha1.NamespacesFromSelector, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"may-log-in": "yes"}},
		}
		Expect(admin.Create(ctx, login)).To(Succeed())
		callers := namespace(ctx)
		pod := plainPod(callers)
		pod.Labels = map[string]string{v1alpha1.LabelInject: "true"}
		pod.Annotations = map[string]string{v1alpha1.AnnotationCalls: "login." + ns}
		Expect(admin.Create(ctx, pod)).To(Succeed())
		waiting := func() string {
			Expect(admin.Get(ctx, client.ObjectKeyFromObject(pod), pod)).To(Succeed())
			return pod.Annotations[v1alpha1.AnnotationWaitingFor]
		}
		Eventually(ctx, waiting).Should(ContainSubstring("does not allow calls from namespace " + callers))
		relabel(callers, map[string]string{"may-log-in": "yes"})
		Eventually(ctx, func() []corev1.PodSchedulingGate { waiting(); return pod.Spec.SchedulingGates }).Should(BeEmpty())
		Expect(waiting()).To(BeEmpty())
		relabel(callers, nil)
		Eventually(ctx, waiting).Should(ContainSubstring("does not allow calls from namespace " + callers))
		relabel(callers, map[string]string{"may-log-in": "yes"})
		Eventually(ctx, waiting).Should(BeEmpty())
		before = login.DeepCopy()
		login.Spec.AllowedCallers = nil
		Expect(admin.Patch(ctx, login, client.MergeFrom(before))).To(Succeed())
		Eventually(ctx, waiting).Should(ContainSubstring("does not allow calls"), "consent withdrawn on the channel")

		By("a responder, which may answer callers of a provider of its place that is written later")
		responder := plainPod(ns)
		responder.Labels = map[string]string{v1alpha1.LabelInject: "true"}
		responder.Annotations = map[string]string{v1alpha1.AnnotationServes: "login"}
		Expect(admin.Create(ctx, responder)).To(Succeed())
		answers := func() string {
			Expect(admin.Get(ctx, client.ObjectKeyFromObject(responder), responder)).To(Succeed())
			return responder.Annotations[v1alpha1.AnnotationReturnAddresses]
		}
		Eventually(ctx, answers).Should(ContainSubstring("_r_"))
		Expect(answers()).NotTo(ContainSubstring(`"later_`))
		later := &v1alpha1.QueueProvider{ObjectMeta: metav1.ObjectMeta{Name: "later-" + ns}}
		later.Spec.NamePrefix, later.Spec.Namespaces.From = "later", v1alpha1.NamespacesFromAll
		Expect(admin.Create(ctx, later)).To(Succeed())
		Eventually(ctx, answers).Should(ContainSubstring(`"later_`))

		By("every condition is a metric, and each that came was counted")
		series := gathered()
		Expect(series).To(HaveKeyWithValue("replyqueue_objects kind=RequestChannel namespace="+ns, 2.0))
		Expect(series).To(HaveKeyWithValue("replyqueue_conditions kind=RequestChannel namespace="+ns+" reason=Available status=True type=Ready", 2.0))
		Expect(series).To(HaveKeyWithValue("replyqueue_conditions kind=ReplyHost namespace="+ns+" reason=Available status=True type=Ready", 1.0))
		Expect(series).To(HaveKeyWithValue("replyqueue_conditions kind=QueueProvider namespace= reason=Available status=True type=Ready", BeNumerically(">=", 1)))
		Expect(series).To(HaveKeyWithValue("replyqueue_condition_since_timestamp_seconds kind=ReplyHost namespace="+ns+" reason=Available status=True type=Ready", BeNumerically(">", 1e9)))
		for _, transition := range []string{"kind=ReplyHost reason=ProviderNotAllowed status=True type=Stalled", "kind=RequestChannel reason=SecretNotOwned status=False type=Ready"} {
			Expect(series).To(HaveKeyWithValue("replyqueue_condition_transitions_total "+transition, BeNumerically(">=", 1)))
		}
		documented()

		for _, object := range []client.Object{pod, orders, login, host} {
			Expect(admin.Delete(ctx, object)).To(Succeed())
			Eventually(ctx, func() error {
				return client.IgnoreNotFound(admin.Get(ctx, client.ObjectKeyFromObject(object), object))
			}).Should(Succeed())
		}
		of := func() (series []string) {
			for name := range gathered() {
				if strings.Contains(name, "="+provider.Name) {
					series = append(series, name)
				}
			}
			return series
		}
		Expect(of()).NotTo(BeEmpty())
		Expect(admin.Delete(ctx, provider)).To(Succeed())
		// Where the queue that was adopted is older than its channel by some seconds, whose it is is certain after a minute.
		Eventually(ctx, func() bool {
			return apierrors.IsNotFound(admin.Get(ctx, client.ObjectKeyFromObject(provider), provider))
		}).WithTimeout(90*time.Second).Should(BeTrue(), "the provider is let go")
		Eventually(ctx, of).Should(BeEmpty(), "what is measured of a provider goes with it")
		Expect(log.seen()).To(BeEmpty())
	}, SpecTimeout(4*time.Minute))
})

// gathered are the operator's series, as "name label=value …".
func gathered() map[string]float64 {
	GinkgoHelper()
	families, err := metrics.Registry.Gather()
	Expect(err).NotTo(HaveOccurred())
	series := map[string]float64{}
	for _, family := range families {
		for _, m := range family.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			slices.Sort(labels)
			series[strings.Join(append([]string{family.GetName()}, labels...), " ")] = value(m)
		}
	}
	return series
}

func value(m *dto.Metric) float64 {
	if m.Counter != nil {
		return m.Counter.GetValue()
	}
	return m.Gauge.GetValue()
}

var described = regexp.MustCompile(`^Desc\{fqName: "(\w+)", help: "(.*?)", (?:unit: "", )?constLabels: \{.*\}, variableLabels: \{(.*)\}\}$`)

// documented holds docs/reference/metrics.md against what the operator registered: every metric has its row, and every
// row its metric.
func documented() {
	GinkgoHelper()
	text, err := os.ReadFile("../../docs/reference/metrics.md")
	Expect(err).NotTo(HaveOccurred())
	rows := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, "|"); len(cells) == 6 && strings.HasPrefix(cells[1], " `replyqueue_") {
			rows[strings.Trim(cells[1], " `")] = strings.TrimSpace(cells[3]) + " | " + strings.TrimSpace(cells[4])
		}
	}
	descs := make(chan *prometheus.Desc)
	go func() {
		metrics.Registry.(prometheus.Collector).Describe(descs)
		close(descs)
	}()
	registered := map[string]string{}
	for desc := range descs {
		if parts := described.FindStringSubmatch(desc.String()); parts != nil && strings.HasPrefix(parts[1], "replyqueue_") {
			registered[parts[1]] = strings.ReplaceAll(parts[3], ",", ", ") + " | " + strings.ReplaceAll(parts[2], `\"`, `"`)
		}
	}
	Expect(rows).To(Equal(registered), "docs/reference/metrics.md")
}
