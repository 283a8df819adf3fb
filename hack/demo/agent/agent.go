// Package agent is a Kubernetes node without a container runtime: it registers a Node, runs each container of
// the pods bound to it as a local process, and reports what it sees, with a kubelet's permissions and no more.
//
// It is for demonstrations and tests. What it does as a kubelet does: environment (resolved when a container
// starts), pod-bound service-account tokens, restart policy with back-off, init containers and sidecars,
// termination with grace, status. What it lacks: images, namespaces and mounts (a container shares the machine's
// files and loopback address), probes, and limits.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// address of the node and of every pod on it.
const address = "127.0.0.1"

// Config says what kind of node this is.
type Config struct {
	// Client acts as the node: user system:node:<Name>, group system:nodes.
	Client kubernetes.Interface
	// Name of the Node.
	Name string
	// Dir is an existing folder for tokens and logs.
	Dir string
	// Images maps an image without tag or digest to the program that stands in for it.
	Images map[string]string
	// APIServerPort is where containers find the API server, on 127.0.0.1.
	APIServerPort int
	// Env is given to every container before its own variables: what a cluster's pod identity would add.
	Env []corev1.EnvVar
	// Listener is where the API server asks for containers' output; it must let nobody else in. Nil: kubectl logs
	// does not work, and LogFile tells where to look.
	Listener net.Listener
	// Log receives one line for each change of a container; nil: nobody.
	Log *slog.Logger
}

// Agent is one node.
type Agent struct {
	config Config

	mu      sync.Mutex
	workers map[types.UID]*worker
	running sync.WaitGroup
}

// New returns an agent that Run sets to work.
func New(config Config) *Agent {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	return &Agent{config: config, workers: map[types.UID]*worker{}}
}

// Run registers the node and runs its pods until ctx ends. It returns when every container has been killed;
// the error is that of the registration, or nil.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.register(ctx); err != nil {
		return fmt.Errorf("register node %s: %w", a.config.Name, err)
	}
	var beside sync.WaitGroup
	beside.Go(func() { a.renewLease(ctx) })
	if a.config.Listener != nil {
		beside.Go(func() { a.serve(ctx, a.config.Listener) })
	}
	defer beside.Wait()
	defer a.running.Wait()

	pods := cache.NewListWatchFromClient(a.config.Client.CoreV1().RESTClient(), "pods", metav1.NamespaceAll,
		fields.OneTermEqualSelector("spec.nodeName", a.config.Name))
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: pods, ObjectType: &corev1.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: func(o any) { a.upsert(ctx, o.(*corev1.Pod)) },
			UpdateFunc: func(old, now any) {
				// After a gap in the watch a pod can be another one under the same name.
				if was, is := old.(*corev1.Pod), now.(*corev1.Pod); was.UID != is.UID {
					a.drop(was.UID)
				}
				a.upsert(ctx, now.(*corev1.Pod))
			},
			DeleteFunc: func(o any) {
				if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
					o = last.Obj
				}
				if pod, ok := o.(*corev1.Pod); ok {
					a.drop(pod.UID)
				}
			},
		},
	})
	informer.RunWithContext(ctx)
	return nil
}

func (a *Agent) upsert(ctx context.Context, pod *corev1.Pod) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w, ok := a.workers[pod.UID]; ok {
		w.update(pod)
		return
	}
	if ctx.Err() != nil {
		return
	}
	w := newWorker(a, pod)
	if err := os.MkdirAll(w.volumes.dir, 0o700); err != nil {
		w.log.Error("no folder for the pod", "error", err)
		return
	}
	a.workers[pod.UID] = w
	a.running.Go(func() { w.run(ctx) })
}

func (a *Agent) drop(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w, ok := a.workers[uid]; ok {
		w.remove()
		delete(a.workers, uid)
	}
}

// LogFile is where the output of a container's run goes; run 0 is the first, 1 the first restart.
func (a *Agent) LogFile(pod *corev1.Pod, container string, run int32) string {
	return filepath.Join(a.config.Dir, "logs", fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID), container,
		strconv.Itoa(int(run))+".log")
}

// image finds the program that stands in for an image.
func (a *Agent) image(image string) (program string, known bool) {
	name, _, _ := strings.Cut(image, "@")
	if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") {
		name = name[:i]
	}
	program, known = a.config.Images[name]
	return program, known
}

func (a *Agent) imageID(image string) string {
	if program, ok := a.image(image); ok {
		return "file://" + filepath.ToSlash(program)
	}
	return ""
}

func (a *Agent) images() string {
	return strings.Join(slices.Sorted(maps.Keys(a.config.Images)), ", ")
}

func (a *Agent) lookup(ctx context.Context, namespace string) lookup {
	core := a.config.Client.CoreV1()
	return lookup{
		configMap: func(name string) (*corev1.ConfigMap, error) {
			return core.ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
		},
		secret: func(name string) (*corev1.Secret, error) {
			return core.Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		},
	}
}
