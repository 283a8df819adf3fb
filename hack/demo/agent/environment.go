package agent

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// lookup finds the objects that a container's environment names. Both return an error for what is not there.
type lookup struct {
	configMap func(name string) (*corev1.ConfigMap, error)
	secret    func(name string) (*corev1.Secret, error)
}

// variables is an environment in the making: later values of a name replace earlier ones in place, as the
// kubelet has it.
type variables struct {
	names  []string
	values map[string]string
}

func (v *variables) set(name, value string) {
	if _, known := v.values[name]; !known {
		v.names = append(v.names, name)
	}
	v.values[name] = value
}

func (v *variables) strings() []string {
	out := make([]string, 0, len(v.names))
	for _, n := range v.names {
		out = append(out, n+"="+v.values[n])
	}
	return out
}

// environment resolves a container's variables against the pod as the API server has it now: base (what the
// node adds), then envFrom, then env. Annotations written after the pod was created count: this is called
// when the container starts.
func environment(pod *corev1.Pod, c *corev1.Container, base []corev1.EnvVar, find lookup) (*variables, error) {
	env := &variables{values: map[string]string{}}
	for _, b := range base {
		env.set(b.Name, b.Value)
	}
	for _, from := range c.EnvFrom {
		values, err := source(from, find)
		if err != nil {
			return nil, err
		}
		for _, k := range slices.Sorted(maps.Keys(values)) {
			env.set(from.Prefix+k, values[k])
		}
	}
	for _, e := range c.Env {
		value, set, err := resolve(pod, e, env.values, find)
		if err != nil {
			return nil, fmt.Errorf("environment variable %s: %w", e.Name, err)
		}
		if set {
			env.set(e.Name, value)
		}
	}
	return env, nil
}

func source(from corev1.EnvFromSource, find lookup) (map[string]string, error) {
	switch {
	case from.ConfigMapRef != nil:
		m, err := find.configMap(from.ConfigMapRef.Name)
		if err != nil {
			return nil, unlessOptional(err, from.ConfigMapRef.Optional)
		}
		return m.Data, nil
	case from.SecretRef != nil:
		s, err := find.secret(from.SecretRef.Name)
		if err != nil {
			return nil, unlessOptional(err, from.SecretRef.Optional)
		}
		values := map[string]string{}
		for k, v := range s.Data {
			values[k] = string(v)
		}
		return values, nil
	}
	return nil, nil
}

// resolve returns one variable's value; set is false for an optional reference to something absent.
func resolve(pod *corev1.Pod, e corev1.EnvVar, known map[string]string, find lookup) (value string, set bool, err error) {
	from := e.ValueFrom
	switch {
	case from == nil:
		return expand(e.Value, known), true, nil
	case from.FieldRef != nil:
		value, err := field(pod, from.FieldRef.FieldPath)
		return value, err == nil, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		m, err := find.configMap(ref.Name)
		if err != nil {
			return "", false, unlessOptional(err, ref.Optional)
		}
		if value, ok := m.Data[ref.Key]; ok {
			return value, true, nil
		}
		return "", false, unlessOptional(fmt.Errorf("configmap %s has no key %s", ref.Name, ref.Key), ref.Optional)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		s, err := find.secret(ref.Name)
		if err != nil {
			return "", false, unlessOptional(err, ref.Optional)
		}
		if value, ok := s.Data[ref.Key]; ok {
			return string(value), true, nil
		}
		return "", false, unlessOptional(fmt.Errorf("secret %s has no key %s", ref.Name, ref.Key), ref.Optional)
	}
	return "", false, fmt.Errorf("this node resolves literal values, fieldRef, configMapKeyRef and secretKeyRef only")
}

func unlessOptional(err error, optional *bool) error {
	if optional != nil && *optional {
		return nil
	}
	return err
}

// field is the value of a downward-API path. An annotation or label that is not there is empty.
func field(pod *corev1.Pod, path string) (string, error) {
	if name, key, ok := strings.Cut(strings.TrimSuffix(path, "']"), "['"); ok && strings.HasSuffix(path, "']") {
		switch name {
		case "metadata.annotations":
			return pod.Annotations[key], nil
		case "metadata.labels":
			return pod.Labels[key], nil
		}
	}
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.annotations":
		return lines(pod.Annotations), nil
	case "metadata.labels":
		return lines(pod.Labels), nil
	case "spec.nodeName":
		return pod.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs":
		return address, nil
	}
	return "", fmt.Errorf("no such downward-API field: %s", path)
}

func lines(m map[string]string) string {
	out := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%s=%q", k, m[k]))
	}
	return strings.Join(out, "\n")
}

// expand replaces $(NAME) by the value known under NAME. An unknown name stays as it is written, and $$
// stands for a dollar sign.
func expand(text string, known map[string]string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		text = after
		if strings.HasPrefix(text, "$") {
			b.WriteByte('$')
			text = text[1:]
			continue
		}
		name, rest, closed := strings.Cut(strings.TrimPrefix(text, "("), ")")
		value, ok := known[name]
		if !strings.HasPrefix(text, "(") || !closed || !ok {
			b.WriteByte('$')
			continue
		}
		b.WriteString(value)
		text = rest
	}
}
