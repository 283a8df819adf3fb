package controller

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// keptFor is a stage whose ReplyHost keeps queues for that long.
func keptFor(t *testing.T, identity v1alpha1.Identity, retention time.Duration) *stage {
	t.Helper()
	s := newStage(t)
	s.channel("login")
	s.host("web", func(h *v1alpha1.ReplyHostSpec) {
		h.Identity, h.IdleRetentionSeconds = identity, ptr.To(int32(retention/time.Second))
	})
	return s
}

// goBy lets time go by, and settles every three minutes.
func (s *stage) goBy(d time.Duration) {
	s.Helper()
	const step = 3 * time.Minute
	for ; d > 0; d -= step {
		s.undisturbed(min(d, step))
		s.signals.Heartbeats.Tick(s.clock.Now())
		s.settle()
	}
}

// unread has a member's queue lose its reader: of a Stable queue the pod ends, else the application falls silent.
func (s *stage) unread(identity v1alpha1.Identity) *corev1.Pod {
	s.Helper()
	p := s.member("web-0")
	if identity == v1alpha1.IdentityStable {
		s.stop(p)
		s.settle()
	}
	return p
}

var identities = []v1alpha1.Identity{v1alpha1.IdentityPod, v1alpha1.IdentityStable}

// TestARetentionOutlivesLeaders: no leader lives for as long as the queue is kept, and it goes in the end, and not before.
func TestARetentionOutlivesLeaders(t *testing.T) {
	t.Parallel()
	for _, identity := range identities {
		t.Run(string(identity), func(t *testing.T) {
			t.Parallel()
			s := keptFor(t, identity, time.Hour)
			p := s.unread(identity)
			for range 3 {
				s.goBy(18 * time.Minute)
				s.restart()
				s.settle()
			}
			if len(s.queues()) != 1 {
				t.Fatal("the queue is gone before its time")
			}
			s.goBy(18 * time.Minute)
			if n := len(s.queues()); n != 0 {
				t.Errorf("%d queues after 72 minutes of a retention of 60, want none: %+v", n, s.recordsOf(p)[0].Status)
			}
		})
	}
}

// TestNotesAreFew: what is counted is noted ten times in a retention, and never where this is short.
func TestNotesAreFew(t *testing.T) {
	t.Parallel()
	for _, identity := range identities {
		for retention, want := range map[time.Duration]int{v1alpha1.DefaultIdleRetentionSeconds * time.Second: 0, 20 * time.Minute: 3, time.Hour: 9} {
			t.Run(string(identity)+" "+retention.String(), func(t *testing.T) {
				t.Parallel()
				s := keptFor(t, identity, retention)
				p := s.unread(identity)
				writes, requests := s.writes, s.sqs.Requests()
				s.goBy(retention - time.Minute)
				if n := s.writes - writes; n != want || s.sqs.Requests() != requests {
					t.Errorf("%d writes, and %d requests to SQS, want %d writes", n, s.sqs.Requests()-requests, want)
				}
				s.goBy(2 * time.Minute)
				if len(s.recordsOf(p)) != 0 {
					t.Errorf("not closed when its time was over: %+v", s.recordsOf(p)[0].Status)
				}
			})
		}
	}
}

// TestWhatVoidsANote: whoever used the queue while nobody looked begins the count anew, and so does who waits for it.
func TestWhatVoidsANote(t *testing.T) {
	t.Parallel()
	successor := func(s *stage) *corev1.Pod {
		s.Helper()
		p := s.pod("web-0", caller(), ofSet)
		s.settle()
		s.goBy(time.Minute) // a new leader does not know how its predecessor ended
		return p
	}
	waits := func(s *stage) {
		wants := caller()
		wants[v1alpha1.AnnotationCalls] = "login,later"
		p := s.pod("web-0", wants, ofSet)
		s.settle()
		s.vanish(p)
	}
	for name, c := range map[string]struct {
		identity v1alpha1.Identity
		happens  func(*stage, *corev1.Pod)
		// kept is for how long the queue is certainly kept afterwards; the note says 30 minutes of 60.
		kept time.Duration
	}{
		"nothing, silence":                {v1alpha1.IdentityPod, func(s *stage, _ *corev1.Pod) { s.restart() }, 0},
		"nothing, absence":                {v1alpha1.IdentityStable, func(s *stage, _ *corev1.Pod) { s.restart() }, 0},
		"a gap":                           {v1alpha1.IdentityPod, func(s *stage, _ *corev1.Pod) { s.elapse(time.Hour); s.beacon() }, 0},
		"a heartbeat":                     {v1alpha1.IdentityPod, func(s *stage, p *corev1.Pod) { s.beat(p) }, time.Hour},
		"a heartbeat, unseen":             {v1alpha1.IdentityPod, func(s *stage, p *corev1.Pod) { s.quietBeat(p); s.restart() }, time.Hour},
		"another container":               {v1alpha1.IdentityPod, func(s *stage, p *corev1.Pod) { s.containerStarts(p) }, time.Hour},
		"another one, unseen":             {v1alpha1.IdentityPod, func(s *stage, p *corev1.Pod) { s.containerStarts(p); s.restart() }, time.Hour},
		"a successor reads":               {v1alpha1.IdentityStable, func(s *stage, _ *corev1.Pod) { p := successor(s); s.run(p); s.settle(); s.stop(p) }, time.Hour},
		"it reads, and unseen":            {v1alpha1.IdentityStable, func(s *stage, _ *corev1.Pod) { p := successor(s); s.run(p); s.settle(); s.stop(p); s.restart() }, time.Hour},
		"a successor waits":               {v1alpha1.IdentityStable, func(s *stage, _ *corev1.Pod) { waits(s); s.settle() }, time.Hour},
		"it waits, and its end is unseen": {v1alpha1.IdentityStable, func(s *stage, _ *corev1.Pod) { waits(s); s.restart() }, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := keptFor(t, c.identity, time.Hour)
			p := s.unread(c.identity)
			s.goBy(33 * time.Minute)
			if n := s.recordsOf(p)[0].Status.Counted; n == nil || *n.Seconds != 30*60 {
				t.Fatalf("noted are %+v, want 30 minutes", n)
			}
			c.happens(s, p)
			s.settle()
			if c.kept == 0 {
				s.goBy(33 * time.Minute)
				if n := len(s.queues()); n != 0 {
					t.Errorf("%d queues, want none: what was noted holds", n)
				}
				return
			}
			s.goBy(c.kept - time.Minute)
			if n := len(s.queues()); n != 1 {
				t.Fatal("closed by what was counted before")
			}
			s.goBy(3 * time.Minute)
			if n := len(s.queues()); n != 0 {
				t.Errorf("%d queues, want none: it is unread for long enough", n)
			}
		})
	}
}

// containerStarts has the kubelet report another container of the pod.
func (s *stage) containerStarts(p *corev1.Pod) {
	s.Helper()
	s.reread(p)
	before := p.DeepCopy()
	p.Status.ContainerStatuses[0].ContainerID += "1"
	s.must(s.Status().Patch(s.ctx, p, client.MergeFrom(before)))
}
