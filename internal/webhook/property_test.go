package webhook_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/webhook"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// Whatever the pod: injecting twice is injecting once, nothing of the user's is removed or changed, a pod
// that did not opt in or is refused stays as it was, and an injected one is complete.
func TestInjectProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		original := anyPod().Draw(t, "pod")
		once := original.DeepCopy()
		err := webhook.Inject(once)

		twice := once.DeepCopy()
		if again := webhook.Inject(twice); (again == nil) != (err == nil) {
			t.Fatalf("first %v, then %v", err, again)
		}
		if diff := cmp.Diff(once, twice); diff != "" {
			t.Fatalf("not idempotent (-once +twice):\n%s", diff)
		}
		if mode, optedIn := original.Labels[v1alpha1.LabelInject]; err != nil || !optedIn || mode == "false" {
			if diff := cmp.Diff(original, once); diff != "" {
				t.Fatalf("touched (-before +after):\n%s", diff)
			}
			return
		}

		keepsMetadata(t, original, once)
		keepsContainers(t, original.Spec.Containers, once.Spec.Containers)
		keepsContainers(t, original.Spec.InitContainers, once.Spec.InitContainers)
		if n := len(original.Spec.Volumes); n > 0 && !cmp.Equal(original.Spec.Volumes, once.Spec.Volumes[:n:n]) {
			t.Fatalf("volumes changed")
		}
		volumes := map[string]bool{}
		for _, v := range once.Spec.Volumes {
			if volumes[v.Name] {
				t.Fatalf("two volumes named %s", v.Name)
			}
			volumes[v.Name] = true
		}
		rest := func(p *corev1.Pod) corev1.PodSpec {
			s := *p.Spec.DeepCopy()
			s.Containers, s.InitContainers, s.Volumes, s.SchedulingGates = nil, nil, nil, nil
			return s
		}
		if diff := cmp.Diff(rest(original), rest(once)); diff != "" {
			t.Fatalf("the rest of the spec changed:\n%s", diff)
		}
		complete(t, once)
	})
}

func keepsMetadata(t *rapid.T, original, now *corev1.Pod) {
	if !maps.Equal(original.Labels, now.Labels) {
		t.Fatalf("labels changed")
	}
	for key, value := range original.Annotations {
		if !webhook.IsOutput(key) && now.Annotations[key] != value {
			t.Fatalf("annotation %s changed", key)
		}
	}
	for key := range now.Annotations {
		if key == v1alpha1.AnnotationCallerContainer {
			continue // Pinned: see TestTheCallerIsPinned.
		}
		if _, set := original.Annotations[key]; webhook.IsOutput(key) && key != v1alpha1.AnnotationInjected || !set && !webhook.IsOutput(key) {
			t.Fatalf("annotation %s is there", key)
		}
	}
	for _, gate := range original.Spec.SchedulingGates {
		if !slices.Contains(now.Spec.SchedulingGates, gate) {
			t.Fatalf("gate %s removed", gate.Name)
		}
	}
}

// keepsContainers: what was there is there, in the same order; what is new has names that were free.
func keepsContainers(t *rapid.T, original, now []corev1.Container) {
	if len(original) != len(now) {
		t.Fatalf("%d containers became %d", len(original), len(now))
	}
	for i, was := range original {
		is := now[i]
		// What is added comes before, but for the heartbeat, which comes after.
		added := len(is.Env) - len(was.Env)
		if last := len(is.Env) - 1; last >= 0 && is.Env[last].Name == injected.EnvHeartbeat &&
			!slices.ContainsFunc(was.Env, func(v corev1.EnvVar) bool { return v.Name == injected.EnvHeartbeat }) {
			added--
		}
		if added < 0 || len(was.Env) > 0 && !cmp.Equal(was.Env, is.Env[added:added+len(was.Env)]) {
			t.Fatalf("variables of %s changed:\n%s", was.Name, cmp.Diff(was.Env, is.Env))
		}
		ours := slices.Concat(is.Env[:added], is.Env[added+len(was.Env):])
		for j, v := range ours {
			if slices.ContainsFunc(slices.Concat(ours[:j], ours[j+1:], was.Env), func(other corev1.EnvVar) bool { return other.Name == v.Name }) {
				t.Fatalf("%s of %s overrides or repeats another", v.Name, was.Name)
			}
		}
		if n := len(was.VolumeMounts); n > 0 && !cmp.Equal(was.VolumeMounts, is.VolumeMounts[:n]) {
			t.Fatalf("mounts of %s changed", was.Name)
		}
		paths := map[string]bool{}
		for _, m := range is.VolumeMounts[len(was.VolumeMounts):] {
			paths[m.MountPath] = true
		}
		for _, m := range was.VolumeMounts {
			if paths[m.MountPath] {
				t.Fatalf("%s is mounted over in %s", m.MountPath, was.Name)
			}
		}
		was.Env, is.Env, was.VolumeMounts, is.VolumeMounts = nil, nil, nil, nil
		if diff := cmp.Diff(was, is); diff != "" {
			t.Fatalf("container changed:\n%s", diff)
		}
	}
}

// complete: a pod with our mark has the identity in every container, and the gate when it has to wait.
func complete(t *rapid.T, p *corev1.Pod) {
	mode, marked := p.Annotations[v1alpha1.AnnotationInjected]
	if !marked {
		if p.Labels[v1alpha1.LabelInject] != v1alpha1.InjectBestEffort {
			t.Fatal("admitted without the mark")
		}
		return
	}
	heartbeats := 0
	for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
		if c.Name == "init" {
			continue
		}
		if !slices.Contains(names(c), injected.EnvPodUID) {
			t.Fatalf("container %s does not know its pod", c.Name)
		}
		if slices.Contains(names(c), injected.EnvHeartbeat) {
			heartbeats++
		}
	}
	if mode == v1alpha1.HeartbeatAnnotationLease && heartbeats == 0 {
		t.Fatal("nobody renews the Lease")
	}
	wait := p.Labels[v1alpha1.LabelInject] == v1alpha1.InjectTrue && p.Spec.NodeName == ""
	if wait && !slices.Contains(p.Spec.SchedulingGates, corev1.PodSchedulingGate{Name: v1alpha1.SchedulingGate}) {
		t.Fatal("no gate")
	}
}

// anyPod draws pods that users could write, more often than not with what makes them interesting here.
func anyPod() *rapid.Generator[*corev1.Pod] {
	return rapid.Custom(func(t *rapid.T) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Labels:      rapid.MapOfN(rapid.SampledFrom([]string{"app", "tier"}), rapid.StringMatching("[a-z]{0,3}"), 0, 2).Draw(t, "labels"),
			Annotations: map[string]string{},
		}}
		if mode := rapid.SampledFrom([]string{"", "true", "true", "true", "best-effort", "best-effort", "false", "yes"}).Draw(t, "mode"); mode != "" {
			p.Labels[v1alpha1.LabelInject] = mode
		}
		container := rapid.SampledFrom([]string{"app", "b", "c", "side", "init"})
		reference := rapid.SampledFrom([]string{"a", "b", "a.b", "a-b", "login", "A", ""})
		for _, annotation := range []struct {
			key   string
			value *rapid.Generator[string]
		}{
			{v1alpha1.AnnotationCalls, rapid.Map(rapid.SliceOfN(reference, 0, 3), func(r []string) string { return strings.Join(r, ",") })},
			{v1alpha1.AnnotationServes, rapid.Map(rapid.SliceOfN(reference, 0, 2), func(r []string) string { return strings.Join(r, ",") })},
			{v1alpha1.AnnotationReplyHost, rapid.SampledFrom([]string{"web", "web", "", "W"})},
			{v1alpha1.AnnotationHeartbeat, rapid.SampledFrom([]string{"lease", "pod", "", "x"})},
			{v1alpha1.AnnotationCallerContainer, container},
			{v1alpha1.AnnotationInjected, rapid.SampledFrom([]string{"lease", "pod", "x"})},
			{v1alpha1.AnnotationReplyQueueURL, rapid.Just("forged")},
			{"url.replyqueue.dev/a", rapid.Just("forged")},
			{"kubectl.kubernetes.io/default-container", container},
			{"example.com/x", rapid.Just("y")},
		} {
			if rapid.Bool().Draw(t, "has "+annotation.key) {
				p.Annotations[annotation.key] = annotation.value.Draw(t, annotation.key)
			}
		}
		if rapid.IntRange(0, 4).Draw(t, "on a node") == 0 {
			p.Spec.NodeName = "node"
		}
		p.Spec.SchedulingGates = rapid.SampledFrom([][]corev1.PodSchedulingGate{nil, {{Name: "other"}}, {{Name: v1alpha1.SchedulingGate}}}).Draw(t, "gates")
		p.Spec.Volumes = slices.Clone(rapid.SampledFrom([][]corev1.Volume{nil, {{Name: "replyqueue-token"}, {Name: "replyqueue-addresses"}}, {{Name: "data"}, tokenVolume("own"), tokenVolume("replyqueue-token-2")}}).Draw(t, "volumes"))
		for _, name := range []string{"app", "b"}[:rapid.IntRange(1, 2).Draw(t, "containers")] {
			p.Spec.Containers = append(p.Spec.Containers, anyContainer(name, p.Spec.Volumes).Draw(t, name))
		}
		for _, name := range []string{"init", "side"}[:rapid.IntRange(0, 2).Draw(t, "init containers")] {
			c := anyContainer(name, p.Spec.Volumes).Draw(t, name)
			if name == "side" {
				c.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
			}
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		}
		return p
	})
}

func anyContainer(name string, volumes []corev1.Volume) *rapid.Generator[corev1.Container] {
	variable := rapid.Custom(func(t *rapid.T) corev1.EnvVar {
		return corev1.EnvVar{
			Name:  rapid.SampledFrom([]string{"HOME", injected.EnvPodUID, injected.EnvReplyQueueURL, injected.EnvHeartbeat, injected.EnvChannels, injected.EnvReturnAddresses, injected.EnvReturnAddressesFile, "REPLYQUEUE_CHANNEL_A_URL"}).Draw(t, "name"),
			Value: rapid.SampledFrom([]string{"", "mine", "$(REPLYQUEUE_POD_UID)"}).Draw(t, "value"),
		}
	})
	return rapid.Custom(func(t *rapid.T) corev1.Container {
		c := corev1.Container{Name: name, Image: "i"}
		c.Env = rapid.SliceOfN(variable, 0, 3).Draw(t, "env")
		for _, v := range volumes {
			path := rapid.SampledFrom([]string{"", "/data", injected.DefaultServiceAccountDir, injected.ProjectedServiceAccountDir, injected.ReturnAddressesDir}).Draw(t, "mount")
			if path != "" {
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: v.Name, MountPath: path})
			}
		}
		return c
	})
}

func tokenVolume(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}},
	}}}
}
