package operator_test

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/internal/operator"
)

var _ = Describe("Run", func() {
	It("pins the identity of the cluster", func(ctx SpecContext) {
		var system corev1.Namespace
		Expect(admin.Get(ctx, client.ObjectKey{Name: "kube-system"}, &system)).To(Succeed())
		var pinned corev1.ConfigMap
		Expect(admin.Get(ctx, client.ObjectKey{Namespace: operator.DefaultNamespace, Name: operator.IdentityConfigMapName}, &pinned)).To(Succeed())
		Expect(pinned.Data).To(Equal(map[string]string{
			"clusterName": string(system.UID)[:8], "clusterUID": string(system.UID), "queueNamePrefix": "rq",
		}))
	})
})
