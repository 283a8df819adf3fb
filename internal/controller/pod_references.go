package controller

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// reference is one RequestChannel that a pod names.
type reference struct {
	// name as the pod's annotations give it: "login" or "pricing.shop".
	name string
	// key of the RequestChannel.
	key types.NamespacedName
	// role of the pod.
	role injected.Role
}

// references are the RequestChannels that a pod names, in the order of their names. The error says which annotation
// is wrong, and how.
func references(pod *corev1.Pod) ([]reference, error) {
	byName := map[string]reference{}
	for _, from := range []struct {
		annotation string
		role       injected.Role
	}{{v1alpha1.AnnotationCalls, injected.RoleCall}, {v1alpha1.AnnotationServes, injected.RoleServe}} {
		for _, name := range names(pod.Annotations[from.annotation]) {
			channel, namespace, qualified := strings.Cut(name, ".")
			if !qualified {
				namespace = pod.Namespace
			}
			if len(validation.IsDNS1123Label(channel)) > 0 || len(validation.IsDNS1123Label(namespace)) > 0 {
				return nil, fmt.Errorf("annotation %s: %q is not the name of a RequestChannel (name, or name.namespace)",
					from.annotation, name)
			}
			if from.role == injected.RoleServe && namespace != pod.Namespace {
				return nil, fmt.Errorf("annotation %s: %q is in another namespace; a pod answers channels of its own",
					from.annotation, name)
			}
			role := from.role
			if known, ok := byName[name]; ok && known.role != role {
				role = injected.RoleBoth
			}
			byName[name] = reference{name: name, key: types.NamespacedName{Namespace: namespace, Name: channel}, role: role}
		}
	}
	refs := make([]reference, 0, len(byName))
	for _, r := range byName {
		refs = append(refs, r)
	}
	slices.SortFunc(refs, func(a, b reference) int { return strings.Compare(a.name, b.name) })
	return refs, nil
}

// names splits a comma-separated annotation.
func names(annotation string) []string {
	var out []string
	for name := range strings.SplitSeq(annotation, ",") {
		if name = strings.TrimSpace(name); name != "" {
			out = append(out, name)
		}
	}
	return out
}

// channelsNamedBy lists the RequestChannels a pod names, as "namespace/name"; none where its annotations are wrong.
func channelsNamedBy(pod *corev1.Pod) []string {
	refs, err := references(pod)
	if err != nil {
		return nil
	}
	var keys []string
	for _, r := range refs {
		keys = append(keys, r.key.String())
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
