package operator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/open-policy-agent/cert-controller/pkg/rotator"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

// +kubebuilder:rbac:groups="",namespace=replyqueue-system,resources=secrets,resourceNames=replyqueue-webhook-certificate,verbs=get;list;watch;update
// +kubebuilder:rbac:groups=admissionregistration.k8s.io,resources=mutatingwebhookconfigurations,resourceNames=replyqueue-pods,verbs=get;list;watch;update

// certificate is the webhook's serving certificate as it is now. It comes from the Secret rather than from
// a mounted volume, so that the webhook serves within a second of the first start, where the kubelet would
// take up to a minute to refresh the volume, and so that it works outside a cluster too.
type certificate struct {
	// dir is where the rotator waits for tls.crt to appear, as it would in a mounted volume. Keys stay in
	// memory.
	dir     string
	current atomic.Pointer[tls.Certificate]
	// ready is closed by the rotator when the CA is in the webhook configuration.
	ready chan struct{}
}

// serve is tls.Config.GetCertificate.
func (c *certificate) serve(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if now := c.current.Load(); now != nil {
		return now, nil
	}
	return nil, errors.New("the serving certificate is not there yet")
}

func (c *certificate) cleanUp() { _ = os.RemoveAll(c.dir) }

// check returns the readiness check of the webhook: the Service must not send admission requests to a
// replica that cannot answer them. started asks the server itself, by a TLS handshake, and is only worth
// asking (and logged by the server when it fails) once there is a certificate.
func (c *certificate) check(started healthz.Checker) healthz.Checker {
	return func(request *http.Request) error {
		select {
		case <-c.ready:
		default:
			return errors.New("the CA is not in the webhook configuration yet")
		}
		if _, err := c.serve(nil); err != nil {
			return err
		}
		return started(request)
	}
}

// newWebhookServer returns the server and, when certificates are self-signed, the certificate it serves.
func newWebhookServer(cfg Config) (webhook.Server, *certificate, error) {
	options := webhook.Options{
		Host: cfg.WebhookHost, Port: cfg.WebhookPort, CertDir: cfg.CertDir,
		TLSOpts: []func(*tls.Config){http1Only},
	}
	if cfg.CertManagement == CertsMounted {
		return webhook.NewServer(options), nil, nil
	}
	dir, err := cfg.CertDir, error(nil)
	if dir != "" {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		dir, err = os.MkdirTemp(dir, "replyqueue-webhook-")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("make the folder for the certificate: %w", err)
	}
	c := &certificate{dir: dir, ready: make(chan struct{})}
	options.TLSOpts = append(options.TLSOpts, func(t *tls.Config) { t.GetCertificate = c.serve })
	return webhook.NewServer(options), c, nil
}

// rotations counts the rotators of this process: the name of each one's controller has to differ.
var rotations atomic.Int64

// http1Only leaves HTTP/2 out, which would add nothing to short requests but the exposure to stream resets.
func http1Only(t *tls.Config) {
	t.MinVersion = tls.VersionTLS12
	t.NextProtos = []string{"http/1.1"}
}

// setup starts rotation and the watch on the Secret, on every replica.
func (c *certificate) setup(ctx context.Context, mgr ctrl.Manager, cfg Config) error {
	service := WebhookServiceName + "." + cfg.Namespace + ".svc"
	names := []string{service, service + ".cluster.local"}
	if cfg.WebhookHost != "" {
		// The first name is the one by which the rotator judges an existing certificate.
		names = append([]string{cfg.WebhookHost}, names...)
	}
	key := client.ObjectKey{Namespace: cfg.Namespace, Name: CertificateSecretName}
	err := rotator.AddRotator(narrowed(mgr, cfg.Namespace), &rotator.CertRotator{
		SecretKey:      key,
		CertDir:        c.dir,
		CAName:         "replyqueue-ca",
		CAOrganization: "replyqueue",
		DNSName:        names[0],
		ExtraDNSNames:  names[1:],
		IsReady:        c.ready,
		Webhooks:       []rotator.WebhookInfo{{Name: WebhookConfigurationName, Type: rotator.Mutating}},
		FieldOwner:     "replyqueue-certificates",
		ControllerName: fmt.Sprintf("certificates-%d", rotations.Add(1)),
	})
	if err != nil {
		return fmt.Errorf("set up certificate rotation: %w", err)
	}

	informer, err := mgr.GetCache().GetInformer(ctx, &corev1.Secret{})
	if err != nil {
		return fmt.Errorf("watch Secret %s: %w", key, err)
	}
	log := cfg.Log.WithName("certificate")
	use := func(object any) {
		secret, ok := object.(*corev1.Secret)
		if !ok || client.ObjectKeyFromObject(secret) != key || len(secret.Data[corev1.TLSCertKey]) == 0 {
			return
		}
		if err := c.use(secret); err != nil {
			log.Error(err, "Keeping the serving certificate of before", "secret", key)
		}
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    use,
		UpdateFunc: func(_, object any) { use(object) },
	})
	return err
}

// narrowed is the manager as the rotator gets it. The rotator watches all Secrets of the operator's namespace and all webhook
// configurations of the cluster, of which it writes one each: by its configuration's transport it asks for these, and so
// it needs permission for no others.
func narrowed(mgr ctrl.Manager, namespace string) ctrl.Manager {
	config := rest.CopyConfig(mgr.GetConfig())
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return onlyNamed{next, map[string]string{
			"/api/v1/namespaces/" + namespace + "/secrets":                        CertificateSecretName,
			"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations": WebhookConfigurationName,
		}}
	})
	return managerWith{mgr, config}
}

type managerWith struct {
	ctrl.Manager
	config *rest.Config
}

// GetConfig returns the configuration that the manager is to be used with.
func (m managerWith) GetConfig() *rest.Config { return m.config }

// onlyNamed has lists and watches of some collections (keys: paths) ask for the one object of that name.
type onlyNamed struct {
	next  http.RoundTripper
	names map[string]string
}

// RoundTrip sends the request, narrowed.
func (o onlyNamed) RoundTrip(request *http.Request) (*http.Response, error) {
	if name, ok := o.names[strings.TrimSuffix(request.URL.Path, "/")]; ok && request.Method == http.MethodGet {
		request = request.Clone(request.Context())
		query := request.URL.Query()
		query.Set("fieldSelector", fields.OneTermEqualSelector("metadata.name", name).String())
		request.URL.RawQuery = query.Encode()
	}
	return o.next.RoundTrip(request)
}

// use serves the Secret's certificate from the next handshake on.
func (c *certificate) use(secret *corev1.Secret) error {
	pair, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return fmt.Errorf("read the serving certificate: %w", err)
	}
	c.current.Store(&pair)
	return os.WriteFile(filepath.Join(c.dir, corev1.TLSCertKey), secret.Data[corev1.TLSCertKey], 0o600)
}
