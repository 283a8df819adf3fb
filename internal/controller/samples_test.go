package controller_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/onsi/ginkgo/v2"
	"github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

var _ = ginkgo.Describe("Every sample", func() {
	ginkgo.It("comes to rest: a second reconcile makes no request to SQS and no write to the API server", func(ctx context.Context) {
		w := newWorld(context.WithoutCancel(ctx))
		var channels []*v1alpha1.RequestChannel
		var providers []*v1alpha1.QueueProvider
		files, err := filepath.Glob("../../config/samples/features/*.yaml")
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		for _, file := range append(files, "../../config/samples/v1alpha1_requestchannel.yaml", "../../config/samples/v1alpha1_queueprovider.yaml") {
			for _, object := range w.sample(file) {
				switch o := object.(type) {
				case *v1alpha1.QueueProvider:
					providers = append(providers, o)
				case *v1alpha1.RequestChannel:
					channels = append(channels, o)
				}
			}
		}
		gomega.Expect(len(channels)).To(gomega.BeNumerically(">", 15))
		// The queues that samples only look at or take over, with their owners' consent.
		for name, tags := range map[string]map[string]string{w.namespace + "_orders": w.consent(), w.namespace + "_partner-orders": w.share()} {
			_, err := w.sqs.Client(func(o *sqs.Options) { o.Region = "eu-central-1" }).CreateQueue(w.ctx, &sqs.CreateQueueInput{QueueName: &name, Tags: tags})
			gomega.Expect(err).NotTo(gomega.HaveOccurred())
		}
		for _, p := range providers {
			w.apply(p)
			ginkgo.DeferCleanup(func() {
				change(w, p, func(p *v1alpha1.QueueProvider) { p.Finalizers = nil })
				w.remove(p)
			})
			w.reconciled(p)
		}
		for range 3 { // until those that name each other have met
			for _, c := range channels {
				if c.Namespace == "" {
					w.apply(c)
				}
				w.reconciled(c)
			}
		}
		unready := []string{}
		for _, c := range channels {
			requests, writes := w.costing(func() { w.reconciled(c) })
			gomega.Expect(writes).To(gomega.BeEmpty(), c.Name)
			ready := gomega.Or(haveCondition(v1alpha1.ConditionReady, "True", v1alpha1.ReasonAvailable), haveCondition(v1alpha1.ConditionReady, "True", v1alpha1.ReasonObserved))
			if is, err := ready.Match(c); err != nil || !is {
				unready = append(unready, c.Name)
				continue
			}
			gomega.Expect(requests).To(gomega.BeEmpty(), c.Name)
		}
		// An attribute that no year has brought yet, one that is suspended, and a queue of an account that is not this one.
		gomega.Expect(unready).To(gomega.ConsistOf("pioneer", "frozen", "refunds"))
		for _, p := range providers {
			w.reconciled(p) // now that it has users
			_, writes := w.costing(func() { w.reconciled(p) })
			gomega.Expect(writes).To(gomega.BeEmpty(), p.Name)
		}
	})
})

// sample reads a file of samples for the world's namespace: its providers are given to it, under names of its own.
func (w *world) sample(file string) (all []client.Object) {
	ginkgo.GinkgoHelper()
	text, err := os.ReadFile(file)
	gomega.Expect(err).NotTo(gomega.HaveOccurred())
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		u := &unstructured.Unstructured{}
		err := decoder.Decode(u)
		if errors.Is(err, io.EOF) {
			return all
		}
		gomega.Expect(err).NotTo(gomega.HaveOccurred())
		switch u.GetKind() {
		case "QueueProvider":
			p := &v1alpha1.QueueProvider{}
			gomega.Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, p)).To(gomega.Succeed())
			p.Name += "-" + w.namespace
			p.Spec.Namespaces = v1alpha1.ProviderNamespaces{From: v1alpha1.NamespacesFromAll}
			all = append(all, p)
		case "RequestChannel":
			c := &v1alpha1.RequestChannel{}
			gomega.Expect(runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, c)).To(gomega.Succeed())
			c.Namespace = ""
			if c.Spec.ProviderRef != nil {
				c.Spec.ProviderRef.Name += "-" + w.namespace
			}
			if rest, found := strings.CutPrefix(c.Spec.QueueName, "shop_"); found {
				c.Spec.QueueName = w.namespace + "_" + rest
			}
			all = append(all, c)
		}
	}
}
