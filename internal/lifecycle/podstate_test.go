package lifecycle

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

func pod(phase corev1.PodPhase, node string, statuses ...corev1.ContainerStatus) *corev1.Pod {
	p := &corev1.Pod{Status: corev1.PodStatus{Phase: phase, ContainerStatuses: statuses}}
	p.Spec.NodeName = node
	p.Spec.Containers = []corev1.Container{{Name: "app"}}
	return p
}

func terminating(p *corev1.Pod) *corev1.Pod {
	p.DeletionTimestamp = ptr.To(metav1.Now())
	return p
}

var (
	running    = corev1.ContainerStatus{Name: "app", ContainerID: "x", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	terminated = corev1.ContainerStatus{Name: "app", ContainerID: "x", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}
	waiting    = corev1.ContainerStatus{Name: "app", ContainerID: "x", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}
	unstarted  = corev1.ContainerStatus{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}}
)

// failedByGC is a pod of a lost node, whose kubelet said last that its container had crashed, and starts it again for all
// that anybody knows.
func failedByGC(p *corev1.Pod) *corev1.Pod { return disrupted(p, "DeletionByPodGC") }

func disrupted(p *corev1.Pod, reason string) *corev1.Pod {
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: reason}}
	return p
}

// besides is a pod of which the kubelet reports init containers, native sidecars among them, in these states.
func besides(p *corev1.Pod, statuses ...corev1.ContainerStatus) *corev1.Pod {
	p.Status.InitContainerStatuses = statuses
	return p
}

func TestStateOf(t *testing.T) {
	for name, c := range map[string]struct {
		pod        *corev1.Pod
		want, last Pod
	}{
		"gated":                                {pod(corev1.PodPending, ""), PodPresent, PodGone},
		"running":                              {pod(corev1.PodRunning, "n", running), PodPresent, PodGone},
		"between a crash and the next start":   {pod(corev1.PodRunning, "n", terminated), PodPresent, PodGone},
		"crash loop":                           {pod(corev1.PodRunning, "n", waiting), PodPresent, PodGone},
		"being deleted":                        {terminating(pod(corev1.PodRunning, "n", running)), PodTerminating, PodGone},
		"being deleted just after a crash":     {terminating(pod(corev1.PodRunning, "n", terminated)), PodTerminating, PodGone},
		"succeeded":                            {pod(corev1.PodSucceeded, "n", terminated), PodStopped, PodStopped},
		"failed by the kubelet":                {terminating(pod(corev1.PodFailed, "n", terminated)), PodStopped, PodStopped},
		"failed by pod GC, containers unknown": {pod(corev1.PodFailed, "n", running), PodGone, PodGone},
		"failed by pod GC, in a crash loop":    {pod(corev1.PodFailed, "n", waiting), PodGone, PodGone},
		"failed without any status":            {pod(corev1.PodFailed, "n"), PodGone, PodGone},
		"failed by the pod garbage collector":  {failedByGC(pod(corev1.PodFailed, "n", terminated)), PodGone, PodGone},
		"of a node out of service, by pod GC":  {disrupted(terminating(pod(corev1.PodFailed, "n", terminated)), "DeletionByTaintManager"), PodGone, PodGone},
		"evicted by its API, by the kubelet":   {disrupted(terminating(pod(corev1.PodFailed, "n", terminated)), "EvictionByEvictionAPI"), PodStopped, PodStopped},
		"deleted by a taint, and succeeded":    {disrupted(terminating(pod(corev1.PodSucceeded, "n", terminated)), "DeletionByTaintManager"), PodStopped, PodStopped},
		"failed before it started":             {pod(corev1.PodFailed, "n", unstarted), PodStopped, PodStopped},
		"evicted before it was bound":          {pod(corev1.PodFailed, ""), PodStopped, PodStopped},
		"failed, and its sidecar runs":         {besides(pod(corev1.PodFailed, "n", terminated), terminated, running), PodGone, PodGone},
		"failed, its sidecar in a crash loop":  {besides(pod(corev1.PodFailed, "n", terminated), waiting), PodGone, PodGone},
		"failed with its sidecar":              {besides(pod(corev1.PodFailed, "n", terminated), terminated), PodStopped, PodStopped},
		"failed before its sidecar started":    {besides(pod(corev1.PodFailed, "n", unstarted), terminated, unstarted), PodStopped, PodStopped},
	} {
		t.Run(name, func(t *testing.T) {
			if got := StateOf(c.pod); got != c.want {
				t.Errorf("StateOf = %s, want %s", got, c.want)
			}
			if got := LastStateOf(c.pod); got != c.last {
				t.Errorf("LastStateOf = %s, want %s", got, c.last)
			}
		})
	}
	if got := StateOf(nil); got != PodGone {
		t.Errorf("no pod: %s", got)
	}
}

func TestCallerContainer(t *testing.T) {
	const usual, asked = DefaultContainerAnnotation, v1alpha1.AnnotationCallerContainer
	spec := &corev1.PodSpec{
		Containers: []corev1.Container{{Name: "app"}, {Name: "proxy"}},
		InitContainers: []corev1.Container{
			{Name: "init"},
			{Name: "retried", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyOnFailure)},
			{Name: "sidecar", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)},
		},
	}
	for _, c := range []struct {
		annotations map[string]string
		want        string
		ok          bool
	}{
		{nil, "app", true},
		{map[string]string{usual: "proxy"}, "proxy", true},
		{map[string]string{usual: "none"}, "app", true},
		{map[string]string{usual: "sidecar"}, "sidecar", true},
		{map[string]string{usual: "init"}, "app", true},
		{map[string]string{usual: "app", asked: "proxy"}, "proxy", true},
		{map[string]string{usual: "app", asked: "sidecar"}, "sidecar", true},
		{map[string]string{asked: "init"}, "init", false},
		{map[string]string{asked: "retried"}, "retried", false},
		{map[string]string{asked: "none"}, "none", false},
		{map[string]string{asked: ""}, "", false},
	} {
		if got, ok := CallerContainer(c.annotations, spec); got != c.want || ok != c.ok {
			t.Errorf("%v: %q %v, want %q %v", c.annotations, got, ok, c.want, c.ok)
		}
	}
	if got, ok := CallerContainer(nil, &corev1.PodSpec{}); got != "" || ok {
		t.Errorf("no containers: %q %v", got, ok)
	}
}

func TestCallerOf(t *testing.T) {
	named := func(name string, s corev1.ContainerStatus) corev1.ContainerStatus { s.Name = name; return s }
	for name, c := range map[string]struct {
		caller                 string
		containers, initiating []corev1.ContainerStatus
		want                   bool
	}{
		"running":                  {"app", []corev1.ContainerStatus{running}, nil, true},
		"in a crash loop":          {"app", []corev1.ContainerStatus{waiting}, nil, false},
		"another one runs":         {"app", []corev1.ContainerStatus{waiting, named("proxy", running)}, []corev1.ContainerStatus{named("sidecar", running)}, false},
		"nothing reported":         {"app", nil, nil, false},
		"a running sidecar":        {"sidecar", []corev1.ContainerStatus{unstarted}, []corev1.ContainerStatus{named("init", terminated), named("sidecar", running)}, true},
		"a sidecar between starts": {"sidecar", []corev1.ContainerStatus{running}, []corev1.ContainerStatus{named("sidecar", waiting)}, false},
		"an init container":        {"init", []corev1.ContainerStatus{unstarted}, []corev1.ContainerStatus{named("init", running)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := pod(corev1.PodRunning, "n", c.containers...)
			p.Annotations = map[string]string{v1alpha1.AnnotationCallerContainer: c.caller}
			p.Spec.InitContainers = []corev1.Container{{Name: "init"}, {Name: "sidecar", RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}}
			p.Status.InitContainerStatuses = c.initiating
			if got := CallerOf(p).Runs; got != c.want {
				t.Errorf("CallerOf(p).Runs = %v, want %v", got, c.want)
			}
		})
	}
}

// whole is a view without a gap since long ago.
var whole = View{Continuous: true, Since: time.Unix(1, 0)}

// TestSeeLast: a last state says what the containers came to, and nothing of when the pod was gone; a later reading that
// shows the pod takes it back.
func TestSeeLast(t *testing.T) {
	var s Sightings
	start := time.Unix(1000, 0)
	s.SeeLast("stopped", PodStopped, whole)
	s.SeeLast("relabelled", PodStopped, whole)
	s.SeeLast("running", PodGone, whole)
	s.See("relabelled", PodPresent, Caller{Runs: true, ID: "x"}, whole, start)
	for uid, want := range map[types.UID]Pod{"stopped": PodStopped, "relabelled": PodGone, "running": PodGone} {
		if got := s.See(uid, PodGone, Caller{}, whole, start.Add(time.Hour)); got.State != want || !got.Since.Equal(start.Add(time.Hour)) {
			t.Errorf("%s: %s since %s, want %s since it was seen gone", uid, got.State, got.Since, want)
		}
	}
}

func TestSightings(t *testing.T) {
	var s Sightings
	uid := types.UID("u")
	at := func(d time.Duration) time.Time { return now.Add(d) }
	expect := func(got Sighting, state Pod, since time.Duration) {
		t.Helper()
		if got.State != state || !got.Since.Equal(at(since)) {
			t.Errorf("got %s since %s, want %s since %s", got.State, got.Since.Sub(now), state, since)
		}
	}
	expect(s.See(uid, PodPresent, Caller{}, whole, at(0)), PodPresent, 0)
	expect(s.See(uid, PodPresent, Caller{Runs: true, ID: "x"}, whole, at(1)), PodPresent, 0)
	if got := s.See(uid, PodPresent, Caller{Runs: true, ID: "x"}, whole, at(2)); !got.Running || !got.Started.Equal(at(1)) {
		t.Errorf("running since %s, want 1ns", got.Started.Sub(now))
	}
	s.See(uid, PodPresent, Caller{}, whole, at(3))
	if got := s.See(uid, PodPresent, Caller{Runs: true, ID: "x"}, whole, at(4)); !got.Started.Equal(at(4)) {
		t.Errorf("a restarted container counts from %s, want 4ns", got.Started.Sub(now))
	}
	if got := s.See(uid, PodPresent, Caller{Runs: true, ID: "y"}, whole, at(5)); !got.Started.Equal(at(5)) {
		t.Errorf("another container counts from %s, want 5ns", got.Started.Sub(now))
	}
	expect(s.See(uid, PodUnknown, Caller{Runs: true, ID: "x"}, whole, at(5)), PodPresent, 0)
	expect(s.See(uid, PodGone, Caller{}, whole, at(6)), PodGone, 6)
	expect(s.See(uid, PodPresent, Caller{Runs: true, ID: "x"}, whole, at(7)), PodPresent, 7)
	expect(s.See(uid, PodStopped, Caller{}, whole, at(8)), PodStopped, 8)
	expect(s.See(uid, PodGone, Caller{}, whole, at(9)), PodStopped, 8)
	for _, look := range []struct {
		there bool
		at    time.Duration
		want  time.Time
	}{
		{there: false, at: 10, want: time.Time{}},
		{there: true, at: 11, want: time.Time{}},
		{there: true, at: 12, want: time.Time{}},
		{there: false, at: 15, want: at(15)}, // It may have gone only just now.
		{there: false, at: 16, want: at(15)},
		{there: true, at: 17, want: at(15)},
		{there: false, at: 18, want: at(18)},
	} {
		if got := s.SeeSuccessor(uid, look.there, at(look.at)); !got.Equal(look.want) {
			t.Errorf("at %d, a successor there: %t: first missed at %s, want %s", look.at, look.there, got, look.want)
		}
	}
	if got := s.See(uid, PodGone, Caller{}, whole, at(19)); !got.Since.Equal(at(8)) {
		t.Errorf("the pod stopped at %s, want 8ns", got.Since.Sub(now))
	}
	if got := s.SeeSuccessor("nobody", true, at(11)); !got.IsZero() {
		t.Errorf("nobody's successor was missed at %s", got)
	}
	s.Forget(uid)
	if s.Len() != 0 {
		t.Error("not forgotten")
	}
	expect(s.See(uid, PodGone, Caller{}, whole, at(10)), PodGone, 10)
}

// TestAGapForgets: what was seen of a pod before a gap in the view is as if nobody had seen it, but for its container, whose
// heartbeats are counted elsewhere.
func TestAGapForgets(t *testing.T) {
	at := func(d time.Duration) time.Time { return now.Add(d) }
	broken, later := View{}, View{Continuous: true, Since: at(5)}
	for name, c := range map[string]struct {
		see  func(*Sightings)
		view View
		want Sighting
	}{
		"gone, no gap":           {func(s *Sightings) { s.See("u", PodGone, Caller{}, whole, at(0)) }, whole, Sighting{State: PodGone, Since: at(0)}},
		"gone, a gap":            {func(s *Sightings) { s.See("u", PodGone, Caller{}, whole, at(0)) }, later, Sighting{State: PodGone, Since: at(9)}},
		"gone, in the gap":       {func(s *Sightings) { s.See("u", PodGone, Caller{}, whole, at(0)) }, broken, Sighting{State: PodGone, Since: at(0)}},
		"first seen in the gap":  {func(s *Sightings) { s.See("u", PodGone, Caller{}, broken, at(4)) }, later, Sighting{State: PodGone, Since: at(9)}},
		"stopped, no gap":        {func(s *Sightings) { s.See("u", PodStopped, Caller{}, whole, at(0)) }, whole, Sighting{State: PodStopped, Since: at(0)}},
		"stopped, a gap":         {func(s *Sightings) { s.See("u", PodStopped, Caller{}, whole, at(0)) }, later, Sighting{State: PodGone, Since: at(9)}},
		"reported, a gap":        {func(s *Sightings) { s.SeeLast("u", PodStopped, whole) }, later, Sighting{State: PodGone, Since: at(9)}},
		"reported after the gap": {func(s *Sightings) { s.See("u", PodPresent, Caller{}, whole, at(0)); s.SeeLast("u", PodStopped, later) }, later, Sighting{State: PodStopped, Since: at(9)}},
		"a successor before":     {func(s *Sightings) { s.See("u", PodGone, Caller{}, whole, at(0)); s.SeeSuccessor("u", true, at(1)) }, later, Sighting{State: PodGone, Since: at(9)}},
		"seen again since": {func(s *Sightings) {
			s.See("u", PodGone, Caller{}, whole, at(0))
			s.See("u", PodGone, Caller{}, later, at(6))
		}, later, Sighting{State: PodGone, Since: at(6)}},
	} {
		t.Run(name, func(t *testing.T) {
			var s Sightings
			c.see(&s)
			if got := s.See("u", PodGone, Caller{}, c.view, at(9)); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
	var s Sightings
	s.See("u", PodGone, Caller{}, whole, at(0))
	s.SeeSuccessor("u", true, at(1))
	s.See("u", PodGone, Caller{}, later, at(8))
	if got := s.SeeSuccessor("u", false, at(9)); !got.IsZero() {
		t.Errorf("a successor of before the gap is missed since %s", got.Sub(now))
	}
	s = Sightings{}
	s.See("u", PodPresent, Caller{Runs: true, ID: "x"}, whole, at(0))
	if got := s.See("u", PodPresent, Caller{Runs: true, ID: "x"}, later, at(9)); !got.Started.Equal(at(0)) {
		t.Errorf("the container runs since %s, want 0s: heartbeats know of the gap themselves", got.Started.Sub(now))
	}
}
