package operator

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"

	controllers "github.com/replyqueue/replyqueue/internal/controller"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// Where the operator lives and what it is called. The shipped policies and RBAC name the same.
const (
	// DefaultNamespace is where config/default installs the operator.
	DefaultNamespace = "replyqueue-system"
	// ServiceAccountName is the operator's; the policies let nobody else write its records.
	ServiceAccountName = "replyqueue-controller-manager"
	// WebhookServiceName is the Service by which the API server reaches the webhook in a cluster.
	WebhookServiceName = "replyqueue-webhook"
	// WebhookConfigurationName is the MutatingWebhookConfiguration whose caBundle is kept up to date.
	WebhookConfigurationName = "replyqueue-pods"
	// CertificateSecretName holds the webhook's CA and serving certificate when they are self-signed.
	CertificateSecretName = "replyqueue-webhook-certificate"
)

// CertManagement says where the webhook's serving certificate comes from.
type CertManagement string

const (
	// CertsSelfSigned: the operator makes and rotates a CA and a certificate, keeps them in the Secret
	// CertificateSecretName, and writes the CA into the webhook configuration.
	CertsSelfSigned CertManagement = "self-signed"
	// CertsMounted: somebody else (cert-manager) keeps tls.crt and tls.key in Config.CertDir, and the CA in
	// the webhook configuration.
	CertsMounted CertManagement = "mounted"
)

// Config is everything Run needs. The zero value of a field is its default where one is named.
type Config struct {
	// REST reaches the API server as the operator's service account. Required.
	REST *rest.Config
	// Namespace the operator keeps its own objects in: identity, leader lease, certificate.
	// Default: DefaultNamespace.
	Namespace string
	// ClusterName and QueueNamePrefix are parts of every queue's name. They are pinned on the first start
	// (see Identity) and refused when they differ later. Empty: what is pinned, else the first eight
	// hexadecimal characters of the kube-system namespace's UID, and "rq".
	ClusterName, QueueNamePrefix string

	// LeaderElect is to be true wherever two operators could run. Webhooks run on every replica.
	LeaderElect bool
	// MetricsBindAddress is host:port; empty or "0": no metrics.
	MetricsBindAddress string
	// MetricsInsecure serves metrics by HTTP to everybody, instead of by HTTPS to those whom RBAC lets
	// get /metrics.
	MetricsInsecure bool
	// HealthProbeBindAddress is host:port of /healthz and /readyz; empty or "0": none.
	HealthProbeBindAddress string

	// WebhookPort the webhook listens on. 0: 9443.
	WebhookPort int
	// WebhookHost is the DNS name by which the API server reaches a webhook that runs outside the cluster,
	// e.g. "localhost"; the webhook listens on it and its certificate is for it. Empty, in a cluster: all
	// addresses, and the Service's names. It cannot be an IP address: the certificates carry DNS names.
	WebhookHost string
	// CertManagement defaults to CertsSelfSigned.
	CertManagement CertManagement
	// CertDir holds tls.crt and tls.key with CertsMounted. With CertsSelfSigned a temporary folder for the
	// public certificate is made in it; empty: in os.TempDir.
	CertDir string

	// FenceInterval is how often the operator proves that its queues are its cluster's (see internal/fence); 0:
	// fence.DefaultInterval. It has to be shorter than the leader's lease of 15 s.
	FenceInterval time.Duration
	// FenceWatch is for how long a new process watches a provider's marker before it deletes there, unless it sees earlier that
	// the queues are its cluster's; 0: fence.WatchFor(FenceInterval). It has to be longer than SQS takes to show a change.
	FenceWatch time.Duration

	// DriftInterval is the mean time between two looks at a channel's queues for what someone else changed or deleted, at a
	// cost of two SQS requests for a look, and four where a dead-letter queue was made beside; 0:
	// controller.DefaultDriftInterval. At least controller.LeastDriftInterval.
	DriftInterval time.Duration

	// MessageCountsInterval is how often the messages of each channel's queues are counted for the metrics, at a cost
	// of one SQS request for each queue; 0: never. At least controller.LeastMessageCountsInterval.
	MessageCountsInterval time.Duration

	// SweepInterval is the mean time between two sweeps; 0: sweep.DefaultInterval; negative: there are none. SweepGrace is
	// for how long a queue is found without a record before it is deleted; 0: sweep.DefaultGrace. SweepDryRun deletes
	// nothing, and logs what it would.
	SweepInterval, SweepGrace time.Duration
	SweepDryRun               bool
	// SweepForeignPrefixes are prefixes of queues of the Java client that are swept in the operator's own environment.
	SweepForeignPrefixes []string

	// Connect, if set, replaces the AWS SDK's client for SQS: tests return one that talks to a server in
	// their process.
	Connect Connect

	// Log is where controllers and the manager log to.
	Log logr.Logger
}

// Connect makes a client for SQS, and says which region and endpoint it uses (see queue.Registry).
type Connect = func(ctx context.Context, region, endpoint, roleARN string) (api queue.API, usedRegion, usedEndpoint string, err error)

// namePart is what cluster names and prefixes may look like: SQS allows letters, digits, hyphens and
// underscores, and the underscore separates the parts of a queue's name.
var namePart = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$`)

// foreignPrefix is what a prefix of foreign queues may look like. A short one would take in too much.
var foreignPrefix = regexp.MustCompile(`^[A-Za-z0-9_-]{4,60}$`)

// maxNameParts bounds prefix and cluster together: SQS allows 80 characters, of which
// "<prefix>_<cluster>_r_<UID>" needs 40 for the rest.
const maxNameParts = 40

func (c *Config) setDefaults() {
	if c.Namespace == "" {
		c.Namespace = DefaultNamespace
	}
	if c.CertManagement == "" {
		c.CertManagement = CertsSelfSigned
	}
	if c.WebhookPort == 0 {
		c.WebhookPort = 9443
	}
	if c.MetricsBindAddress == "" {
		c.MetricsBindAddress = "0"
	}
	if c.HealthProbeBindAddress == "" {
		c.HealthProbeBindAddress = "0"
	}
}

func (c *Config) validate() error {
	if c.REST == nil {
		return errors.New("no configuration to reach the API server")
	}
	for flag, value := range map[string]string{"cluster-name": c.ClusterName, "queue-name-prefix": c.QueueNamePrefix} {
		if value != "" && !namePart.MatchString(value) {
			return fmt.Errorf("--%s=%s: want letters, digits and hyphens; the underscore separates the parts of a queue's name", flag, value)
		}
	}
	for _, prefix := range c.SweepForeignPrefixes {
		if !foreignPrefix.MatchString(prefix) {
			return fmt.Errorf("--sweep-foreign-prefixes: %q: want at least four letters, digits, hyphens and underscores", prefix)
		}
	}
	if c.CertManagement != CertsSelfSigned && c.CertManagement != CertsMounted {
		return fmt.Errorf("--cert-management=%s: want %s or %s", c.CertManagement, CertsSelfSigned, CertsMounted)
	}
	if c.CertManagement == CertsMounted && c.CertDir == "" {
		return errors.New("--cert-management=mounted wants --cert-dir, the folder with tls.crt and tls.key")
	}
	if c.DriftInterval != 0 && c.DriftInterval < controllers.LeastDriftInterval {
		return fmt.Errorf("--drift-interval=%s: want at least %s, which SQS takes to show a change", c.DriftInterval, controllers.LeastDriftInterval)
	}
	if c.MessageCountsInterval != 0 && c.MessageCountsInterval < controllers.LeastMessageCountsInterval {
		return fmt.Errorf("--message-counts-interval=%s: want 0 (never) or at least %s, which SQS's counts take to settle", c.MessageCountsInterval, controllers.LeastMessageCountsInterval)
	}
	return nil
}
