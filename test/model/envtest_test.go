package model

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// samples is how many scripts there are for a real API server. Together they hold every kind of action that one can play.
const samples = 15

var played = flag.Int("samples", 2, "how many of the sample scripts are put to a real API server")

// unplayable are the kinds of action that need an API server's memory.
var unplayable = []string{"etcd is set back", "cluster is copied", "cluster is copied, and the marker removed",
	"cluster is copied, and shown the marker late", "cluster is copied while the nonce stands still"}

// TestSamplesHoldEveryAction says that nothing is left out of what is compared with a real API server.
func TestSamplesHoldEveryAction(t *testing.T) {
	seen := map[string]bool{}
	for n := range samples {
		for _, m := range record(n) {
			if m.played {
				seen[actions[m.action].name] = true
			}
		}
	}
	for _, a := range actions {
		if !seen[a.name] && !slices.Contains(unplayable, a.name) {
			t.Errorf("no script plays %q", a.name)
		}
	}
}

// TestScriptsOnAnAPIServer plays a sample of scripts on a real API server, and then on the one in memory with the same UIDs.
// It expects the same calls and events to come of each action, and the same to be seen after it: pods and their gates, records
// and their states, Leases, queues.
func TestScriptsOnAnAPIServer(t *testing.T) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		t.Fatal("KUBEBUILDER_ASSETS is not set: run `make test`, or `make controlplane` and name its folder")
	}
	environment := &envtest.Environment{CRDDirectoryPaths: []string{"../../config/crd/bases"}, ErrorIfCRDPathMissing: true}
	config, err := environment.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := environment.Stop(); err != nil {
			t.Error(err)
		}
	}()
	config.QPS, config.Burst = 5000, 5000
	server, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{v1alpha1.HeartbeatNamespace, identity.Namespace} {
		if err := server.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	for n := range *played {
		namespace := fmt.Sprintf("shop-%d", n)
		if err := server.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
			t.Fatal(err)
		}
		script := record(n)
		actual := newWorldOn(mutant{}, server, namespace)
		want := actual.play(script)
		compare(t, n, script, want, newWorldOfUIDs(mutant{}, namespace, actual.cluster.created).play(script))
		if err := tidy(server, namespace); err != nil {
			t.Fatal(err)
		}
	}
}

// tried is a move of a sample, and whether it came to what its name says.
type tried struct {
	move
	played bool
}

// record makes a script on the API server in memory. Each script is about some kinds of action, and ends when it has played
// them.
func record(n int) (script []tried) {
	w := newWorld(mutant{})
	defer w.close()
	w.alone = true
	w.setUp(1)
	random := rand.New(rand.NewPCG(uint64(n), 22))
	author := newPlaywright(random)
	author.wishes = nil
	about := (len(actions) + samples - 1) / samples // Those that belong together stand together.
	for i := max(0, n*about-2); i < min(len(actions), (n+1)*about); i++ {
		if !slices.Contains(unplayable, actions[i].name) {
			author.wishes = append(author.wishes, i)
		}
	}
	wanted := map[int]bool{}
	for _, i := range author.wishes {
		wanted[i] = true
	}
	for len(script) < 60 && len(wanted) > 0 && w.violation == nil {
		m, played := author.next(w)
		if played {
			delete(wanted, m.action)
		}
		script = append(script, tried{m, played})
	}
	return script
}

// scene is one action of a script as it was played: the calls and events that it came to, whether it came to what its name
// says, what was to be seen after it, and the promise that was broken; nil: none.
type scene struct {
	lines   []string
	played  bool
	summary string
	broken  *violation
}

// play plays a script to its end, or to the first promise that is broken, and ends the world. The first scene is what it
// begins with.
func (w *world) play(script []tried) (scenes []scene) {
	defer w.close()
	w.alone = true
	var lines []string
	w.say = func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	w.setUp(1)
	scenes = append(scenes, scene{lines: lines, played: true, summary: w.summary()})
	for _, m := range script {
		lines = nil
		played := actions[m.action].do(w, m.arg)
		scenes = append(scenes, scene{lines: lines, played: played, summary: w.summary()})
		if w.violation != nil {
			scenes[len(scenes)-1].broken = w.violation
			break
		}
	}
	return scenes
}

// compare expects a script to have come to the same on the two API servers, and says where it did not.
func compare(t *testing.T, n int, script []tried, actual, memory []scene) {
	t.Helper()
	calls := 0
	for i := range actual {
		when := "the start"
		if i > 0 {
			when = fmt.Sprintf("action %d, %s", i, actions[script[i-1].action].name)
		}
		if i == len(memory) {
			t.Errorf("script %d ends before %s in memory", n, when)
			return
		}
		for j, line := range actual[i].lines {
			if j < len(memory[i].lines) && line == memory[i].lines[j] {
				continue
			}
			last := max(0, j-10)
			t.Errorf("script %d, at %s:\n  %s\n--- on the API server\n  %s\n--- in memory\n  %s", n, when, strings.Join(actual[i].lines[last:j], "\n  "),
				strings.Join(actual[i].lines[j:min(j+10, len(actual[i].lines))], "\n  "), strings.Join(memory[i].lines[min(j, len(memory[i].lines)):min(j+10, len(memory[i].lines))], "\n  "))
			return
		}
		calls += len(actual[i].lines)
		switch {
		case len(memory[i].lines) != len(actual[i].lines):
			t.Errorf("script %d, at %s: in memory goes on by:\n  %s", n, when, strings.Join(memory[i].lines[len(actual[i].lines):], "\n  "))
			return
		case actual[i].played != memory[i].played:
			t.Errorf("script %d: %s, is possible: %t on the API server, %t in memory", n, when, actual[i].played, memory[i].played)
			return
		case actual[i].broken != nil || memory[i].broken != nil:
			t.Errorf("script %d, at %s: on the API server %v, in memory %v", n, when, actual[i].broken, memory[i].broken)
			return
		case actual[i].summary != memory[i].summary:
			t.Errorf("script %d, after %s:\n--- on the API server\n%s--- in memory\n%s", n, when, actual[i].summary, memory[i].summary)
			return
		}
	}
	t.Logf("script %d: %d actions, which came to %d events, calls and ticks", n, len(actual)-1, calls)
}

// summary is everything that can be seen from outside, with UIDs replaced by the order in which they came. By how many calls
// that came is not: sweeps take queues in the order of their names, which are UIDs.
func (w *world) summary() string {
	var b strings.Builder
	name := map[string]string{}
	for i, p := range w.pods {
		name[p.uid] = fmt.Sprintf("pod%d", i)
	}
	recordName := func(uid types.UID) string { return fmt.Sprintf("record%d", w.cluster.birth[uid]) }
	for _, p := range w.pods {
		if o := w.object(p); o != nil {
			fmt.Fprintf(&b, "%s %s gates=%d node=%t deleting=%t phase=%s told=%t label=%t\n", name[p.uid], p.name, len(o.Spec.SchedulingGates),
				o.Spec.NodeName != "", o.DeletionTimestamp != nil, strings.TrimPrefix(string(o.Status.Phase), "Pending"),
				o.Annotations[v1alpha1.AnnotationReplyQueueURL] != "", o.Labels[v1alpha1.LabelInject] != "")
		}
		l, ok := w.cluster.now[leases][types.NamespacedName{Namespace: v1alpha1.HeartbeatNamespace, Name: p.uid}].(*coordinationv1.Lease)
		if ok {
			fmt.Fprintf(&b, "  Lease state=%s every=%s url=%t\n", l.Annotations[injected.LeaseState], l.Annotations[injected.LeaseIntervalSeconds], l.Annotations[injected.LeaseReplyQueueURL] != "")
		}
	}
	each(w.cluster, records, func(r *v1alpha1.ReplyQueue) {
		fmt.Fprintf(&b, "%s of %s state=%s url=%t deleting=%t reader=%s", recordName(r.UID), r.Spec.PodRef.Name, r.Status.State, r.Status.QueueURL != "", r.DeletionTimestamp != nil, name[string(readerOf(r))])
		if r.Status.Closing != nil {
			fmt.Fprintf(&b, " closing=%s", r.Status.Closing.Reason)
		}
		b.WriteString("\n")
	})
	each(w.cluster, hosts, func(h *v1alpha1.ReplyHost) {
		fmt.Fprintf(&b, "ReplyHost %s deleting=%t finalizers=%d\n", h.Name, h.DeletionTimestamp != nil, len(h.Finalizers))
	})
	fmt.Fprintf(&b, "%d queues\n", len(w.queues))
	return b.String()
}

// tidy removes what a world left on a real API server.
func tidy(c client.Client, namespace string) error {
	var all v1alpha1.ReplyQueueList
	var rules v1alpha1.ReplyHostList
	var errs []error
	errs = append(errs, c.List(ctx, &all, client.InNamespace(namespace)), c.List(ctx, &rules, client.InNamespace(namespace)))
	release := func(o client.Object) {
		before := o.DeepCopyObject().(client.Object)
		o.SetFinalizers(nil)
		errs = append(errs, client.IgnoreNotFound(c.Patch(ctx, o, client.MergeFrom(before))), client.IgnoreNotFound(c.Delete(ctx, o)))
	}
	for i := range all.Items {
		release(&all.Items[i])
	}
	for i := range rules.Items {
		release(&rules.Items[i])
	}
	errs = append(errs,
		c.DeleteAllOf(ctx, &corev1.Pod{}, client.InNamespace(namespace), client.GracePeriodSeconds(0)),
		c.DeleteAllOf(ctx, &coordinationv1.Lease{}, client.InNamespace(v1alpha1.HeartbeatNamespace)),
		c.DeleteAllOf(ctx, &corev1.ConfigMap{}, client.InNamespace(identity.Namespace), client.MatchingFields{"metadata.name": identity.Name}))
	return errors.Join(errs...)
}
