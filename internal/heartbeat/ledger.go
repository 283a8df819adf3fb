// Package heartbeat hears the applications' heartbeats: Leases named by pod UIDs that applications renew. It counts
// silence by the operator's own clock, and only while its view of the Leases is continuous; it never compares clocks.
package heartbeat

import (
	"slices"
	"strconv"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

const (
	// BeaconInterval is how often, at the least, the operator renews its own Lease among the others and waits to see it
	// come back: proof that renewals are accepted and that the watch delivers them. Where an application heartbeats faster
	// than every second of them, so does the beacon, down to fastestBeacon: an outage must be seen before it has lasted as
	// long as the retention of anybody.
	BeaconInterval = 5 * time.Second
	fastestBeacon  = time.Second
	// BeaconGap is how long the beacon may stay away before the view counts as broken: two lost and one late. For an
	// application that heartbeats faster it is shorter.
	BeaconGap = gapBeacons * BeaconInterval

	gapBeacons = 3

	// slowest is the longest interval that a ReplyHost can ask for: what a Lease says beyond that nobody wrote who may.
	slowest = time.Hour
)

// Expectation is what can be expected of one pod's application.
type Expectation struct {
	// Pod is where to look for it.
	Pod types.NamespacedName
	// Host is its ReplyHost, in the same namespace.
	Host string
	// Interval between two heartbeats, and how long silence is tolerated.
	Interval, Retention time.Duration
	// Step is how much of a silence is noted at a time: each time it has lasted for so much longer, there is a notice. 0:
	// nothing is noted.
	Step time.Duration
	// Counting says that its calling container runs, and Started since when, by the operator's own clock.
	Counting bool
	Started  time.Time
}

// Heard is what is known of one pod's heartbeats.
type Heard struct {
	// Lease says that its Lease exists, and Closing what its state says.
	Lease, Closing bool
	// Continuous says that the view has no gap up to now.
	Continuous bool
	// Since is the latest of: the last renewal seen, the start of the view, the start of the container, the return
	// of a Lease that had vanished.
	Since time.Time
	// Forgiven says that Since is the end of an outage of heartbeats: nobody's silence from before counts.
	Forgiven bool
	// Woke says that a renewal arrived after the Lease was seen closing.
	Woke bool
	// Pace is the slowest interval that the application may be renewing at: the one that the Lease bore at the last
	// renewal seen, since the answer to it carried it, or a longer one that it has borne since, or says to have borne
	// (AnnotationKnownInterval). PaceKnown says that a renewal was seen; without, the application may follow an interval from
	// before.
	Pace      time.Duration
	PaceKnown bool
	// Renewal is the renewal last seen, as text; ResourceVersion and Annotations are the Lease's.
	Renewal         string
	ResourceVersion string
	Annotations     map[string]string
	// Outage says that too many applications are missing at once.
	Outage bool
}

// Notice says that something happened to one pod's heartbeats that calls for a decision.
type Notice struct {
	// UID of the pod, and where to look for it (empty when nothing was expected of it).
	UID types.UID
	Pod types.NamespacedName
}

// Ledger is the count of heartbeats. It takes the time as an argument and starts nothing.
type Ledger struct {
	mu sync.Mutex
	// viewStart is when the present continuous view began; zero before the first beacon came back.
	viewStart, lastBeacon time.Time
	// pauses are for how long the beacon stayed away since.
	pauses []pause
	// contactStart and lastContact are the same for those who count what does not come from applications: how fast these
	// are, whether too many are silent, and whether they have a namespace to heartbeat in are nothing to them.
	contactStart, lastContact time.Time
	// outageEnd is when the last outage of heartbeats ended; zero: there was none. Silence from before closes nobody's queue.
	outageEnd time.Time
	// written is the version of the beacon as it was written last, and delivered as it was delivered last; 0: not yet.
	written       uint64
	delivered     uint64
	beaconEvery   time.Duration
	beaconRenewal string
	entries       map[types.UID]*entry
	outage        bool
	listed        bool
	homeless      bool
	unpermitted   bool
}

type entry struct {
	lease     bool
	version   string
	said      map[string]string
	renewal   string
	heard     time.Time
	pace      time.Duration
	paceKnown bool
	// follows is the interval that the application follows for certain: the Lease's at the last renewal, since the answer
	// carried it. 0: it is not known, since no renewal was seen, or a list showed another than was seen.
	follows  time.Duration
	closing  bool
	woke     bool
	pod      types.NamespacedName
	host     string
	expected *Expectation
	// spoken says that a reconcile found that nothing is to be expected, though there is a record.
	spoken    bool
	announced bool
	steps     int  // of its silence that were noticed
	mark      bool // seen in the list that is being taken in
	// fell is when an outage can have begun that the application is missed for; zero: it was not missing.
	fell window
}

// NewLedger returns an empty ledger whose view is not continuous yet.
func NewLedger() *Ledger {
	return &Ledger{entries: map[types.UID]*entry{}, beaconEvery: BeaconInterval}
}

// Replace takes in a complete list of Leases: what happened before it is not known, so every count begins anew.
func (l *Ledger) Replace(leases []*coordinationv1.Lease, now time.Time) []Notice {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listed = true
	l.breakView()
	for _, e := range l.entries {
		e.mark = false
	}
	var notices []Notice
	for _, lease := range leases {
		if lease.Name == BeaconName {
			l.beaconRenewal = RenewalOf(lease)
			continue
		}
		// A renewal between the last event and this list cannot be placed before or after a closing, or a change of
		// the interval: it wakes nothing and tells nothing; the next one does.
		before := *l.entry(types.UID(lease.Name))
		told := l.apply(lease, now)
		e := l.entries[types.UID(lease.Name)]
		e.mark, e.woke = true, before.woke && e.closing
		e.pace, e.paceKnown = max(before.pace, paceOf(lease)), before.paceKnown
		e.follows = before.follows
		if e.renewal != before.renewal {
			e.follows = 0
		}
		if len(told) == 0 && e.expected == nil && e.pod.Name != "" {
			// Its pod may have gone while nobody listened.
			told = []Notice{{UID: types.UID(lease.Name), Pod: e.pod}}
		}
		notices = append(notices, told...)
	}
	for uid, e := range l.entries {
		if !e.mark {
			notices = append(notices, l.vanish(uid, e, now)...)
		}
	}
	return notices
}

// Apply takes in one Lease that was added or changed.
func (l *Ledger) Apply(lease *coordinationv1.Lease, now time.Time) []Notice {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lease.Name == BeaconName {
		if n, err := strconv.ParseUint(lease.ResourceVersion, 10, 64); err == nil {
			if n < l.delivered { // Etcd was set back, and heartbeats may have been with it.
				l.breakView()
			}
			l.delivered = n
		}
		if r := RenewalOf(lease); r != l.beaconRenewal {
			l.beaconRenewal = r
			l.contact(now)
			if l.unpermitted {
				return nil
			}
			if l.viewStart.IsZero() {
				l.viewStart, l.pauses = now, nil
			} else {
				l.paused(now)
			}
			l.lastBeacon = now
		}
		return nil
	}
	return l.apply(lease, now)
}

// Beacon is the renewal of the beacon that was delivered last, as RenewalOf writes it; empty: none was.
func (l *Ledger) Beacon() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.beaconRenewal
}

// breakView notes that what was seen may not be what was: every count begins anew when the beacon is seen next.
func (l *Ledger) breakView() {
	l.viewStart, l.lastBeacon = time.Time{}, time.Time{}
	l.contactStart, l.lastContact = time.Time{}, time.Time{}
}

// contact notes a proof that the API server is there.
func (l *Ledger) contact(now time.Time) {
	if l.contactStart.IsZero() || now.Sub(l.lastContact) > BeaconGap {
		l.contactStart = now
	}
	l.lastContact = now
}

// View says since when the view of the cluster has no gap, and whether it has none up to now. It is what silence is counted
// in, but for what concerns applications alone: it does not begin anew when an outage of theirs ends, may be without a
// beacon for BeaconGap however fast they heartbeat, and stands while their namespace is missing, as long as the API server
// says so.
func (l *Ledger) View(now time.Time) (since time.Time, continuous bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.contactStart, !l.contactStart.IsZero() && now.Sub(l.lastContact) <= BeaconGap
}

// wrote takes in the version that the API server gave the beacon. The versions of what one process writes only rise, unless
// etcd was set back: a watch that survives that, or goes on from where it was, would tell of nothing until they have risen
// as far again.
func (l *Ledger) wrote(version string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return
	}
	if n < l.written {
		l.breakView()
	}
	l.written = n
}

// Remove takes in that a Lease was deleted. Its count begins anew when it is written again.
func (l *Ledger) Remove(uid types.UID, now time.Time) []Notice {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[uid]
	if !ok {
		return nil
	}
	return l.vanish(uid, e, now)
}

// Expect notes what can be expected of a pod's application; Forget ends it.
func (l *Ledger) Expect(uid types.UID, x Expectation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entry(uid)
	e.expected, e.spoken, e.pod, e.host = &x, false, x.Pod, x.Host
}

// Excuse notes that nothing is to be expected of a pod's application, though it has a record: its queue is its name's, or the
// pod has ended. Expect says otherwise, and Forget ends it. Of whom neither was said, it is not known whether its record is.
func (l *Ledger) Excuse(uid types.UID, pod types.NamespacedName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.entry(uid)
	e.expected, e.announced, e.spoken, e.pod, e.fell = nil, false, true, pod, window{}
}

// Forget ends what was said of a pod's application by Expect or Excuse. Its Lease, if it exists, stays known.
func (l *Ledger) Forget(uid types.UID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[uid]
	if !ok {
		return
	}
	e.expected, e.announced, e.spoken = nil, false, false
	if !e.lease {
		delete(l.entries, uid)
	}
}

// Hear returns what is known of one pod's heartbeats.
func (l *Ledger) Hear(uid types.UID, now time.Time) Heard {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := Heard{Continuous: l.continuous(BeaconGap, now), Outage: l.outage, Since: l.forgiving(l.viewFrom(BeaconGap))}
	if e, ok := l.entries[uid]; ok {
		h.Continuous = l.continuous(gapOf(e), now)
		h.Lease, h.Closing, h.Woke, h.Since = e.lease, e.closing, e.woke, l.since(e)
		h.Pace, h.PaceKnown = e.pace, e.paceKnown
		h.Forgiven = h.Since.Equal(l.outageEnd) && !h.Since.IsZero()
		h.Renewal, h.ResourceVersion, h.Annotations = e.renewal, e.version, e.said
	}
	return h
}

// Tick looks at every count, and returns a notice for each application that has been silent for longer than its
// retention since the last look. It also finds outages.
func (l *Ledger) Tick(now time.Time) []Notice {
	l.mu.Lock()
	defer l.mu.Unlock()
	counted, fallen := make([]silence, 0, len(l.entries)), []window(nil)
	beaconEvery, broken := BeaconInterval, false
	var notices []Notice
	for uid, e := range l.entries {
		if e.expected == nil || !e.expected.Counting || e.closing {
			e.announced = false
			if silent, ok := l.unspoken(e, now); ok {
				counted = append(counted, silent)
				e.note(silent)
			} else if e.fallen() {
				fallen = append(fallen, e.fell)
			}
			continue
		}
		beaconEvery = min(beaconEvery, beaconFor(e.expected.Interval))
		silent := silence{interval: e.expected.Interval, lasts: now.Sub(l.since(e))}
		continuous := l.continuous(gapOf(e), now)
		broken = broken || !continuous
		if continuous {
			known := l.silence(e, silent.interval, now)
			counted = append(counted, known)
			e.note(known)
		}
		if !continuous || !silent.missing() {
			e.announced, e.steps = false, 0
			continue
		}
		steps := 0
		if e.expected.Step > 0 {
			steps = int(silent.lasts / e.expected.Step)
		}
		over := silent.lasts > e.expected.Retention
		if over && !e.announced || steps > e.steps {
			notices = append(notices, Notice{UID: uid, Pod: e.pod})
		}
		e.announced, e.steps = e.announced || over, max(e.steps, steps)
	}
	outage := isOutage(counted) || isOutageOfAll(counted, fallen)
	if l.outage && !outage {
		// Applications come back one by one, each with its next heartbeat: nobody's silence during the outage counts. But who is
		// still missing stays so: the rest of an outage would else be seen only when the fast ones are closed.
		l.outageEnd = now
		for _, e := range l.entries {
			e.announced = false
			if !broken { // Else nothing has ended: it is not seen at the moment.
				e.fell = window{}
			}
		}
		notices = nil
	}
	l.outage = outage
	l.beaconEvery = beaconEvery
	return notices
}

// Outage says that too many applications are missing at once for it to be the applications.
func (l *Ledger) Outage() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.outage
}

// Homeless says that the namespace of the heartbeats is missing, or going.
func (l *Ledger) Homeless() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.homeless
}

// setHomeless notes whether the namespace is missing. When it is back, the Leases that are missing have to be written.
func (l *Ledger) setHomeless(homeless bool, now time.Time) []Notice {
	l.mu.Lock()
	defer l.mu.Unlock()
	if homeless {
		// No beacon comes back, but the API server answers.
		l.contact(now)
	}
	var notices []Notice
	for uid, e := range l.entries {
		if l.homeless && !homeless && e.expected != nil && !e.lease {
			notices = append(notices, Notice{UID: uid, Pod: e.pod})
		}
	}
	l.homeless = homeless
	return notices
}

// Unpermitted says that applications may not renew Leases: RBAC, or whatever authorises requests, would refuse them all.
func (l *Ledger) Unpermitted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unpermitted
}

// setUnpermitted notes whether applications may renew Leases. While they may not, nobody's silence means anything, and when they
// may again every count of silence begins anew, with the next beacon.
func (l *Ledger) setUnpermitted(unpermitted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if unpermitted {
		l.viewStart, l.lastBeacon = time.Time{}, time.Time{}
	}
	l.unpermitted = unpermitted
}

// Listed says that a complete list of Leases was taken in since the start: that a Lease is not known means that there
// is none.
func (l *Ledger) Listed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.listed
}

// Silenced counts, for one ReplyHost, the pods whose queue was closed for idleness. Their Leases say so, and so a new
// leader knows as soon as it has Listed.
func (l *Ledger) Silenced(namespace, host string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, e := range l.entries {
		if e.closing && e.host == host && e.pod.Namespace == namespace {
			n++
		}
	}
	return n
}

// Known lists the UIDs under which a pod of that name has a Lease, or is expected to heartbeat.
func (l *Ledger) Known(pod types.NamespacedName) []types.UID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var uids []types.UID
	for uid, e := range l.entries {
		if e.pod == pod {
			uids = append(uids, uid)
		}
	}
	slices.Sort(uids)
	return uids
}

func (l *Ledger) apply(lease *coordinationv1.Lease, now time.Time) []Notice {
	uid := types.UID(lease.Name)
	e := l.entry(uid)
	renewal, closing := RenewalOf(lease), lease.Annotations[injected.LeaseState] == injected.LeaseStateClosing
	if name := lease.Annotations[AnnotationPodName]; name != "" {
		e.pod = types.NamespacedName{Namespace: lease.Labels[v1alpha1.LabelPodNamespace], Name: name}
	}
	if host := lease.Annotations[AnnotationReplyHost]; host != "" {
		e.host = host
	}
	isNew := !e.lease
	renewed := isNew || renewal != e.renewal
	wasClosing := e.closing
	e.lease, e.renewal, e.closing = true, renewal, closing
	e.version, e.said = lease.ResourceVersion, lease.Annotations
	notable := false
	if renewed {
		e.heard, e.announced, e.fell = now, false, window{}
	}
	if renewed && !isNew {
		e.follows = intervalOf(lease)
	}
	switch interval := intervalOf(lease); {
	case !renewed || isNew:
		e.pace = max(e.pace, paceOf(lease))
	case interval != e.pace || !e.paceKnown:
		e.pace, e.paceKnown, notable = interval, true, true
	}
	switch {
	case !closing:
		e.woke = false
	case !wasClosing:
		// Where nobody guards Leases, the mark may be anybody's: then it has to be taken back. Silence is not counted under it. One
		// that was there before this process heard of the Lease may be of a closing that nobody has finished.
		notable = true
	case wasClosing && renewed && !isNew && !e.woke:
		e.woke, notable = true, true
	}
	if !notable {
		return nil
	}
	return []Notice{{UID: uid, Pod: e.pod}}
}

// paceOf is the slowest interval that an application may follow by what its Lease says.
func paceOf(lease *coordinationv1.Lease) time.Duration {
	return max(intervalOf(lease), secondsOf(lease, AnnotationKnownInterval))
}

// intervalOf is the interval that a Lease advises; 0 where it advises none.
func intervalOf(lease *coordinationv1.Lease) time.Duration {
	return secondsOf(lease, injected.LeaseIntervalSeconds)
}

func secondsOf(lease *coordinationv1.Lease, annotation string) time.Duration {
	seconds, err := strconv.Atoi(lease.Annotations[annotation])
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, int(slowest/time.Second))) * time.Second
}

// vanish takes in that a Lease is gone. Its pod has to be told where that was somebody's mistake: the application can neither
// heartbeat nor wake without one. That is so of pods of which nothing is expected, too: idle ones, and those whose queue is their
// name's.
func (l *Ledger) vanish(uid types.UID, e *entry, now time.Time) []Notice {
	var notices []Notice
	if e.lease && e.pod.Name != "" {
		notices = []Notice{{UID: uid, Pod: e.pod}}
	}
	if e.expected == nil && !e.spoken {
		delete(l.entries, uid)
		return notices
	}
	e.lease, e.renewal, e.closing, e.woke, e.heard, e.announced = false, "", false, false, now, false
	e.version, e.said, e.paceKnown, e.follows = "", nil, false, 0
	return notices
}

func (l *Ledger) entry(uid types.UID) *entry {
	e, ok := l.entries[uid]
	if !ok {
		e = &entry{}
		l.entries[uid] = e
	}
	return e
}

// BeaconEvery is how often the beacon is to be renewed now: BeaconInterval, or faster where applications are, or where a
// list was taken in and nothing is counted before the beacon is seen.
func (l *Ledger) BeaconEvery() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listed && l.viewStart.IsZero() && !l.unpermitted {
		return fastestBeacon
	}
	return l.beaconEvery
}

// since is when the silence begins that an application's queue may be closed for.
func (l *Ledger) since(e *entry) time.Time { return l.forgiving(l.unheard(e)) }

// forgiving is the end of the last outage, where a silence began before.
func (l *Ledger) forgiving(since time.Time) time.Time {
	if l.outageEnd.After(since) && !l.viewStart.IsZero() {
		return l.outageEnd
	}
	return since
}

// unheard is since when an application has not been heard of, in a view without a gap and while it ran.
func (l *Ledger) unheard(e *entry) time.Time {
	since := l.viewFrom(gapOf(e))
	if e.heard.After(since) {
		since = e.heard
	}
	if e.expected != nil && e.expected.Started.After(since) {
		since = e.expected.Started
	}
	return since
}

// RenewalOf is a Lease's last renewal as text; two renewals differ exactly when their texts do.
func RenewalOf(lease *coordinationv1.Lease) string {
	if lease.Spec.RenewTime == nil {
		return ""
	}
	return lease.Spec.RenewTime.UTC().Format(time.RFC3339Nano)
}
