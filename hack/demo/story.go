package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// story is the demo in parts that each check what they promise.
type story struct {
	*stage
	meter *meter
	// died counts the calls that were under way in processes that the story killed.
	died int64
	// stopped is the one pod whose calls may be excused, for its process was stopped.
	stopped types.UID
	// scaled is when the requesters were scaled up.
	scaled time.Time
	// killed is the requester whose process was killed, to see later what became of replies to it.
	killed types.UID
}

// tell tells the whole story. An error is a promise that broke, or ctx's end.
func tell(ctx context.Context, s *stage) error {
	t := &story{stage: s, meter: newMeter(filepath.Join(s.dir, "node", "logs"))}
	reading, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.meter.run(reading)
	}()
	defer func() {
		stop()
		<-done
	}()
	for _, part := range []func(context.Context) error{
		t.begin, t.measure, t.killRequester, t.deletePod, t.stopRequester, t.killOperator, t.killResponder, t.restartOperator, t.end,
	} {
		if err := part(ctx); err != nil {
			return err
		}
		if err := t.healthy(ctx); err != nil {
			return err
		}
	}
	return t.conclude(ctx)
}

// healthy checks what holds at every moment: no call failed, and none was answered wrongly.
func (t *story) healthy(ctx context.Context) error {
	now := t.meter.sum()
	switch {
	case now.wrong > 0:
		return t.breach(ctx, fmt.Sprintf("no call gets another call's reply; %d did", now.wrong))
	case now.failed > 0:
		return t.breach(ctx, fmt.Sprintf("calls of running pods succeed; %d failed (%s)", now.failed, words(now.failures)))
	}
	return nil
}

// begin applies the samples and waits until calls are made.
func (t *story) begin(ctx context.Context) error {
	t.out.step("A team deploys: a request channel, a reply host, %d responders, %d requesters", 2, fewRequesters)
	overlay, err := t.writeSamples()
	if err != nil {
		return err
	}
	gates, err := t.watchGates(ctx)
	if err != nil {
		return err
	}
	defer gates.stop()
	began := time.Now()
	if _, err := t.kubectl(ctx, "apply", "--server-side", "-k", overlay); err != nil {
		return err
	}
	t.out.say("kubectl apply -k config/samples, with times short enough to watch: a heartbeat every %d s, an idle queue kept", heartbeatSeconds)
	t.out.say("for %d s, a drain of %d s. The pods' templates name no queue and no address:", idleRetentionSeconds, drainSeconds)
	t.out.say("  requester  label replyqueue.dev/inject: \"true\", annotations replyqueue.dev/calls: sum, replyqueue.dev/reply-host: web")
	t.out.say("  responder  label replyqueue.dev/inject: \"true\", annotation  replyqueue.dev/serves: sum")

	var pods []corev1.Pod
	err = t.expect(ctx, "pods start once their queues exist", time.Minute, func() (string, error) {
		if pods, err = t.pods(ctx, ""); err != nil {
			return "", err
		}
		for i := range pods {
			if !ready(&pods[i]) {
				return fmt.Sprintf("pod %s is not ready (%s)", pods[i].Name, why(&pods[i])), nil
			}
		}
		if len(pods) != 2+fewRequesters {
			return fmt.Sprintf("%d pods of %d", len(pods), 2+fewRequesters), nil
		}
		return "", nil
	})
	if err != nil {
		return err
	}
	if err := t.expect(ctx, "the RequestChannel becomes Ready", 30*time.Second, func() (string, error) {
		return t.isReady(ctx, &v1alpha1.RequestChannel{}, "sum")
	}); err != nil {
		return err
	}
	if err := t.expect(ctx, "the ReplyHost becomes Ready", 30*time.Second, func() (string, error) {
		return t.isReady(ctx, &v1alpha1.ReplyHost{}, "web")
	}); err != nil {
		return err
	}
	if err := t.eachHasItsOwn(ctx, fewRequesters, 30*time.Second); err != nil {
		return err
	}
	t.out.kept("channel and host are Ready, and every pod runs, %.1f s after kubectl apply", time.Since(began).Seconds())
	if n := gates.stop(); n == len(pods) {
		t.out.kept("each of the %d pods was held by the scheduling gate %s until its queues existed", n, v1alpha1.SchedulingGate)
	} else {
		return t.breach(ctx, fmt.Sprintf("pods are held until their queues exist; %d of %d were", n, len(pods)))
	}
	output, err := t.kubectl(ctx, "get", "rch,rph,rq,pods", "--namespace", namespace)
	if err != nil {
		return err
	}
	t.out.show("kubectl get rch,rph,rq,pods -n "+namespace, output)
	return t.showAddress(ctx)
}

// why says in a word why a pod does not run.
func why(pod *corev1.Pod) string {
	switch {
	case gated(pod) && pod.Annotations[v1alpha1.AnnotationWaitingFor] != "":
		return "gated, waiting for " + pod.Annotations[v1alpha1.AnnotationWaitingFor]
	case gated(pod):
		return "gated"
	}
	for _, c := range pod.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			return w.Reason + ": " + w.Message
		}
	}
	return string(pod.Status.Phase)
}

// eachHasItsOwn waits until n requesters run, each reading a reply queue of its own: the one that its pod's
// annotation names, that SQS has, and that one record stands for.
func (t *story) eachHasItsOwn(ctx context.Context, n int, limit time.Duration) error {
	return t.expect(ctx, fmt.Sprintf("each of %d requesters has a reply queue of its own", n), limit, func() (string, error) {
		pods, err := t.pods(ctx, "requester")
		if err != nil {
			return "", err
		}
		if pods = live(pods); len(pods) != n {
			return fmt.Sprintf("%d requesters exist", len(pods)), nil
		}
		state, err := t.sqs.state(ctx)
		if err != nil {
			return "", err
		}
		exists, reader := replyQueues(state), map[string]string{}
		for i := range pods {
			p := &pods[i]
			url := p.Annotations[v1alpha1.AnnotationReplyQueueURL]
			switch said := t.meter.latest(string(p.UID)); {
			case !ready(p):
				return fmt.Sprintf("pod %s is not ready (%s)", p.Name, why(p)), nil
			case url == "":
				return fmt.Sprintf("pod %s has no address", p.Name), nil
			case reader[url] != "":
				return "", t.breach(ctx, fmt.Sprintf("no two pods share a reply queue; %s and %s share %s", reader[url], p.Name, url))
			case !exists[url]:
				return fmt.Sprintf("SQS has no queue %s", url), nil
			case said.ReplyQueueURL != url:
				return fmt.Sprintf("the process of %s reads %q, and its pod's annotation says %s", p.Name, said.ReplyQueueURL, url), nil
			case said.OK == 0:
				return fmt.Sprintf("no call of %s has succeeded", p.Name), nil
			}
			reader[url] = p.Name
		}
		return "", nil
	})
}

// showAddress shows what one requester was given.
func (t *story) showAddress(ctx context.Context) error {
	pods, err := t.pods(ctx, "requester")
	if err != nil {
		return err
	}
	p := &pods[0]
	said := t.meter.latest(string(p.UID))
	t.out.say("what the process of %s was given, and uses:", p.Name)
	t.out.say("  REPLYQUEUE_REPLY_QUEUE_URL=%s", said.ReplyQueueURL)
	t.out.kept("addresses arrived in the processes before their first line of code: each reads the queue that its pod's annotation names")
	return nil
}

// measure lets calls run undisturbed.
func (t *story) measure(ctx context.Context) error {
	const window = 8 * time.Second
	t.out.step("Undisturbed for %.0f s: what a call costs", window.Seconds())
	return t.costs(ctx, window, fewRequesters)
}

// costs measures and prints what calls do in a window of time in which nothing happens to them.
func (t *story) costs(ctx context.Context, window time.Duration, requesters int) error {
	before, latencyBefore, began := t.meter.sum(), t.meter.latencies(), time.Now()
	stateBefore, err := t.sqs.state(ctx)
	if err != nil {
		return err
	}
	if err := pause(ctx, window); err != nil {
		return err
	}
	after, took, lasted := t.meter.sum(), t.meter.latencies().since(latencyBefore), time.Since(began)
	stateAfter, err := t.sqs.state(ctx)
	if err != nil {
		return err
	}
	calls := after.calls - before.calls
	if calls == 0 {
		return t.breach(ctx, "requesters call all the time; none did")
	}
	t.out.number("calls per second", "%.1f  (%d requesters, %d asked of each)", float64(calls)/lasted.Seconds(), requesters, callsPerSecond)
	t.out.number("latency p50, p99, slowest", "%.1f ms, %.1f ms, %.1f ms", took.quantile(0.5), took.quantile(0.99), took.quantile(1))
	t.out.number("SQS requests per call, both sides", "%.2f  (what comes at the same time shares requests)",
		float64(requests(stateAfter)-requests(stateBefore))/float64(calls))
	t.out.kept("%d calls: %d failed, %d wrong", calls, after.failed-before.failed, after.wrong-before.wrong)
	return nil
}

// pause waits, or returns ctx's cause.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// end removes everything and proves that nothing is left.
func (t *story) end(ctx context.Context) error {
	t.out.step("The team leaves: everything is scaled to 0, the namespace is deleted")
	records, err := t.records(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := t.scale(ctx, "requester", 0); err != nil {
		return err
	}
	if err := t.expect(ctx, "reply queues go when their pods are gone", time.Minute, func() (string, error) {
		return t.leftovers(ctx)
	}); err != nil {
		return err
	}
	if unfinished := t.meter.sum().pending - t.died; unfinished > 0 {
		return t.breach(ctx, fmt.Sprintf("a requester that is asked to end finishes its calls first; %d had not ended", unfinished))
	}
	t.out.kept("%d requesters gone, their calls ended first; all %d reply queues, records and Leases gone %.1f s after the scale-down",
		manyRequesters, len(records), time.Since(began).Seconds())

	if err := t.scale(ctx, "responder", 0); err != nil {
		return err
	}
	if err := t.expect(ctx, "responders end when they are asked to", time.Minute, func() (string, error) {
		pods, err := t.pods(ctx, "")
		if len(pods) > 0 {
			return fmt.Sprintf("%d pods are left", len(pods)), nil
		}
		return "", err
	}); err != nil {
		return err
	}
	began = time.Now()
	if _, err := t.kubectl(ctx, "delete", "namespace", namespace, "--wait=false"); err != nil {
		return err
	}
	if err := t.expect(ctx, "a deleted namespace takes its queues with it", time.Minute, func() (string, error) {
		if gone, err := t.gone(ctx, &corev1.Namespace{}, types.NamespacedName{Name: namespace}); err != nil || !gone {
			return "the namespace is still there", err
		}
		state, err := t.sqs.state(ctx)
		if err != nil {
			return "", err
		}
		if queues := left(state); len(queues) > 0 {
			return fmt.Sprintf("%d queues are left, %s first", len(queues), queues[0].Name), nil
		}
		return t.leftovers(ctx)
	}); err != nil {
		return err
	}
	t.out.kept("namespace, request queue and dead-letter queue gone after %.1f s", time.Since(began).Seconds())
	state, err := t.sqs.state(ctx)
	if err != nil {
		return err
	}
	leases, err := t.heartbeats(ctx)
	if err != nil {
		return err
	}
	if records, err = t.records(ctx); err != nil {
		return err
	}
	t.out.number("queues left in SQS", "%d, but for %d by which the cluster is told from copies of it", len(left(state)), len(state.Queues)-len(left(state)))
	t.out.number("ReplyQueue records left", "%d", len(records))
	t.out.number("heartbeat Leases left", "%d", leases)
	return nil
}

// leftovers says what there still is of reply queues.
func (t *story) leftovers(ctx context.Context) (string, error) {
	state, err := t.sqs.state(ctx)
	if err != nil {
		return "", err
	}
	records, err := t.records(ctx)
	if err != nil {
		return "", err
	}
	leases, err := t.heartbeats(ctx)
	if err != nil {
		return "", err
	}
	if queues := len(replyQueues(state)); queues+len(records)+leases > 0 {
		return fmt.Sprintf("%d reply queues, %d records and %d Leases are left", queues, len(records), leases), nil
	}
	return "", nil
}

// conclude prints the last line.
func (t *story) conclude(ctx context.Context) error {
	state, err := t.sqs.state(ctx)
	if err != nil {
		return err
	}
	all := t.meter.sum()
	ended := all.ok + all.failed + all.wrong
	if ended == 0 {
		return t.breach(ctx, "requesters call; none did")
	}
	t.out.step("The sum")
	t.out.number("calls that ended in their own reply", "%d", all.ok)
	t.out.number("ended with their own process", "%d stopped, %d shut down, %d killed  (counted apart)", all.excused, all.cutOff, t.died)
	t.out.number("late replies, not delivered", "%d to processes that were gone, %d to calls that had ended", all.foreign, all.late)
	t.out.number("SQS requests", "%d in all, the operator's %d for queues among them", requests(state), controlRequests(state.Requests))
	t.out.line("")
	t.out.line("DEMO OK calls=%d failed=%d wrong=%d reply_queues_peak=%d queues_left=%d sqs_requests_per_call=%.2f",
		ended, all.failed, all.wrong, t.sqs.peakReplyQueues(), len(left(state)), float64(requests(state))/float64(ended))
	return nil
}

// controlRequests counts the requests about queues rather than messages.
func controlRequests(byAction map[string]int) (n int) {
	for _, action := range []string{
		"CreateQueue", "DeleteQueue", "GetQueueUrl", "GetQueueAttributes", "SetQueueAttributes", "ListQueues", "ListQueueTags",
		"TagQueue", "UntagQueue", "ListDeadLetterSourceQueues", "PurgeQueue", "AddPermission", "RemovePermission",
	} {
		n += byAction[action]
	}
	return n
}

// complete waits until a Deployment has all its replicas again.
func (t *story) complete(ctx context.Context, deployment string, limit time.Duration) error {
	return t.expect(ctx, "Deployment "+deployment+" is complete again", limit, func() (string, error) {
		var d appsv1.Deployment
		if err := t.kube.Get(ctx, types.NamespacedName{Namespace: namespace, Name: deployment}, &d); err != nil {
			return "", err
		}
		if d.Status.ReadyReplicas != *d.Spec.Replicas {
			return fmt.Sprintf("%d of %d replicas are ready", d.Status.ReadyReplicas, *d.Spec.Replicas), nil
		}
		return "", nil
	})
}
