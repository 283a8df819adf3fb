package operator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	logf "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/replyqueue/replyqueue/hack/freeport"
	"github.com/replyqueue/replyqueue/internal/operator"
)

// One API server with everything of config/default applied, and the operator in it under its own service
// account, as a plain process would run. It answers admission, and leaves leadership to a replica that does
// not exist: no controller changes what the specs look at, but where a spec lets it lead.
const leaderLease = "replyqueue-leader"

var (
	control   *envtest.Environment
	admin     client.Client
	clientset *kubernetes.Clientset
	// installed are the objects of config/default.
	installed []*unstructured.Unstructured
	running   *process
)

func TestOperator(t *testing.T) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Fatal("KUBEBUILDER_ASSETS is not set: run `make test`, or `make controlplane` and name its folder")
	}
	RegisterFailHandler(Fail)
	RunSpecs(t, "Operator")
}

var _ = BeforeSuite(func(ctx SpecContext) {
	logf.SetLogger(GinkgoLogr)
	SetDefaultEventuallyTimeout(15 * time.Second)
	EnforceDefaultTimeoutsWhenUsingContexts()
	control = &envtest.Environment{}
	// The tests are about what real users and pods may do, so they need the admission that gives pods tokens.
	control.ControlPlane.GetAPIServer().Configure().Disable("disable-admission-plugins")
	cfg, err := control.Start()
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func() { Expect(control.Stop()).To(Succeed()) })

	scheme := operator.Scheme()
	Expect(apiextensionsv1.AddToScheme(scheme)).To(Succeed())
	admin, err = client.New(cfg, client.Options{Scheme: scheme})
	Expect(err).NotTo(HaveOccurred())
	clientset, err = kubernetes.NewForConfig(cfg)
	Expect(err).NotTo(HaveOccurred())

	installed = kustomize(ctx, "../../config/default")
	apply(ctx, installed)
	patchWebhookURL(ctx, "https://localhost:1") // nobody answers until an operator runs

	lead(ctx, "a replica elsewhere")
	running = start(operatorConfig(ctx))
	DeferCleanup(func() { Expect(running.stop()).To(Succeed()) })
	Eventually(ctx, running.ready).WithTimeout(30 * time.Second).Should(Succeed())
}, NodeTimeout(2*time.Minute))

// kustomize builds a folder of config as kubectl does.
func kustomize(ctx context.Context, dir string) []*unstructured.Unstructured {
	GinkgoHelper()
	kubectl := exec.CommandContext(ctx, filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), "kustomize", dir)
	kubectl.Stderr = GinkgoWriter
	text, err := kubectl.Output()
	Expect(err).NotTo(HaveOccurred())
	return decode(text)
}

func decode(text []byte) []*unstructured.Unstructured {
	GinkgoHelper()
	var objects []*unstructured.Unstructured
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		if errors.Is(err, io.EOF) {
			return objects
		}
		Expect(err).NotTo(HaveOccurred())
		if len(object.Object) > 0 {
			objects = append(objects, object)
		}
	}
}

// read reads a file of config.
func read(file string) []*unstructured.Unstructured {
	GinkgoHelper()
	text, err := os.ReadFile(file)
	Expect(err).NotTo(HaveOccurred())
	return decode(text)
}

// apply applies on the server's side, strictly: an unknown field is an error.
func apply(ctx context.Context, objects []*unstructured.Unstructured) {
	GinkgoHelper()
	for _, object := range objects {
		Eventually(ctx, func() error {
			return admin.Apply(ctx, client.ApplyConfigurationFromUnstructured(object.DeepCopy()), client.FieldOwner("install"), client.ForceOwnership)
		}).Should(Succeed(), "%s %s", object.GetKind(), object.GetName())
	}
	for _, object := range objects {
		if object.GetKind() != "CustomResourceDefinition" {
			continue
		}
		Eventually(ctx, func(g Gomega) {
			var crd apiextensionsv1.CustomResourceDefinition
			g.Expect(admin.Get(ctx, client.ObjectKeyFromObject(object), &crd)).To(Succeed())
			g.Expect(crd.Status.Conditions).To(ContainElement(And(
				HaveField("Type", apiextensionsv1.Established), HaveField("Status", apiextensionsv1.ConditionTrue))))
		}).Should(Succeed())
	}
}

// patchWebhookURL does what an installation outside a cluster does: there is no Service to go through.
func patchWebhookURL(ctx context.Context, url string) {
	GinkgoHelper()
	var configuration admissionv1.MutatingWebhookConfiguration
	Eventually(ctx, func(g Gomega) {
		g.Expect(admin.Get(ctx, client.ObjectKey{Name: operator.WebhookConfigurationName}, &configuration)).To(Succeed())
		for i := range configuration.Webhooks {
			w := &configuration.Webhooks[i].ClientConfig
			w.Service, w.URL = nil, ptr.To(url+"/mutate-pods")
		}
		g.Expect(admin.Update(ctx, &configuration)).To(Succeed())
	}).Should(Succeed())
}

// operatorConfig is a configuration under the shipped service account, on ports of its own.
func operatorConfig(ctx context.Context) operator.Config {
	GinkgoHelper()
	return operator.Config{
		REST:                   as(token(ctx, operator.DefaultNamespace, operator.ServiceAccountName, nil)),
		LeaderElect:            true,
		WebhookHost:            "localhost",
		WebhookPort:            freePort(),
		HealthProbeBindAddress: fmt.Sprintf("127.0.0.1:%d", freePort()),
		MetricsBindAddress:     fmt.Sprintf("127.0.0.1:%d", freePort()),
		Log:                    GinkgoLogr,
	}
}

// process is an operator that runs in this one.
type process struct {
	cfg    operator.Config
	cancel context.CancelFunc
	done   chan error
}

// start runs an operator and points the webhook configuration at it.
func start(cfg operator.Config) *process {
	GinkgoHelper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{cfg: cfg, cancel: cancel, done: make(chan error, 1)}
	patchWebhookURL(ctx, p.url())
	go func() { p.done <- operator.Run(ctx, cfg) }()
	return p
}

func (p *process) url() string { return fmt.Sprintf("https://localhost:%d", p.cfg.WebhookPort) }

// stop waits until Run has returned, and returns its error.
func (p *process) stop() error {
	p.cancel()
	select {
	case err := <-p.done:
		p.done <- err // for whoever asks again
		return err
	case <-time.After(30 * time.Second):
		return errors.New("Run did not return")
	}
}

// ready asks /readyz.
func (p *process) ready() error {
	select {
	case err := <-p.done:
		p.done <- err
		return StopTrying(fmt.Sprintf("Run ended: %v", err))
	default:
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + p.cfg.HealthProbeBindAddress + "/readyz")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if text, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", response.Status, text)
	}
	return nil
}

// lead makes a replica the leader for the hour; "" lets the next one that asks become it.
func lead(ctx context.Context, replica string) {
	GinkgoHelper()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: operator.DefaultNamespace, Name: leaderLease}}
	_, err := controllerutil.CreateOrUpdate(ctx, admin, lease, func() error {
		now := metav1.NowMicro()
		lease.Spec = coordinationv1.LeaseSpec{
			HolderIdentity: &replica, LeaseDurationSeconds: ptr.To[int32](3600), AcquireTime: &now, RenewTime: &now,
		}
		return nil
	})
	Expect(err).NotTo(HaveOccurred())
}

// leader is the identity of the replica that leads.
func leader(ctx context.Context) (string, error) {
	var lease coordinationv1.Lease
	err := admin.Get(ctx, client.ObjectKey{Namespace: operator.DefaultNamespace, Name: leaderLease}, &lease)
	return ptr.Deref(lease.Spec.HolderIdentity, ""), err
}

func freePort() int {
	GinkgoHelper()
	port, err := freeport.Loopback()
	Expect(err).NotTo(HaveOccurred())
	return port
}

// token asks for a real token of a service account, bound to a pod when one is given.
func token(ctx context.Context, namespace, account string, pod *corev1.Pod) string {
	GinkgoHelper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](3600)}}
	if pod != nil {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
	}
	answer, err := clientset.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
	return answer.Status.Token
}

// as is the API server as the bearer of a token sees it: nothing of the administrator's credentials is left.
func as(token string) *rest.Config {
	cfg := rest.AnonymousClientConfig(control.Config)
	cfg.BearerToken = token
	cfg.QPS = -1
	return cfg
}

// impersonate is a client of another user, as the API server's own impersonation has it.
func impersonate(user string, groups ...string) client.Client {
	GinkgoHelper()
	cfg := rest.CopyConfig(control.Config)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append(groups, "system:authenticated")}
	c, err := client.New(cfg, client.Options{Scheme: operator.Scheme()})
	Expect(err).NotTo(HaveOccurred())
	return c
}

// namespace makes a namespace with the service account that Kubernetes' controllers would give it.
func namespace(ctx context.Context) string {
	GinkgoHelper()
	n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "t-"}}
	Expect(admin.Create(ctx, n)).To(Succeed())
	Expect(admin.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: n.Name, Name: "default"}})).To(Succeed())
	return n.Name
}

// beForbidden matches a refusal whose words contain all the given parts.
func beForbidden(parts ...string) OmegaMatcher {
	matchers := []OmegaMatcher{WithTransform(func(err error) bool { return apierrors.IsForbidden(err) }, BeTrue())}
	for _, part := range parts {
		matchers = append(matchers, MatchError(ContainSubstring(part)))
	}
	return And(matchers...)
}

// without lists the words of a text that are not there, for messages that have to name many things.
func without(text string, words ...string) []string {
	var missing []string
	for _, word := range words {
		if !strings.Contains(text, word) {
			missing = append(missing, word)
		}
	}
	return missing
}
