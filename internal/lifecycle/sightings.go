package lifecycle

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// View is the operator's view of the cluster.
type View struct {
	// Continuous says that it has no gap from Since up to now: that the API server was there all the time, and was not set
	// back to an earlier state.
	Continuous bool
	// Since is when it began, by the operator's own clock.
	Since time.Time
}

// Sightings remembers, by the operator's own clock, since when each pod has been in the state last seen, since when
// its calling container runs, and, for pods that are gone, what was last reported of their containers. It is
// memory and nothing more: after a restart every count begins anew, which only ever keeps queues longer. After a gap in
// the view it is the same: what became of a pod was seen in another time, and what happened between was not.
type Sightings struct {
	mu   sync.Mutex
	pods map[types.UID]*sighting
}

type sighting struct {
	state   Pod
	since   time.Time
	caller  Caller
	started time.Time
	// succeeded says that a successor was there when it was last looked for, and named when one was first missed.
	succeeded bool
	named     time.Time
	// ending says that the last thing reported of the pod was the end of its containers.
	ending bool
	// count is what is counted now.
	count count
	// view is when the view began in which all this was seen; zero: before there was one.
	view time.Time
}

// count is one count of silence or absence.
type count struct {
	of     string
	since  time.Time
	before time.Duration
}

// Sighting is what Sightings knows of one pod.
type Sighting struct {
	State Pod
	Since time.Time
	// Running says that the calling container runs, and Started since when the operator has seen it so.
	Running bool
	Started time.Time
}

// See notes one reading of a pod's state and of its calling container, and returns what is now known.
// A pod last seen stopped, or reported so by SeeLast and not seen since, stays so when it is gone, and the view has no gap.
func (s *Sightings) See(uid types.UID, state Pod, caller Caller, view View, now time.Time) Sighting {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.of(uid, view)
	switch {
	case state == PodPresent, state == PodTerminating:
		p.ending = false
	case state == PodGone && (p.state == PodStopped || p.ending):
		state = PodStopped
	}
	if state != PodUnknown && state != p.state {
		p.state, p.since = state, now
	}
	if caller.Runs && (!p.caller.Runs || caller.ID != p.caller.ID) {
		p.started = now
	}
	p.caller = caller
	return Sighting{State: p.state, Since: p.since, Running: caller.Runs, Started: p.started}
}

// SeeLast notes what a pod's containers came to, as its last state in a watch shows it (LastStateOf). That the pod is
// gone it does not say, and nothing is counted from it: a watch with a selector reports a pod that lost its label in
// the same way. See says when it is gone.
func (s *Sightings) SeeLast(uid types.UID, state Pod, view View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of(uid, view).ending = state == PodStopped
}

// of is what is remembered of a pod, for the caller that holds the lock. Of what was seen before the view began, only the
// container is: whoever counts heartbeats knows of the gap.
func (s *Sightings) of(uid types.UID, view View) *sighting {
	if s.pods == nil {
		s.pods = map[types.UID]*sighting{}
	}
	p := s.pods[uid]
	if p == nil {
		p = &sighting{}
		s.pods[uid] = p
	}
	if view.Continuous && view.Since.After(p.view) {
		*p = sighting{caller: p.caller, started: p.started, view: view.Since}
	}
	return p
}

// SeeSuccessor notes whether another pod has the name of a pod that was seen before, and returns when the last such pod was
// first found gone; zero: there was none. When it was last there is not asked: nobody looks all the time.
func (s *Sightings) SeeSuccessor(uid types.UID, there bool, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pods[uid]
	if p == nil {
		return time.Time{}
	}
	if p.succeeded && !there {
		p.named = now
	}
	p.succeeded = there
	return p.named
}

// Carry says what earlier counts of the same came to when the present one began: what was noted then, which the caller
// reads each time. of names what is counted, and since is when the present count began.
func (s *Sightings) Carry(uid types.UID, of string, since time.Time, noted time.Duration) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.of(uid, View{})
	if p.count.of != of || !p.count.since.Equal(since) {
		p.count = count{of: of, since: since, before: noted}
	}
	return p.count.before
}

// Forget drops what is known of a pod.
func (s *Sightings) Forget(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pods, uid)
}

// Len is how many pods are remembered.
func (s *Sightings) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pods)
}
