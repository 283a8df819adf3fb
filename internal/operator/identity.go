package operator

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// IdentityConfigMapName is where the identity is pinned, in the operator's namespace.
const IdentityConfigMapName = "replyqueue-identity"

const (
	keyClusterName = "clusterName"
	keyClusterUID  = "clusterUID"
	keyPrefix      = "queueNamePrefix"

	defaultPrefix = "rq"
)

// Identity is what every queue's name and tags begin with. If it changed, every queue of before would be
// lost sight of and leak, so the first start pins it.
type Identity struct {
	// ClusterName and QueueNamePrefix are parts of queue names.
	ClusterName, QueueNamePrefix string
	// ClusterUID is the UID of the kube-system namespace, the value of v1alpha1.TagCluster.
	ClusterUID string
}

// +kubebuilder:rbac:groups="",resources=namespaces,resourceNames=kube-system,verbs=get
// +kubebuilder:rbac:groups="",namespace=replyqueue-system,resources=configmaps,verbs=create
// +kubebuilder:rbac:groups="",namespace=replyqueue-system,resources=configmaps,resourceNames=replyqueue-identity,verbs=get;update

// pinIdentity reads the identity from its ConfigMap, or pins it there from the configuration, and refuses
// a configuration that differs from what is pinned. c must read uncached.
func pinIdentity(ctx context.Context, c client.Client, cfg Config) (Identity, error) {
	var system corev1.Namespace
	if err := c.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, &system); err != nil {
		return Identity{}, fmt.Errorf("read the cluster's UID: %w", err)
	}
	wanted := Identity{ClusterName: cfg.ClusterName, QueueNamePrefix: cfg.QueueNamePrefix, ClusterUID: string(system.UID)}

	var pinned corev1.ConfigMap
	key := client.ObjectKey{Namespace: cfg.Namespace, Name: IdentityConfigMapName}
	err := c.Get(ctx, key, &pinned)
	if apierrors.IsNotFound(err) {
		pinned = *newIdentity(key, wanted)
		if err = c.Create(ctx, &pinned); apierrors.IsAlreadyExists(err) { // another replica was first
			err = c.Get(ctx, key, &pinned)
		}
	}
	if err != nil {
		return Identity{}, fmt.Errorf("pin the identity in ConfigMap %s: %w", key, err)
	}
	return checkIdentity(key, &pinned, wanted)
}

func newIdentity(key client.ObjectKey, wanted Identity) *corev1.ConfigMap {
	if wanted.ClusterName == "" {
		wanted.ClusterName = strings.ReplaceAll(wanted.ClusterUID, "-", "")[:8]
	}
	if wanted.QueueNamePrefix == "" {
		wanted.QueueNamePrefix = defaultPrefix
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: key.Namespace, Name: key.Name,
			Labels: map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByOperator},
		},
		Data: map[string]string{
			keyClusterName: wanted.ClusterName,
			keyClusterUID:  wanted.ClusterUID,
			keyPrefix:      wanted.QueueNamePrefix,
		},
	}
}

func checkIdentity(key client.ObjectKey, pinned *corev1.ConfigMap, wanted Identity) (Identity, error) {
	got := Identity{
		ClusterName:     pinned.Data[keyClusterName],
		QueueNamePrefix: pinned.Data[keyPrefix],
		ClusterUID:      pinned.Data[keyClusterUID],
	}
	for _, part := range []struct{ flag, pinned, wanted string }{
		{"cluster-name", got.ClusterName, wanted.ClusterName},
		{"queue-name-prefix", got.QueueNamePrefix, wanted.QueueNamePrefix},
	} {
		if !namePart.MatchString(part.pinned) {
			return Identity{}, fmt.Errorf("ConfigMap %s: the %s in it, %q, cannot be part of a queue's name; restore what this installation began with", key, part.flag, part.pinned)
		}
		if part.wanted != "" && part.wanted != part.pinned {
			return Identity{}, fmt.Errorf("--%s=%s differs from %s, with which the queues of this installation were named (ConfigMap %s): they would be lost sight of. Remove the flag, or delete every RequestChannel and ReplyHost and then the ConfigMap first",
				part.flag, part.wanted, part.pinned, key)
		}
	}
	if got.ClusterUID != wanted.ClusterUID {
		return Identity{}, fmt.Errorf("ConfigMap %s belongs to another cluster (its kube-system namespace is %q, here it is %s): it was copied or restored. Delete it to give this cluster an identity of its own",
			key, got.ClusterUID, wanted.ClusterUID)
	}
	if n := len(got.ClusterName) + len(got.QueueNamePrefix); n > maxNameParts {
		return Identity{}, fmt.Errorf("cluster name %s and prefix %s have %d characters together; a queue's name has room for %d", got.ClusterName, got.QueueNamePrefix, n, maxNameParts)
	}
	return got, nil
}
