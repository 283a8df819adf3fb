// The operator: flags become operator.Config, operator.Run does the rest.
package main

import (
	"flag"
	"os"
	"strings"

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"

	"github.com/replyqueue/replyqueue/internal/operator"
)

func main() {
	var (
		cfg        operator.Config
		management string
		logging    zap.Options
	)
	flag.StringVar(&cfg.Namespace, "namespace", operator.DefaultNamespace, "The operator's own namespace.")
	flag.StringVar(&cfg.ClusterName, "cluster-name", "", "This cluster's part of every queue's name: letters, digits and hyphens. Pinned on the first start. Default: the first eight characters of the kube-system namespace's UID.")
	flag.StringVar(&cfg.QueueNamePrefix, "queue-name-prefix", "", "What every queue's name begins with. Pinned on the first start. Default: rq.")
	flag.BoolVar(&cfg.LeaderElect, "leader-elect", false, "Reconcile on one replica only. The webhook runs on all.")
	flag.StringVar(&cfg.MetricsBindAddress, "metrics-bind-address", "0", "host:port of the metrics; 0: none.")
	flag.BoolVar(&cfg.MetricsInsecure, "metrics-insecure", false, "Serve metrics by HTTP to everybody, instead of by HTTPS to those whom RBAC lets get /metrics.")
	flag.StringVar(&cfg.HealthProbeBindAddress, "health-probe-bind-address", ":8081", "host:port of /healthz and /readyz; 0: none.")
	flag.DurationVar(&cfg.DriftInterval, "drift-interval", 0, "Mean time between two looks at each RequestChannel's queues for what someone else changed or deleted, at least 1m. Each look is two SQS requests, and four with a dead-letter queue made beside. Default: 1h.")
	flag.DurationVar(&cfg.MessageCountsInterval, "message-counts-interval", 0, "How often to count the messages of each RequestChannel's queues for the metrics, at least 1m; 0: never. Each count is one SQS request for each queue.")
	flag.IntVar(&cfg.WebhookPort, "webhook-port", 9443, "The port the webhook listens on.")
	flag.StringVar(&cfg.WebhookHost, "webhook-host", "", "Outside a cluster: the DNS name (no IP address) by which the API server reaches the webhook, e.g. localhost. The webhook listens on it, and its certificate is for it.")
	flag.StringVar(&management, "cert-management", string(operator.CertsSelfSigned), "Where the webhook's certificate comes from: self-signed (made and rotated by the operator) or mounted (cert-manager's, in --cert-dir).")
	flag.StringVar(&cfg.CertDir, "cert-dir", "", "With mounted certificates, the folder with tls.crt and tls.key. Otherwise where a temporary folder for the public certificate is made; default: the system's.")
	flag.DurationVar(&cfg.FenceWatch, "fence-watch", 0, "For how long a new process of the operator that saw no other lead watches whose its queues are, before it deletes any. Shorter than SQS takes to show a change (a minute), it is for servers that show changes at once. Default: 1m40s.")
	flag.DurationVar(&cfg.SweepInterval, "sweep-interval", 0, "Mean time between two sweeps of reply queues and Leases that no record covers. Default: 5m; negative: never.")
	flag.DurationVar(&cfg.SweepGrace, "sweep-grace", 0, "For how long a queue is found without a record before a sweep deletes it. Default: 15m.")
	flag.BoolVar(&cfg.SweepDryRun, "sweep-dry-run", false, "Log what sweeps would delete, and delete nothing.")
	flag.Func("sweep-foreign-prefixes", "Comma-separated prefixes of queues of the Amazon SQS Temporary Queue Client for Java that are swept by its rule, in the operator's own environment (elsewhere: QueueProvider). Default: none.", func(value string) error {
		cfg.SweepForeignPrefixes = append(cfg.SweepForeignPrefixes, strings.Split(value, ",")...)
		return nil
	})
	logging.BindFlags(flag.CommandLine)
	flag.Parse()

	ctrl.SetLogger(zap.New(zap.UseFlagOptions(&logging)))
	cfg.Log = ctrl.Log
	cfg.CertManagement = operator.CertManagement(management)

	rest, err := ctrl.GetConfig() // --kubeconfig, KUBECONFIG, or the pod's service account
	if err != nil {
		cfg.Log.Error(err, "Cannot find out how to reach the API server")
		os.Exit(1)
	}
	cfg.REST = rest
	if err := operator.Run(ctrl.SetupSignalHandler(), cfg); err != nil {
		cfg.Log.Error(err, "The operator ended")
		os.Exit(1)
	}
}
