package agent

import (
	"errors"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestExpand(t *testing.T) {
	known := map[string]string{"A": "1", "B": "$(A)"}
	for text, want := range map[string]string{
		"":                  "",
		"plain":             "plain",
		"$(A)":              "1",
		"<$(A)$(A)>":        "<11>",
		"$(B)":              "$(A)", // A value is not expanded again.
		"$(UNKNOWN)":        "$(UNKNOWN)",
		"$$(A)":             "$(A)",
		"$$$(A)":            "$1",
		"$A ${A}":           "$A ${A}",
		"$(A":               "$(A",
		"ends in $":         "ends in $",
		`{"name":"$(A)"}`:   `{"name":"1"}`,
		"$(UNKNOWN) $(A) $": "$(UNKNOWN) 1 $",
	} {
		if got := expand(text, known); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	yes := true
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "p", Namespace: "ns", UID: "u-1", Labels: map[string]string{"app": "x"},
			Annotations: map[string]string{"url.replyqueue.dev/login.shop": "http://q", "b": "2", "a": "1"},
		},
		Spec: corev1.PodSpec{NodeName: "node", ServiceAccountName: "sa"},
	}
	absent := errors.New("not found")
	find := lookup{
		configMap: func(name string) (*corev1.ConfigMap, error) {
			if name != "cm" {
				return nil, absent
			}
			return &corev1.ConfigMap{Data: map[string]string{"k": "v", "j": "w"}}, nil
		},
		secret: func(name string) (*corev1.Secret, error) {
			if name != "s" {
				return nil, absent
			}
			return &corev1.Secret{Data: map[string][]byte{"password": []byte("x")}}, nil
		},
	}
	ref := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	name := func(n string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: n} }
	base := []corev1.EnvVar{{Name: "HOST", Value: "h"}, {Name: "REPLACED", Value: "old"}}
	c := &corev1.Container{
		EnvFrom: []corev1.EnvFromSource{
			{Prefix: "CM_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: name("cm")}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: name("s")}},
			{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: name("gone"), Optional: &yes}},
		},
		Env: []corev1.EnvVar{
			{Name: "REPLACED", Value: "new"},
			{Name: "URL", ValueFrom: ref("metadata.annotations['url.replyqueue.dev/login.shop']")},
			{Name: "NONE", ValueFrom: ref("metadata.annotations['missing']")},
			{Name: "LABEL", ValueFrom: ref("metadata.labels['app']")},
			{Name: "POD", ValueFrom: ref("metadata.name")},
			{Name: "NAMESPACE", ValueFrom: ref("metadata.namespace")},
			{Name: "UID", ValueFrom: ref("metadata.uid")},
			{Name: "NODE", ValueFrom: ref("spec.nodeName")},
			{Name: "SA", ValueFrom: ref("spec.serviceAccountName")},
			{Name: "IP", ValueFrom: ref("status.podIP")},
			{Name: "ALL", ValueFrom: ref("metadata.labels")},
			{Name: "LEASE", Value: "$(UID)@$(HOST) $(LATER)"},
			{Name: "LATER", Value: "l"},
			{Name: "KEY", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: name("s"), Key: "password"}}},
			{Name: "OPTIONAL", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: name("cm"), Key: "no", Optional: &yes}}},
		},
	}
	env, err := environment(pod, c, base, find)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"HOST=h", "REPLACED=new", "CM_j=w", "CM_k=v", "password=x", "URL=http://q", "NONE=", "LABEL=x", "POD=p", "NAMESPACE=ns",
		"UID=u-1", "NODE=node", "SA=sa", "IP=127.0.0.1", `ALL=app="x"`, "LEASE=u-1@h $(LATER)", "LATER=l", "KEY=x",
	}
	if got := env.strings(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}

	for what, bad := range map[string]corev1.EnvVar{
		"an unknown field":     {Name: "X", ValueFrom: ref("metadata.generation")},
		"an absent secret":     {Name: "X", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: name("gone"), Key: "k"}}},
		"an absent key":        {Name: "X", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: name("cm"), Key: "no"}}},
		"a resource reference": {Name: "X", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
	} {
		if _, err := environment(pod, &corev1.Container{Env: []corev1.EnvVar{bad}}, nil, find); err == nil {
			t.Errorf("%s is no error", what)
		}
	}
}
