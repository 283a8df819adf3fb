package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// killRequester kills one requester's process in the middle of calls.
func (t *story) killRequester(ctx context.Context) error {
	t.out.step("kill -9 of a requester, in the middle of calls")
	pod, err := t.requester(ctx, "")
	if err != nil {
		return err
	}
	t.killed = pod.UID
	queue := pod.Annotations[v1alpha1.AnnotationReplyQueueURL]
	recordsBefore, err := t.records(ctx)
	if err != nil {
		return err
	}
	// Both responders hold still for a moment: then every caller waits, and replies certainly come when nobody waits
	// for them any more.
	release, err := t.holdResponders(ctx)
	if err != nil {
		return err
	}
	defer release()
	var last line
	if err := t.expect(ctx, "calls are under way while the responders hold still", 10*time.Second, func() (string, error) {
		if last = t.meter.latest(string(pod.UID)); last.Pending < callers {
			return fmt.Sprintf("%d of %d callers wait", last.Pending, callers), nil
		}
		return "", nil
	}); err != nil {
		return err
	}
	pid, err := signalPod(pod, syscall.SIGKILL)
	if err != nil {
		return err
	}
	killed := time.Now()
	t.died += last.Pending
	release()
	t.out.say("process %d of %s killed while all its %d callers waited for replies (the responders were held\nstill for a moment, to be sure of that)", pid, pod.Name, last.Pending)

	var now line
	if err := t.expect(ctx, "a killed container is restarted in its pod, with the same queue, and calls go on", 30*time.Second, func() (string, error) {
		var is corev1.Pod
		if err := t.kube.Get(ctx, types.NamespacedName{Namespace: namespace, Name: pod.Name}, &is); err != nil {
			return "", err
		}
		now = t.meter.latest(string(pod.UID))
		switch {
		case is.UID != pod.UID:
			return "", t.breach(ctx, "a killed container is restarted in the same pod; the pod was replaced")
		case is.Status.ContainerStatuses[0].RestartCount == 0:
			return "the container was not restarted", nil
		case now.Caller == "" || now.Caller == last.Caller:
			return "the new process has said nothing", nil
		case now.ReplyQueueURL != queue:
			return "", t.breach(ctx, fmt.Sprintf("a restarted container keeps its queue %s; it reads %s", queue, now.ReplyQueueURL))
		case now.OK < callsPerSecond:
			return fmt.Sprintf("%d calls of the new process succeeded", now.OK), nil
		}
		return "", nil
	}); err != nil {
		return err
	}
	recordsAfter, err := t.records(ctx)
	if err != nil {
		return err
	}
	if len(recordsAfter) != len(recordsBefore) {
		return t.breach(ctx, fmt.Sprintf("a restart needs no new queue: %d records before, %d after", len(recordsBefore), len(recordsAfter)))
	}
	t.out.kept("restarted in the same pod, reading the same queue; %d calls of the new process done %.1f s after the kill", now.OK, time.Since(killed).Seconds())
	if err := t.expect(ctx, "replies to the old process are noticed by the new one, and not delivered", 20*time.Second, func() (string, error) {
		if now = t.meter.latest(string(pod.UID)); now.PutBack+now.Foreign == 0 {
			return "none was noticed", nil
		}
		return "", nil
	}); err != nil {
		return err
	}
	t.out.kept("replies to the old process were met and not delivered: set aside %d times so far, and dropped\nand counted when they are old enough that no other container of the pod can be waiting for them", now.PutBack)
	return nil
}

// holdResponders stops every responder's process until release is called, once or more.
func (t *story) holdResponders(ctx context.Context) (release func(), err error) {
	pods, err := t.pods(ctx, "responder")
	if err != nil {
		return nil, err
	}
	var held []int
	release = func() {
		for _, pid := range held {
			_ = syscall.Kill(pid, syscall.SIGCONT) // One that is gone needs no release.
		}
		held = nil
	}
	for i := range pods {
		pid, err := signalPod(&pods[i], syscall.SIGSTOP)
		if err != nil {
			release()
			return nil, err
		}
		held = append(held, pid)
	}
	return release, nil
}

// requester is a live requester's pod other than the one excepted.
func (t *story) requester(ctx context.Context, except types.UID) (*corev1.Pod, error) {
	pods, err := t.pods(ctx, "requester")
	if err != nil {
		return nil, err
	}
	for _, p := range live(pods) {
		if p.UID != except && ready(&p) {
			return &p, nil
		}
	}
	return nil, errors.New("no requester is ready")
}

// deletePod deletes a requester's pod.
func (t *story) deletePod(ctx context.Context) error {
	t.out.step("kubectl delete pod, of the other requester")
	pod, err := t.requester(ctx, t.killed)
	if err != nil {
		return err
	}
	pid, err := processOf(pod)
	if err != nil {
		return err
	}
	queue := pod.Annotations[v1alpha1.AnnotationReplyQueueURL]
	began := time.Now()
	if _, err := t.kubectl(ctx, "delete", "pod", "--namespace", namespace, pod.Name, "--wait=false"); err != nil {
		return err
	}
	var ended, removed time.Time
	if err := t.expect(ctx, "the queue of a deleted pod goes, and so does its record", time.Minute, func() (string, error) {
		// The process first: a queue must not be seen gone before its reader is.
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) && ended.IsZero() {
			ended = time.Now()
		}
		state, err := t.sqs.state(ctx)
		if err != nil {
			return "", err
		}
		if replyQueues(state)[queue] {
			return "the queue is still there", nil
		}
		if removed.IsZero() {
			removed = time.Now()
		}
		if ended.IsZero() {
			return "", t.breach(ctx, "a reply queue is not deleted while its pod's process runs")
		}
		if record, err := t.recordOf(ctx, queue); err != nil || record != nil {
			return "its record is still there", err
		}
		return "", nil
	}); err != nil {
		return err
	}
	const tolerance = 250 * time.Millisecond // of looking at intervals
	if drained := removed.Sub(ended); drained < drainSeconds*time.Second-tolerance {
		return t.breach(ctx, fmt.Sprintf("a queue is kept for the drain of %d s after its process ended; it was gone after %.1f s", drainSeconds, drained.Seconds()))
	}
	last := t.meter.latest(string(pod.UID))
	t.out.kept("its process finished its calls and ended after %.1f s (%d cut off); its queue went %.1f s later: the drain is %d s",
		ended.Sub(began).Seconds(), last.CutOff, removed.Sub(ended).Seconds(), drainSeconds)
	if !last.Final {
		return t.breach(ctx, "a deleted pod's process ends its calls and says its last word; it did not")
	}
	if err := t.eachHasItsOwn(ctx, fewRequesters, 30*time.Second); err != nil {
		return err
	}
	other, err := t.requester(ctx, t.killed)
	if err != nil {
		return err
	}
	t.out.kept("the replacement %s has its own: %s", other.Name, queueName(other.Annotations[v1alpha1.AnnotationReplyQueueURL]))
	return nil
}

// stopRequester freezes a requester's process and thaws it.
func (t *story) stopRequester(ctx context.Context) error {
	t.out.step("SIGSTOP of a requester: it falls silent, but its pod lives")
	pod, err := t.requester(ctx, t.killed)
	if err != nil {
		return err
	}
	queue := pod.Annotations[v1alpha1.AnnotationReplyQueueURL]
	pid, err := signalPod(pod, syscall.SIGSTOP)
	if err != nil {
		return err
	}
	stopped := time.Now()
	t.stopped = pod.UID
	otherBefore := t.meter.latest(string(t.killed)).OK
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	var closing string
	var closed time.Duration
	if err := t.expect(ctx, "the queue of a silent pod is closed as idle", time.Minute, func() (string, error) {
		record, err := t.recordOf(ctx, queue)
		if err != nil {
			return "", err
		}
		if record != nil && record.Status.Closing != nil {
			closing = string(record.Status.Closing.Reason)
		}
		state, err := t.sqs.state(ctx)
		if err != nil {
			return "", err
		}
		if replyQueues(state)[queue] {
			return "the queue is still there", nil
		}
		closed = time.Since(stopped)
		return "", nil
	}); err != nil {
		return err
	}
	// The last heartbeat can have come up to an interval before the stop.
	if least := (idleRetentionSeconds - heartbeatSeconds) * time.Second; closed < least {
		return t.breach(ctx, fmt.Sprintf("a silent pod's queue is kept for %d s; it was gone after %.1f s", idleRetentionSeconds, closed.Seconds()))
	}
	if closing != "" && closing != string(v1alpha1.CloseIdle) {
		return t.breach(ctx, "a silent pod's queue is closed for being idle; the record says "+closing)
	}
	other := t.meter.latest(string(t.killed)).OK - otherBefore
	if least := int64(closed.Seconds()*callsPerSecond) / 2; other < least {
		return t.breach(ctx, fmt.Sprintf("one silent requester does not disturb another; it made %d calls in %.1f s", other, closed.Seconds()))
	}
	t.out.kept("no heartbeat for %d s: its queue was closed as idle %.1f s after the stop; the other requester made %d calls meanwhile",
		idleRetentionSeconds, closed.Seconds(), other)
	if output, err := t.kubectl(ctx, "get", "rph", "--namespace", namespace); err == nil {
		t.out.show("kubectl get rph -n "+namespace, output)
	}

	before := t.meter.latest(string(pod.UID))
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		return err
	}
	woken := time.Now()
	var now line
	if err := t.expect(ctx, "a pod that wakes gets a new queue, and its calls succeed again", 30*time.Second, func() (string, error) {
		now = t.meter.latest(string(pod.UID))
		switch {
		case now.ReplyQueueURL == "" || now.ReplyQueueURL == queue:
			return "it has no new queue", nil
		case now.OK < before.OK+callsPerSecond:
			return fmt.Sprintf("%d calls succeeded since", now.OK-before.OK), nil
		}
		return "", nil
	}); err != nil {
		return err
	}
	t.out.kept("SIGCONT: woken with a new queue, %s;\n%d calls done within %.1f s; %d that the stop had caught ended in an error that says so", queueName(now.ReplyQueueURL), now.OK-before.OK, time.Since(woken).Seconds(), now.Excused)
	return t.eachHasItsOwn(ctx, fewRequesters, 20*time.Second)
}

// killOperator kills the operator while the requesters are scaled up.
func (t *story) killOperator(ctx context.Context) error {
	t.out.step("kill -9 of the operator, while requesters scale from %d to %d", fewRequesters, manyRequesters)
	if err := t.scale(ctx, "requester", manyRequesters); err != nil {
		return err
	}
	t.scaled = time.Now()
	if err := t.expect(ctx, "scaling begins", 20*time.Second, func() (string, error) {
		records, err := t.records(ctx)
		if len(records) <= fewRequesters {
			return "no new record", err
		}
		return "", err
	}); err != nil {
		return err
	}
	t.operator.process().Stop(0)
	state, err := t.sqs.state(ctx)
	if err != nil {
		return err
	}
	records, err := t.records(ctx)
	if err != nil {
		return err
	}
	t.out.say("operator killed %.1f s after the scaling, with %d records written and %d reply queues made",
		time.Since(t.scaled).Seconds(), len(records), len(replyQueues(state)))
	return nil
}

// killResponder kills a responder that has requests in hand, while there is no operator.
func (t *story) killResponder(ctx context.Context) error {
	t.out.step("kill -9 of a responder too, in the middle of calls")
	pods, err := t.pods(ctx, "responder")
	if err != nil {
		return err
	}
	if len(pods) == 0 {
		return errors.New("no responder is there")
	}
	pod := &pods[0]
	before, latencyBefore, began := t.meter.sum(), t.meter.latencies(), time.Now()
	// Held still for a moment it goes on being given requests, and answers none.
	if _, err := signalPod(pod, syscall.SIGSTOP); err != nil {
		return err
	}
	defer func() { _, _ = signalPod(pod, syscall.SIGCONT) }()
	var inHand int64
	if err := t.expect(ctx, "a responder that holds still is given requests", visibilitySeconds*time.Second, func() (string, error) {
		if inHand = t.meter.stuck(began); inHand == 0 {
			return "no call waits for it", nil
		}
		return "", nil
	}); err != nil {
		return err
	}
	if _, err := signalPod(pod, syscall.SIGKILL); err != nil {
		return err
	}
	killed := time.Now()
	t.out.say("killed in the middle of calls (at least %d waited for it); SQS gives what it held to the other after %d s", inHand, visibilitySeconds)
	if err := t.complete(ctx, "responder", 30*time.Second); err != nil {
		return err
	}
	// Every call that it held has been answered by then, or has failed.
	if err := pause(ctx, time.Until(killed.Add((visibilitySeconds+2)*time.Second))); err != nil {
		return err
	}
	after, window := t.meter.sum(), time.Since(began).Seconds()
	rate := float64(after.calls-before.calls) / window
	if least := float64(fewRequesters * callsPerSecond / 2); rate < least {
		return t.breach(ctx, fmt.Sprintf("calls of running pods go on while the operator and a responder are down; there were %.1f a second of %d asked for", rate, fewRequesters*callsPerSecond))
	}
	took := t.meter.latencies().since(latencyBefore)
	t.out.kept("%.0f s without an operator, and with one responder for a while: %d calls, %.1f a second, %d failed", window, after.calls-before.calls, rate, after.failed-before.failed)
	t.out.kept("the calls that it held were answered by the other responder: %d took longer than 1 s, the slowest %.1f s",
		took.slower(1000), took.quantile(1)/1000)
	return nil
}

// restartOperator starts the operator again and checks that it takes up where the old one fell.
func (t *story) restartOperator(ctx context.Context) error {
	t.out.step("The operator is started again")
	began := time.Now()
	if err := t.operator.start(ctx); err != nil {
		return err
	}
	if err := t.eachHasItsOwn(ctx, manyRequesters, 90*time.Second); err != nil {
		return err
	}
	if err := t.oneRecordEach(ctx); err != nil {
		return err
	}
	t.out.kept("it took up where the old one fell: %d requesters run %.1f s after its start, each with a queue of its own,\nand queues and records match one to one (before it reconciles it waits for the old one's leader lease to run out)", manyRequesters, time.Since(began).Seconds())
	if err := t.costs(ctx, 4*time.Second, manyRequesters); err != nil {
		return err
	}
	return t.afterwards(ctx)
}

// oneRecordEach checks that a crash between writing a record and creating its queue left neither without the other.
func (t *story) oneRecordEach(ctx context.Context) error {
	return t.expect(ctx, "records and queues match one to one after a crash", 30*time.Second, func() (string, error) {
		state, err := t.sqs.state(ctx)
		if err != nil {
			return "", err
		}
		records, err := t.records(ctx)
		if err != nil {
			return "", err
		}
		queues := replyQueues(state)
		if len(queues) != manyRequesters || len(records) != manyRequesters {
			return fmt.Sprintf("%d queues and %d records for %d requesters", len(queues), len(records), manyRequesters), nil
		}
		for i := range records {
			if !queues[records[i].Status.QueueURL] {
				return fmt.Sprintf("record %s has no queue", records[i].Name), nil
			}
		}
		return "", nil
	})
}

// afterwards checks what is only known some time after a fault: that only the stopped process's calls were excused,
// and that replies to the killed one were counted and dropped.
func (t *story) afterwards(ctx context.Context) error {
	now := t.meter.sum()
	if mine := t.meter.latest(string(t.stopped)).Excused; now.excused != mine {
		return t.breach(ctx, fmt.Sprintf("only calls of the process that was stopped are excused; %d of others were", now.excused-mine))
	}
	var dropped int64
	if err := t.expect(ctx, "late replies to a killed process are counted and dropped", 45*time.Second, func() (string, error) {
		if dropped = t.meter.latest(string(t.killed)).Foreign; dropped == 0 {
			return "none was counted", nil
		}
		return "", nil
	}); err != nil {
		return err
	}
	t.out.kept("meanwhile %d late replies to the requester killed before were dropped and counted, none was delivered", dropped)
	return nil
}
