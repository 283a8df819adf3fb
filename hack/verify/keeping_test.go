package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// TestInstallersKeepTheKinds holds what is installed to the annotations by which Helm, Argo CD and Flux leave a CustomResourceDefinition
// when it is no longer among what they apply: deleting one deletes every queue of the kind.
func TestInstallersKeepTheKinds(t *testing.T) {
	text, err := os.ReadFile("../../dist/install.yaml")
	if err != nil {
		t.Fatal(err)
	}
	kinds := 0
	for decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
		var o metav1.PartialObjectMetadata
		err := decoder.Decode(&o)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if o.Kind != "CustomResourceDefinition" {
			continue
		}
		kinds++
		for key, want := range map[string]string{
			"helm.sh/resource-policy": "keep", "argocd.argoproj.io/sync-options": "Prune=false,Delete=false", "kustomize.toolkit.fluxcd.io/prune": "disabled",
		} {
			if is := o.Annotations[key]; is != want {
				t.Errorf("%s: %s is %q, want %q", o.Name, key, is, want)
			}
		}
	}
	if kinds != 4 {
		t.Errorf("%d kinds are installed, want 4", kinds)
	}
}
