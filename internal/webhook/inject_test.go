package webhook_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/internal/webhook"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// pod is an opted-in pod with one container and the given annotations (key, value, key, value, ...).
func pod(mode string, annotations ...string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{v1alpha1.LabelInject: mode}, Annotations: map[string]string{}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}},
	}
	for pair := range slices.Chunk(annotations, 2) {
		p.Annotations[pair[0]] = pair[1]
	}
	return p
}

// withToken mounts the token that ServiceAccount admission mounts, into the named containers.
func withToken(p *corev1.Pod, containers ...string) *corev1.Pod {
	const name = "kube-api-access-x"
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](3607)}},
		}},
	}})
	for i := range p.Spec.Containers {
		if c := &p.Spec.Containers[i]; slices.Contains(containers, c.Name) {
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: name, MountPath: injected.DefaultServiceAccountDir, ReadOnly: true})
		}
	}
	return p
}

func inject(t *testing.T, p *corev1.Pod) *corev1.Pod {
	t.Helper()
	if err := webhook.Inject(p); err != nil {
		t.Fatalf("Inject: %v", err)
	}
	return p
}

// names of a container's variables, in order.
func names(c corev1.Container) []string {
	var all []string
	for _, v := range c.Env {
		all = append(all, v.Name)
	}
	return all
}

var shared = []string{
	injected.EnvPodName, injected.EnvPodUID, injected.EnvNamespace, injected.EnvRegion, injected.EnvEndpoint,
	injected.EnvChannels, injected.EnvReturnAddresses,
}

func TestRequester(t *testing.T) {
	p := pod("true", v1alpha1.AnnotationCalls, "login, pricing.shop", v1alpha1.AnnotationServes, "audit", v1alpha1.AnnotationReplyHost, "web")
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "helper"})
	p.Spec.InitContainers = []corev1.Container{
		{Name: "migrate"},
		{Name: "sidecar", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)},
	}
	inject(t, withToken(p, "app"))

	channels := []string{"REPLYQUEUE_CHANNEL_LOGIN_URL", "REPLYQUEUE_CHANNEL_PRICING_SHOP_URL", "REPLYQUEUE_CHANNEL_AUDIT_URL"}
	file := []string{injected.EnvReturnAddressesFile}
	everyone := slices.Concat(shared, channels, file)
	caller := slices.Concat(shared, channels, []string{injected.EnvReplyQueueURL, injected.EnvIdentity}, file, []string{injected.EnvHeartbeat})
	for _, c := range []struct {
		got  corev1.Container
		want []string
	}{
		{p.Spec.Containers[0], caller},
		{p.Spec.Containers[1], everyone},
		{p.Spec.InitContainers[0], nil},
		{p.Spec.InitContainers[1], everyone},
	} {
		if diff := cmp.Diff(c.want, names(c.got)); diff != "" {
			t.Errorf("container %s (-want +got):\n%s", c.got.Name, diff)
		}
	}

	env := map[string]corev1.EnvVar{}
	for _, v := range p.Spec.Containers[0].Env {
		env[v.Name] = v
	}
	for name, path := range map[string]string{
		injected.EnvPodUID:                    "metadata.uid",
		injected.EnvReplyQueueURL:             "metadata.annotations['replyqueue.dev/reply-queue-url']",
		injected.EnvIdentity:                  "metadata.annotations['replyqueue.dev/identity']",
		"REPLYQUEUE_CHANNEL_PRICING_SHOP_URL": "metadata.annotations['url.replyqueue.dev/pricing.shop']",
	} {
		if got := env[name].ValueFrom.FieldRef.FieldPath; got != path {
			t.Errorf("%s comes from %s, want %s", name, got, path)
		}
	}
	heartbeat, err := injected.ParseHeartbeat(strings.ReplaceAll(env[injected.EnvHeartbeat].Value, "$("+injected.EnvPodUID+")", "uid"))
	want := injected.Heartbeat{Namespace: v1alpha1.HeartbeatNamespace, Name: "uid", IntervalSeconds: 60}
	if err != nil || heartbeat != want {
		t.Errorf("heartbeat %v, %v; want %v", heartbeat, err, want)
	}
	if got := p.Annotations[v1alpha1.AnnotationInjected]; got != "lease" {
		t.Errorf("%s is %q, want lease", v1alpha1.AnnotationInjected, got)
	}
	if diff := cmp.Diff([]corev1.PodSchedulingGate{{Name: v1alpha1.SchedulingGate}}, p.Spec.SchedulingGates); diff != "" {
		t.Errorf("gates (-want +got):\n%s", diff)
	}
}

// Who serves finds what it may answer now in a file, unless it says by itself what it may answer, or where the file is.
func TestReturnAddressesFile(t *testing.T) {
	const serves = v1alpha1.AnnotationServes
	own := corev1.EnvVar{Name: injected.EnvReturnAddresses, Value: "{}"}
	elsewhere := corev1.EnvVar{Name: injected.EnvReturnAddressesFile, Value: "/etc/mine"}
	mount := corev1.VolumeMount{Name: "data", MountPath: injected.ReturnAddressesDir}
	for _, tc := range []struct {
		name  string
		pod   *corev1.Pod
		edit  func(*corev1.Container)
		wants bool
	}{
		{"serves", pod("true", serves, "audit"), func(*corev1.Container) {}, true},
		{"best effort", pod("best-effort", serves, "audit"), func(*corev1.Container) {}, true},
		{"only calls", pod("true", v1alpha1.AnnotationCalls, "login"), func(*corev1.Container) {}, false},
		{"own addresses", pod("true", serves, "audit"), func(c *corev1.Container) { c.Env = append(c.Env, own) }, false},
		{"own file", pod("true", serves, "audit"), func(c *corev1.Container) { c.Env = append(c.Env, elsewhere) }, false},
		{"own mount", pod("true", serves, "audit"), func(c *corev1.Container) { c.VolumeMounts = append(c.VolumeMounts, mount) }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := tc.pod
			p.Spec.Volumes = []corev1.Volume{{Name: "replyqueue-addresses"}, {Name: "data"}} // a name that is taken
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "second"})
			tc.edit(&p.Spec.Containers[0])
			tc.edit(&p.Spec.Containers[1])
			inject(t, p)
			for _, c := range p.Spec.Containers {
				has := slices.ContainsFunc(c.Env, func(v corev1.EnvVar) bool {
					return v.Name == injected.EnvReturnAddressesFile && v.Value == "/var/run/replyqueue.dev/return-addresses"
				})
				mounted := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
					return m.Name == "replyqueue-addresses-2" && m.MountPath == "/var/run/replyqueue.dev" && m.ReadOnly
				})
				if has != tc.wants || mounted != tc.wants {
					t.Errorf("%s: variable %t, mount %t; want both %t", c.Name, has, mounted, tc.wants)
				}
			}
			if !tc.wants {
				if len(p.Spec.Volumes) != 2 {
					t.Errorf("volumes %v", p.Spec.Volumes)
				}
				return
			}
			if len(p.Spec.Volumes) != 3 {
				t.Fatalf("%d volumes, want one for both containers besides the pod's two", len(p.Spec.Volumes))
			}
			item := p.Spec.Volumes[2].DownwardAPI.Items[0]
			if item.Path != "return-addresses" || item.FieldRef.FieldPath != "metadata.annotations['replyqueue.dev/return-addresses']" {
				t.Errorf("the file %v", item)
			}
		})
	}
}

// A user's own variables win, and may refer to ours, which therefore come first.
func TestUsersVariablesWin(t *testing.T) {
	p := pod("true", v1alpha1.AnnotationCalls, "login")
	p.Spec.Containers[0].Env = []corev1.EnvVar{
		{Name: "LOGIN", Value: "$(REPLYQUEUE_CHANNEL_LOGIN_URL)"},
		{Name: injected.EnvRegion, Value: "mars-1"},
	}
	inject(t, p)
	got := names(p.Spec.Containers[0])
	if slices.Index(got, "REPLYQUEUE_CHANNEL_LOGIN_URL") > slices.Index(got, "LOGIN") {
		t.Errorf("LOGIN cannot refer to a variable that comes after it: %v", got)
	}
	if n := len(slices.DeleteFunc(got, func(name string) bool { return name != injected.EnvRegion })); n != 1 {
		t.Errorf("%s is set %d times", injected.EnvRegion, n)
	}
}

// The heartbeat refers to the pod's UID, also where that is the user's own variable.
func TestHeartbeatComesAfterThePodUID(t *testing.T) {
	p := withToken(pod("true", v1alpha1.AnnotationReplyHost, "web"), "app")
	p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: injected.EnvPodUID, Value: "mine"}}
	got := names(inject(t, p).Spec.Containers[0])
	if uid, heartbeat := slices.Index(got, injected.EnvPodUID), slices.Index(got, injected.EnvHeartbeat); uid < 0 || heartbeat < uid {
		t.Errorf("order %v", got)
	}
}

// Which container reads the queue is settled when the pod is injected: another default container, or another order of
// the containers, later changes nothing, neither for a second webhook call nor for the controllers.
func TestTheCallerIsPinned(t *testing.T) {
	p := pod("true", v1alpha1.AnnotationCalls, "login", v1alpha1.AnnotationReplyHost, "web", lifecycle.DefaultContainerAnnotation, "side")
	p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "side"})
	inject(t, p)
	if got := p.Annotations[v1alpha1.AnnotationCallerContainer]; got != "side" {
		t.Fatalf("pinned %q, want side", got)
	}
	p.Annotations[lifecycle.DefaultContainerAnnotation] = "app"
	p.Spec.Containers = slices.Insert(p.Spec.Containers, 0, corev1.Container{Name: "proxy"})
	inject(t, p)
	if caller, ok := lifecycle.CallerContainer(p.Annotations, &p.Spec); caller != "side" || !ok {
		t.Errorf("the caller is %q now", caller)
	}
	for _, c := range p.Spec.Containers {
		if got := slices.Contains(names(c), injected.EnvReplyQueueURL); got != (c.Name == "side") {
			t.Errorf("container %s has the reply queue: %v", c.Name, got)
		}
	}
	served := inject(t, pod("true", v1alpha1.AnnotationServes, "login"))
	if _, pinned := served.Annotations[v1alpha1.AnnotationCallerContainer]; pinned {
		t.Error("pinned the reader of a queue that there is not")
	}
}

func TestCallerContainer(t *testing.T) {
	for _, c := range []struct {
		name, want  string
		annotations []string
	}{
		{name: "the first", want: "app"},
		{name: "kubectl's default", want: "other", annotations: []string{"kubectl.kubernetes.io/default-container", "other"}},
		{name: "kubectl's default that is not there", want: "app", annotations: []string{"kubectl.kubernetes.io/default-container", "gone"}},
		{name: "kubectl's default, a sidecar", want: "side", annotations: []string{"kubectl.kubernetes.io/default-container", "side"}},
		{name: "kubectl's default, an init container", want: "app", annotations: []string{"kubectl.kubernetes.io/default-container", "init"}},
		{name: "the one asked for", want: "side", annotations: []string{"kubectl.kubernetes.io/default-container", "other", v1alpha1.AnnotationCallerContainer, "side"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := pod("true", append(c.annotations, v1alpha1.AnnotationReplyHost, "web")...)
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other"})
			withInit(p)
			inject(t, p)
			if caller, ok := lifecycle.CallerContainer(p.Annotations, &p.Spec); caller != c.want || !ok {
				t.Errorf("the controllers take %q for the caller (%v), want %s", caller, ok, c.want)
			}
			for _, container := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
				if got := slices.Contains(names(container), injected.EnvReplyQueueURL); got != (container.Name == c.want) {
					t.Errorf("container %s has the reply queue: %v, want it in %s alone", container.Name, got, c.want)
				}
			}
		})
	}
}

// withInit gives the pod an ordinary init container and a native sidecar.
func withInit(p *corev1.Pod) *corev1.Pod {
	p.Spec.InitContainers = []corev1.Container{{Name: "init"}, {Name: "side", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}}
	return p
}

func TestHeartbeatMode(t *testing.T) {
	const host = v1alpha1.AnnotationReplyHost
	mount := func(p *corev1.Pod, volume corev1.VolumeSource, path string) *corev1.Pod {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "v", VolumeSource: volume})
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "v", MountPath: path})
		return p
	}
	for _, c := range []struct {
		name, want string
		pod        *corev1.Pod
		projects   bool
	}{
		{name: "token mounted", want: "lease", pod: withToken(pod("true", host, "web"), "app")},
		{name: "no token", want: "pod", pod: pod("true", host, "web")},
		{name: "lease asked for without a token", want: "lease", projects: true, pod: pod("true", host, "web", v1alpha1.AnnotationHeartbeat, "lease")},
		{name: "pod asked for with a token", want: "pod", pod: withToken(pod("true", host, "web", v1alpha1.AnnotationHeartbeat, "pod"), "app")},
		{name: "a folder over the token hides it", want: "pod",
			pod: mount(pod("true", host, "web"), corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}, injected.DefaultServiceAccountDir)},
		{name: "a token for another audience", want: "pod",
			pod: mount(pod("true", host, "web"), corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "vault"}}}}}, injected.DefaultServiceAccountDir)},
		{name: "nothing to keep alive and nothing to learn", want: "pod", pod: withToken(pod("true", v1alpha1.AnnotationServes, "login"), "app")},
		{name: "not gated, so its channels come with the Lease", want: "lease", pod: withToken(pod("best-effort", v1alpha1.AnnotationServes, "login"), "app")},
	} {
		t.Run(c.name, func(t *testing.T) {
			inject(t, c.pod)
			if got := c.pod.Annotations[v1alpha1.AnnotationInjected]; got != c.want {
				t.Errorf("mode %q, want %q", got, c.want)
			}
			if got := slices.Contains(names(c.pod.Spec.Containers[0]), injected.EnvHeartbeat); got != (c.want == "lease") {
				t.Errorf("%s is there: %v", injected.EnvHeartbeat, got)
			}
			projected := slices.ContainsFunc(c.pod.Spec.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool {
				return m.MountPath == injected.ProjectedServiceAccountDir && m.ReadOnly
			})
			if projected != c.projects {
				t.Errorf("token projected: %v, want %v", projected, c.projects)
			}
		})
	}
}

func TestProjectedTokenAvoidsTheUsersVolumes(t *testing.T) {
	p := pod("true", v1alpha1.AnnotationReplyHost, "web", v1alpha1.AnnotationHeartbeat, "lease")
	p.Spec.Volumes = []corev1.Volume{{Name: "replyqueue-token"}}
	inject(t, p)
	if got := p.Spec.Containers[0].VolumeMounts[0].Name; got != "replyqueue-token-2" || len(p.Spec.Volumes) != 2 {
		t.Fatalf("mounts %s of %d volumes", got, len(p.Spec.Volumes))
	}
	sources := p.Spec.Volumes[1].Projected.Sources
	if token := sources[0].ServiceAccountToken; token.Path != "token" || token.Audience != "" || *token.ExpirationSeconds != 3600 {
		t.Errorf("token %+v", token)
	}
	if ca := sources[1].ConfigMap; ca.Name != "kube-root-ca.crt" || ca.Items[0].Path != "ca.crt" {
		t.Errorf("ca %+v", ca)
	}
}

func TestGate(t *testing.T) {
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		want int
	}{
		{"true", pod("true", v1alpha1.AnnotationServes, "a"), 1},
		{"best-effort", pod("best-effort", v1alpha1.AnnotationServes, "a"), 0},
		{"a pod that has a node cannot wait", func() *corev1.Pod {
			p := pod("true", v1alpha1.AnnotationServes, "a")
			p.Spec.NodeName = "n"
			return p
		}(), 0},
		{"the gate is there already", func() *corev1.Pod {
			p := pod("true", v1alpha1.AnnotationServes, "a")
			p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: v1alpha1.SchedulingGate}}
			return p
		}(), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := len(inject(t, c.pod).Spec.SchedulingGates); got != c.want {
				t.Errorf("%d gates, want %d", got, c.want)
			}
		})
	}
}

func TestPresetOutputsAreStripped(t *testing.T) {
	p := pod("true", v1alpha1.AnnotationServes, "login",
		v1alpha1.AnnotationInjected, "lease", v1alpha1.AnnotationReplyQueueURL, "u", v1alpha1.AnnotationChannels, "c",
		v1alpha1.AnnotationReturnAddresses, "r", v1alpha1.AnnotationRegion, "r", v1alpha1.AnnotationEndpoint, "e",
		v1alpha1.AnnotationIdentity, `{"kind":"Stable","retentionSeconds":1209600}`,
		v1alpha1.AnnotationWaitingFor, "w", v1alpha1.ChannelURLAnnotation("login"), "u", "example.com/mine", "kept")
	inject(t, p)
	want := map[string]string{v1alpha1.AnnotationServes: "login", v1alpha1.AnnotationInjected: "pod", "example.com/mine": "kept"}
	if diff := cmp.Diff(want, p.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
}

func TestLeftAlone(t *testing.T) {
	for name, p := range map[string]*corev1.Pod{
		"no label":    {ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1alpha1.AnnotationCalls: "a", v1alpha1.AnnotationInjected: "x"}}},
		"opted out":   pod("false", v1alpha1.AnnotationCalls, "a", v1alpha1.AnnotationReplyQueueURL, "u"),
		"mirror pod":  pod("true", v1alpha1.AnnotationCalls, "a", corev1.MirrorPodAnnotationKey, "hash"),
		"empty label": {Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			before := p.DeepCopy()
			inject(t, p)
			if diff := cmp.Diff(before, p); diff != "" {
				t.Errorf("changed (-before +after):\n%s", diff)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	const calls, serves, host = v1alpha1.AnnotationCalls, v1alpha1.AnnotationServes, v1alpha1.AnnotationReplyHost
	for _, c := range []struct {
		name, key string
		says      []string
		pod       *corev1.Pod
	}{
		{"unknown label value", v1alpha1.LabelInject, []string{`"yes"`, `"true"`, `"best-effort"`}, pod("yes", calls, "a")},
		{"says nothing", v1alpha1.LabelInject, []string{calls, serves, host, "spec.template.metadata"}, pod("true")},
		{"upper case", calls, []string{`"Login" in Login is not a DNS label`}, pod("true", calls, "Login")},
		{"too many parts", calls, []string{"a.b.c", "name.namespace"}, pod("true", calls, "a.b.c")},
		{"bad namespace", calls, []string{`"_" in a._ is not a DNS label`}, pod("true", calls, "a._")},
		{"empty entry", calls, []string{"empty"}, pod("true", calls, "a,,b")},
		{"twice", calls, []string{"a is listed twice"}, pod("true", calls, "a, b, a")},
		{"another namespace's requests", serves, []string{"own namespace"}, pod("true", serves, "a.b")},
		{"one variable for two", calls, []string{"a-b and a.b", "REPLYQUEUE_CHANNEL_A_B_URL"}, pod("true", calls, "a-b,a.b")},
		{"host", host, []string{`"Web."`, "DNS label"}, pod("true", host, "Web.")},
		{"space before the host", host, []string{`" web"`, "DNS label", "no spaces"}, pod("true", host, " web")},
		{"space after the host", host, []string{`"web\n"`, "DNS label"}, pod("true", host, "web\n")},
		{"a blank host", host, []string{`" "`, "DNS label"}, pod("true", calls, "a", host, " ")},
		{"an init container as caller", v1alpha1.AnnotationCallerContainer, []string{`"init"`, "it has app, side"}, withInit(pod("true", calls, "a", v1alpha1.AnnotationCallerContainer, "init"))},
		{"heartbeat", v1alpha1.AnnotationHeartbeat, []string{`"leese"`, `"lease" and "pod"`}, pod("true", calls, "a", v1alpha1.AnnotationHeartbeat, "leese")},
		{"caller", v1alpha1.AnnotationCallerContainer, []string{`"gone"`, "it has app"}, pod("true", calls, "a", v1alpha1.AnnotationCallerContainer, "gone")},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := c.pod.DeepCopy()
			err := webhook.Inject(c.pod)
			var invalid *webhook.InvalidError
			if !errors.As(err, &invalid) || invalid.Key != c.key {
				t.Fatalf("got %v, want an InvalidError for %s", err, c.key)
			}
			for _, part := range append(c.says, c.key) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			if diff := cmp.Diff(before, c.pod); diff != "" {
				t.Errorf("a refused pod was changed (-before +after):\n%s", diff)
			}
		})
	}

	t.Run("every problem at once", func(t *testing.T) {
		err := webhook.Inject(pod("true", calls, "A", host, "B"))
		if err == nil || !strings.Contains(err.Error(), calls) || !strings.Contains(err.Error(), host) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("best effort starts anyway, without our mark", func(t *testing.T) {
		p := inject(t, pod("best-effort", calls, "A", v1alpha1.AnnotationInjected, "lease"))
		if diff := cmp.Diff(map[string]string{calls: "A"}, p.Annotations); diff != "" || len(p.Spec.Containers[0].Env) > 0 {
			t.Errorf("annotations (-want +got):\n%s\nenv %v", diff, p.Spec.Containers[0].Env)
		}
	})
}
