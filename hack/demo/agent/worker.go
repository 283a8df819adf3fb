package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/replyqueue/replyqueue/hack/demo/process"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

const (
	// retryPause is the time before something that needs the API server is tried again.
	retryPause = time.Second
	// requestLimit bounds one request to the API server, so that a silent one holds nothing up for long.
	requestLimit = 5 * time.Second
	// forcedGrace is what containers get whose pod was removed without waiting (the kubelet's is 1 s too).
	forcedGrace = time.Second
)

// worker runs one pod, from the moment it is bound to this node until its object is gone. Its goroutine
// owns everything but the fields under mu.
type worker struct {
	agent   *Agent
	log     *slog.Logger
	all     []*container
	volumes volumes
	exits   chan *container

	mu      sync.Mutex
	pod     *corev1.Pod
	changed chan struct{} // holds one token after a new pod was set
	removed chan struct{} // closed when the pod's object is gone
	gone    bool

	began   time.Time
	mounted bool              // the volumes are written
	said    *corev1.PodStatus // the latest status, and whether the API server has yet to take it
	unsaid  bool
	left    bool // the API server was told to remove the pod
}

func newWorker(a *Agent, pod *corev1.Pod) *worker {
	all := containersOf(pod)
	return &worker{
		agent: a, log: a.config.Log.With("namespace", pod.Namespace, "pod", pod.Name), all: all, pod: pod, began: time.Now(),
		volumes: volumes{agent: a, dir: filepath.Join(a.config.Dir, "pods", string(pod.UID))},
		exits:   make(chan *container, len(all)), changed: make(chan struct{}, 1), removed: make(chan struct{}),
	}
}

func (w *worker) update(pod *corev1.Pod) {
	w.mu.Lock()
	w.pod = pod
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

func (w *worker) remove() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.gone {
		w.gone = true
		close(w.removed)
	}
}

func (w *worker) current() *corev1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pod
}

// run blocks until the pod's object is gone, or ctx ends; both leave no process running.
func (w *worker) run(ctx context.Context) {
	defer w.cleanUp()
	for {
		pod := w.current()
		if pod.DeletionTimestamp != nil {
			w.end(pod)
			if w.leave(ctx, pod) {
				return
			}
		} else {
			w.progress(ctx, pod)
			w.post(ctx, pod, false)
		}
		if !w.wait(ctx, pod) {
			return
		}
	}
}

// wait blocks until there may be something to do. It returns false when the worker is to stop.
func (w *worker) wait(ctx context.Context, pod *corev1.Pod) bool {
	var alarm <-chan time.Time
	if at := w.next(pod); !at.IsZero() {
		t := time.NewTimer(time.Until(at))
		defer t.Stop()
		alarm = t.C
	}
	select {
	case c := <-w.exits:
		w.exited(c)
	case <-w.changed:
	case <-alarm:
	case <-w.removed:
		w.kill(forcedGrace) // Nothing runs any more, unless the pod was deleted by force.
		return false
	case <-ctx.Done():
		return false
	}
	return true
}

// next is when something is due without anything happening; zero: never.
func (w *worker) next(pod *corev1.Pod) time.Time {
	var at time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	ending := pod.DeletionTimestamp != nil
	if w.unsaid || (ending && !w.left) {
		sooner(time.Now().Add(retryPause)) // The API server did not take what it was told.
	}
	if ending {
		return at
	}
	sooner(w.volumes.due)
	for _, c := range w.all {
		if c.proc == nil {
			sooner(c.due)
		}
	}
	return at
}

// progress starts what is due.
func (w *worker) progress(ctx context.Context, pod *corev1.Pod) {
	now := time.Now()
	if !w.mounted || (!w.volumes.due.IsZero() && !now.Before(w.volumes.due)) {
		request, cancel := context.WithTimeout(ctx, requestLimit)
		err := w.volumes.write(request, pod)
		cancel()
		if err != nil {
			w.volumes.due = now.Add(retryPause)
			if !w.mounted {
				w.holdAll("CreateContainerConfigError", err)
				return
			}
			w.log.Warn("tokens not renewed", "error", err)
		}
		w.mounted = true
	}
	for _, c := range w.all {
		if c.proc == nil && c.restarting(pod.Spec.RestartPolicy) && !now.Before(c.due) && !(c.kind == initial && c.passed()) {
			w.launch(ctx, pod, c)
		}
		if !c.passed() {
			return
		}
	}
}

func (w *worker) holdAll(reason string, err error) {
	for _, c := range w.all {
		if c.proc == nil && c.ended == nil {
			c.waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: err.Error()}
		}
	}
}

// launch starts one container, or makes it wait with a reason that its pod's status shows.
func (w *worker) launch(ctx context.Context, pod *corev1.Pod, c *container) {
	reason, err := "CreateContainerConfigError", unseen(pod, c.spec)
	var p *process.Process
	if err == nil {
		reason, p, err = w.start(ctx, pod, c)
	}
	if err != nil {
		if c.waiting == nil || c.waiting.Message != err.Error() {
			w.log.Warn("container does not start", "container", c.spec.Name, "reason", reason, "error", err)
		}
		c.waiting = &corev1.ContainerStateWaiting{Reason: reason, Message: err.Error()}
		c.due = time.Now().Add(retryPause)
		return
	}
	if c.ended != nil {
		c.restarts++
		c.previous, c.ended = c.ended, nil
	}
	c.proc, c.waiting, c.due = p, nil, time.Time{}
	w.log.Info("container started", "container", c.spec.Name, "pid", p.PID(), "restarts", c.restarts)
	go func() {
		<-p.Done()
		w.exits <- c
	}()
}

func (w *worker) start(ctx context.Context, pod *corev1.Pod, c *container) (reason string, p *process.Process, err error) {
	program, ok := w.agent.image(c.spec.Image)
	if !ok {
		return "ErrImagePull", nil, fmt.Errorf("this node runs local programs, and has none for image %q; it knows %s", c.spec.Image, w.agent.images())
	}
	request, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	env, err := environment(pod, c.spec, w.base(pod, c.spec), w.agent.lookup(request, pod.Namespace))
	if err != nil {
		return "CreateContainerConfigError", nil, err
	}
	for _, m := range c.spec.VolumeMounts {
		if filepath.Clean(m.MountPath) == injected.ReturnAddressesDir && env.values[injected.EnvReturnAddressesFile] != "" {
			env.values[injected.EnvReturnAddressesFile] = filepath.Join(w.volumes.folder(m.Name), injected.ReturnAddressesFile)
		}
	}
	// The first word of a command names a file in the image, and the image is one program.
	args := c.spec.Args
	if len(c.spec.Command) > 0 {
		if filepath.Base(c.spec.Command[0]) != filepath.Base(program) {
			return "CreateContainerError", nil, fmt.Errorf("exec %s: no such file: here the image holds %s alone", c.spec.Command[0], filepath.Base(program))
		}
		args = append(c.spec.Command[1:len(c.spec.Command):len(c.spec.Command)], args...)
	}
	expanded := make([]string, 0, len(args))
	for _, a := range args {
		expanded = append(expanded, expand(a, env.values))
	}
	run := c.restarts
	if c.ended != nil {
		run++
	}
	log := w.agent.LogFile(pod, c.spec.Name, run)
	if err := os.MkdirAll(filepath.Dir(log), 0o700); err != nil {
		return "CreateContainerError", nil, err
	}
	p, err = process.Start(process.Spec{
		Name: pod.Name + "/" + c.spec.Name, Path: program, Args: expanded, Env: env.strings(), Dir: w.volumes.dir, Log: log,
	})
	return "RunContainerError", p, err
}

// base is what a node gives every container: where the API server is, who the pod is on the network, what
// the cluster's pod identity adds, and the folders that stand in for mounts.
func (w *worker) base(pod *corev1.Pod, c *corev1.Container) []corev1.EnvVar {
	base := []corev1.EnvVar{
		{Name: "PATH", Value: "/usr/local/bin:/usr/bin:/bin"},
		{Name: "HOSTNAME", Value: pod.Name},
		{Name: "HOME", Value: w.volumes.dir},
		{Name: "KUBERNETES_SERVICE_HOST", Value: address},
		{Name: "KUBERNETES_SERVICE_PORT", Value: strconv.Itoa(w.agent.config.APIServerPort)},
	}
	if dir, ok := w.volumes.serviceAccountDir(c); ok {
		base = append(base, corev1.EnvVar{Name: injected.EnvServiceAccountDir, Value: dir})
	}
	for _, m := range c.VolumeMounts {
		if filepath.Clean(m.MountPath) == "/tmp" {
			base = append(base, corev1.EnvVar{Name: "TMPDIR", Value: w.volumes.folder(m.Name)})
		}
	}
	return append(base, w.agent.config.Env...)
}

// exited records the end of a container's process and when it may start again.
func (w *worker) exited(c *container) {
	p := c.proc
	c.proc, c.ended = nil, terminated(p)
	policy := w.current().Spec.RestartPolicy
	w.log.Info("container ended", "container", c.spec.Name, "pid", p.PID(), "how", p.Exit().String())
	if !c.restarting(policy) || (c.kind == initial && c.passed()) {
		return
	}
	pause := c.backoff.After(c.ended.FinishedAt.Sub(c.ended.StartedAt.Time))
	c.due = c.ended.FinishedAt.Add(pause)
	c.waiting = &corev1.ContainerStateWaiting{
		Reason:  "CrashLoopBackOff",
		Message: fmt.Sprintf("back-off %s restarting container %s; it ended with code %d", pause, c.spec.Name, c.ended.ExitCode),
	}
}

// end stops the containers of a pod that is being deleted, within its grace.
func (w *worker) end(pod *corev1.Pod) {
	grace := forcedGrace
	if s := pod.DeletionGracePeriodSeconds; s != nil && *s > 0 {
		grace = time.Duration(*s) * time.Second
	}
	w.kill(grace)
	for _, c := range w.all {
		c.over(time.Now())
	}
}

// kill ends every process: the containers side by side, then the sidecars, the last one first. It returns
// when none runs.
func (w *worker) kill(grace time.Duration) {
	limit := time.Now().Add(grace)
	var apps sync.WaitGroup
	for _, c := range w.all {
		if c.proc != nil && c.kind != sidecar {
			apps.Go(func() { w.stop(c, limit) })
		}
	}
	apps.Wait()
	for i := len(w.all) - 1; i >= 0; i-- {
		if c := w.all[i]; c.proc != nil && c.kind == sidecar {
			w.stop(c, limit)
		}
	}
	for _, c := range w.all {
		if c.proc != nil {
			<-w.exits // Its own, or another's: as many as there were processes.
		}
	}
	for _, c := range w.all {
		if c.proc != nil {
			c.ended, c.proc = terminated(c.proc), nil
		}
	}
}

func (w *worker) stop(c *container, limit time.Time) {
	p, done := c.proc, make(chan struct{})
	// A pod removed by force meanwhile waits no longer.
	go func() {
		select {
		case <-w.removed:
			p.Stop(min(forcedGrace, max(0, time.Until(limit))))
		case <-done:
		}
	}()
	if s := sleepFirst(c.spec); s > 0 {
		t := time.NewTimer(min(s, max(0, time.Until(limit))))
		defer t.Stop()
		select {
		case <-t.C:
		case <-w.removed:
		case <-p.Done():
		}
	}
	p.Stop(max(0, time.Until(limit)))
	close(done)
}

// sleepFirst is the pause of a preStop hook of the kind that needs nothing from the container.
func sleepFirst(c *corev1.Container) time.Duration {
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.Sleep == nil {
		return 0
	}
	return time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
}

// leave reports the end of every container and only then lets the API server remove the pod's object. It
// returns true when nothing is left to do; a finalizer can hold the object for longer.
func (w *worker) leave(ctx context.Context, pod *corev1.Pod) bool {
	w.post(ctx, pod, true)
	if w.unsaid || w.left {
		return false
	}
	request, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	now := int64(0)
	err := w.agent.config.Client.CoreV1().Pods(pod.Namespace).Delete(request, pod.Name,
		metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	if err != nil && !anothers(err) {
		w.log.Warn("pod not removed yet", "error", err)
		return false
	}
	w.left = true
	return len(pod.Finalizers) == 0
}

// anothers reports whether the API server knows the pod no more, or another one under its name. The watch
// will say so too.
func anothers(err error) bool { return apierrors.IsNotFound(err) || apierrors.IsConflict(err) }

// post tells the API server the pod's status, if it differs from what was told last.
func (w *worker) post(ctx context.Context, pod *corev1.Pod, over bool) {
	before := w.said
	if before == nil {
		before = &pod.Status
	}
	status := podStatus(pod, w.all, over, w.agent.imageID, before, time.Now())
	if before.StartTime == nil {
		status.StartTime = &metav1.Time{Time: w.began}
	}
	if w.said != nil && !w.unsaid && equality.Semantic.DeepEqual(status, *w.said) {
		return
	}
	w.said = &status
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		w.log.Error("status cannot be encoded", "error", err)
		return
	}
	request, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	_, err = w.agent.config.Client.CoreV1().Pods(pod.Namespace).Patch(request, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if w.unsaid = err != nil && !anothers(err); w.unsaid {
		w.log.Warn("status not posted", "error", err)
	}
}

func (w *worker) cleanUp() {
	for _, c := range w.all {
		if c.proc != nil {
			c.proc.Stop(0)
		}
	}
	_ = os.RemoveAll(w.volumes.dir) // The run's folder goes as a whole in the end.
}
