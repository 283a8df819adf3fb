package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// writing are the actions by which the operator changes queues.
var writing = []string{"CreateQueue", "DeleteQueue", "SetQueueAttributes", "TagQueue", "UntagQueue"}

// aboutChannels leaves out the operator's housekeeping, which it does by the clock and once for each provider, whatever
// channels there are: the marker queue by which it proves that it is not a copy's (internal/fence), and lists.
func aboutChannels(r *sqstest.Request) bool {
	return r.Action != "ListQueues" && !strings.HasSuffix(r.Queue, "_identity")
}

// housekeeping is that.
func housekeeping(r *sqstest.Request) bool { return !aboutChannels(r) }

// namespaces are what channels are spread over, as a cluster's are over its teams.
const namespaces = 20

// round is what applying some channels at once came to.
type round struct {
	name                   string
	n, ready, requests     int
	byAction               map[string]int
	applied, all           time.Duration
	reconciles, kubeWrites float64
	resident, heap         float64 // bytes
}

// String is the round in a line.
func (r round) String() string {
	return fmt.Sprintf("%s n=%d ready=%d sqs_requests_per_channel=%s (%s) applied_in=%.1fs ready_in=%.1fs reconciles_per_channel=%.2f api_writes_per_channel=%.2f resident_mb=%.0f heap_mb=%.0f",
		r.name, r.n, r.ready, perChannel(r.requests, r.n), told(r.byAction), r.applied.Seconds(), r.all.Seconds(),
		r.reconciles/float64(r.n), r.kubeWrites/float64(r.n), r.resident/1e6, r.heap/1e6)
}

// perChannel is a quotient, exact where it is whole.
func perChannel(requests, n int) string {
	return strconv.FormatFloat(float64(requests)/float64(max(1, n)), 'f', -1, 64)
}

func told(byAction map[string]int) string {
	var all []string
	for _, action := range slices.Sorted(maps.Keys(byAction)) {
		all = append(all, fmt.Sprintf("%s %d", action, byAction[action]))
	}
	return strings.Join(all, ", ")
}

// apply creates n channels at once and waits until all are Ready.
func (w *world) apply(ctx context.Context, name string, n int, deadLetter bool, limit time.Duration) (round, error) {
	r := round{name: name, n: n}
	for i := range namespaces {
		if err := w.namespace(ctx, fmt.Sprintf("%s-%d", name, i)); err != nil {
			return r, err
		}
	}
	before, err := w.figures(ctx)
	if err != nil {
		return r, err
	}
	w.sqs.ResetRequests()
	began := time.Now()
	if err := w.create(ctx, name, n, deadLetter); err != nil {
		return r, err
	}
	r.applied = time.Since(began)
	mine := client.MatchingLabels{"bench": name}
	err = poll(ctx, limit, func() (bool, error) {
		var err error
		r.ready, err = w.ready(ctx, mine)
		return r.ready == n, err
	})
	r.all = time.Since(began)
	if err != nil {
		return r, fmt.Errorf("%s: %d of %d Ready after %s: %w", name, r.ready, n, r.all.Round(time.Second), err)
	}
	// Whatever still is on its way when the last becomes Ready counts too.
	if err := w.rest(ctx, limit); err != nil {
		return r, err
	}
	after, err := w.figures(ctx)
	if err != nil {
		return r, err
	}
	r.requests, r.byAction = w.sqs.Requests(aboutChannels), w.sqs.RequestsByAction(aboutChannels)
	r.reconciles, r.kubeWrites = after.reconciles-before.reconciles, after.kubeWrites-before.kubeWrites
	r.resident, r.heap = after.resident, after.heap
	return r, nil
}

// create creates n channels, 32 requests at a time.
func (w *world) create(ctx context.Context, name string, n int, deadLetter bool) error {
	var next atomic.Int64
	var creators sync.WaitGroup
	failed := make(chan error, 32)
	for range cap(failed) {
		creators.Go(func() {
			for i := int(next.Add(1)); i <= n; i = int(next.Add(1)) {
				c := &v1alpha1.RequestChannel{ObjectMeta: metav1.ObjectMeta{
					Namespace: fmt.Sprintf("%s-%d", name, i%namespaces), Name: fmt.Sprintf("c-%d", i), Labels: map[string]string{"bench": name},
				}}
				c.Spec.Queue = &v1alpha1.QueueAttributes{VisibilityTimeoutSeconds: ptr.To[int32](45)}
				c.Spec.Tags = v1alpha1.Tags{"team": "bench"}
				if deadLetter {
					c.Spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 5, Queue: &v1alpha1.DeadLetterQueue{}}
				}
				if err := w.kube.Create(ctx, c); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	creators.Wait()
	close(failed)
	return <-failed
}

// ready counts channels that are Ready.
func (w *world) ready(ctx context.Context, options ...client.ListOption) (int, error) {
	var list v1alpha1.RequestChannelList
	if err := w.kube.List(ctx, &list, options...); err != nil {
		return 0, err
	}
	n := 0
	for i := range list.Items {
		if meta.IsStatusConditionTrue(list.Items[i].Status.Conditions, v1alpha1.ConditionReady) {
			n++
		}
	}
	return n, nil
}

// rest waits until no channel waits for a worker, nor is being worked on.
func (w *world) rest(ctx context.Context, limit time.Duration) error {
	return poll(ctx, limit, func() (bool, error) {
		f, err := w.figures(ctx)
		return f.busy == 0, err
	})
}

// restarted is what a restart of the operator came to.
type restarted struct {
	took                 time.Duration
	byAction             map[string]int
	sqsWrites, changed   int
	housekeeping         int
	kubeWrites           float64
	reconciles, resident float64
}

func (r restarted) writes() int { return r.sqsWrites + r.changed + int(r.kubeWrites) }

// String is the restart in a line.
func (r restarted) String() string {
	return fmt.Sprintf("restart looked_at_all_in=%.1fs sqs_writes=%d sqs_requests=(%s) housekeeping_requests=%d api_writes=%.0f objects_changed=%d reconciles=%.0f resident_mb=%.0f",
		r.took.Seconds(), r.sqsWrites, told(r.byAction), r.housekeeping, r.kubeWrites, r.changed, r.reconciles, r.resident/1e6)
}

// restart stops the operator, starts it again, and waits until it has looked at all channels.
func (w *world) restart(ctx context.Context, channels int, limit time.Duration) (restarted, error) {
	var r restarted
	if err := w.stopOperator(); err != nil {
		return r, err
	}
	before, err := w.versions(ctx)
	if err != nil {
		return r, err
	}
	writesBefore, err := w.kubeWrites(ctx)
	if err != nil {
		return r, err
	}
	w.sqs.ResetRequests()
	began := time.Now()
	if err := w.startOperator(ctx); err != nil {
		return r, err
	}
	var f figures
	err = poll(ctx, limit, func() (bool, error) {
		f, err = w.figures(ctx)
		return f.reconciles >= float64(channels) && f.busy == 0, err
	})
	if err != nil {
		return r, fmt.Errorf("after the restart: %.0f of %d channels looked at: %w", f.reconciles, channels, err)
	}
	r.took, r.reconciles, r.resident = time.Since(began), f.reconciles, f.resident
	r.byAction, r.housekeeping = w.sqs.RequestsByAction(aboutChannels), w.sqs.Requests(housekeeping)
	for _, action := range writing {
		r.sqsWrites += r.byAction[action]
	}
	r.kubeWrites = f.kubeWrites - writesBefore
	after, err := w.versions(ctx)
	if err != nil {
		return r, err
	}
	for name, version := range before {
		if after[name] != version {
			r.changed++
		}
	}
	return r, nil
}

// versions are the resource versions of all channels.
func (w *world) versions(ctx context.Context) (map[string]string, error) {
	var list v1alpha1.RequestChannelList
	if err := w.kube.List(ctx, &list); err != nil {
		return nil, err
	}
	all := map[string]string{}
	for i := range list.Items {
		all[client.ObjectKeyFromObject(&list.Items[i]).String()] = list.Items[i].ResourceVersion
	}
	return all, nil
}

// figures are what the operator and the API server have counted.
type figures struct {
	reconciles, busy, resident, heap float64
	// kubeWrites are requests that write objects of our kinds, from anybody but the bench.
	kubeWrites float64
}

func (w *world) figures(ctx context.Context) (figures, error) {
	var f figures
	text, err := get(ctx, "http://"+w.metrics+"/metrics")
	if err != nil {
		return f, fmt.Errorf("metrics of the operator: %w", err)
	}
	for name, value := range samples(text) {
		switch {
		case strings.HasPrefix(name, `controller_runtime_reconcile_total{controller="requestchannel",`):
			f.reconciles += value
		case strings.HasPrefix(name, `controller_runtime_active_workers{controller="requestchannel`), strings.HasPrefix(name, "workqueue_depth{") && strings.Contains(name, `"requestchannel`):
			f.busy += value
		case name == "process_resident_memory_bytes":
			f.resident = value
		case name == "go_memstats_heap_inuse_bytes":
			f.heap = value
		}
	}
	f.kubeWrites, err = w.kubeWrites(ctx)
	return f, err
}

// kubeWrites is how many patches, updates and deletions of our kinds the API server has answered. The bench only
// creates.
func (w *world) kubeWrites(ctx context.Context) (float64, error) {
	text, err := w.clients.Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return 0, fmt.Errorf("metrics of the API server: %w", err)
	}
	total := 0.0
	for name, value := range samples(string(text)) {
		if !strings.HasPrefix(name, "apiserver_request_total{") || !strings.Contains(name, `group="`+v1alpha1.GroupVersion.Group+`"`) {
			continue
		}
		for _, verb := range []string{"APPLY", "DELETE", "DELETECOLLECTION", "PATCH", "PUT"} {
			if strings.Contains(name, `verb="`+verb+`"`) {
				total += value
			}
		}
	}
	return total, nil
}

// samples are the values of a metrics page, by name and labels.
func samples(text string) map[string]float64 {
	all := map[string]float64{}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		end := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || end < 0 {
			continue
		}
		if value, err := strconv.ParseFloat(line[end+1:], 64); err == nil {
			all[line[:end]] = value
		}
	}
	return all
}

func get(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, answer.Status)
	}
	return string(text), err
}
