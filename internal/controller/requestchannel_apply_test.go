package controller_test

import (
	"context"
	"time"

	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

var _ = ginkgo.Describe("Server-side apply", func() {
	ginkgo.It("takes two appliers, and writes nothing that either of them owns", func(ctx context.Context) {
		w := newWorld(context.WithoutCancel(ctx))
		apply := func(manager string, spec map[string]any) {
			ginkgo.GinkgoHelper()
			o := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": v1alpha1.GroupVersion.String(), "kind": "RequestChannel",
				"metadata": map[string]any{"namespace": w.namespace, "name": "login"}, "spec": spec,
			}}
			gomega.Expect(direct.Apply(w.ctx, client.ApplyConfigurationFromUnstructured(o), client.FieldOwner(manager))).To(gomega.Succeed())
		}
		platform := map[string]any{"encryption": map[string]any{"type": "SQSManaged"}, "tags": map[string]any{"cost-centre": "7"}, "binding": map[string]any{"secretName": "login"}}
		team := map[string]any{"queue": map[string]any{"visibilityTimeoutSeconds": int64(45)}, "tags": map[string]any{"team": "identity"}}
		apply("platform", platform)
		apply("team", team)
		c := channelNamed("login")
		c.Namespace = w.namespace
		for range 3 {
			w.reconciled(c)
			w.pass(2 * time.Hour)
			generation, version := c.Generation, c.ResourceVersion
			apply("platform", platform)
			apply("team", team)
			w.exists(c)
			gomega.Expect(c.Generation).To(gomega.Equal(generation))
			gomega.Expect(c.ResourceVersion).To(gomega.Equal(version), "applying again what is applied changes nothing")
		}
		gomega.Expect(c).To(beReady())
		gomega.Expect(c.Spec.Tags).To(gomega.Equal(v1alpha1.Tags{"cost-centre": "7", "team": "identity"}), "both have their say")
		for _, entry := range c.ManagedFields {
			switch entry.Manager {
			case "platform", "team":
				gomega.Expect(entry.Operation).To(gomega.Equal(metav1.ManagedFieldsOperationApply))
			default:
				gomega.Expect(entry.FieldsV1.GetRawString()).NotTo(gomega.ContainSubstring(`"f:spec"`), "the operator owns no part of the spec")
			}
		}

		// One of them takes back what it said; the other's stays.
		apply("team", map[string]any{"tags": map[string]any{"team": "identity"}})
		w.pass(2 * time.Minute)
		w.reconciled(c)
		gomega.Expect(c).To(beReady())
		gomega.Expect(c.Spec.Encryption).NotTo(gomega.BeNil())
		gomega.Expect(w.sqs.Queues()[0].Attributes).To(gomega.HaveKeyWithValue("VisibilityTimeout", "30"))
		gomega.Expect(w.sqs.Queues()[0].Tags).To(gomega.HaveKeyWithValue("cost-centre", "7"))
	})
})
