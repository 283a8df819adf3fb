package cluster

import (
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/replyqueue/replyqueue/hack/demo/process"
)

// One control plane serves all of this: starting one takes seconds.
func TestCluster(t *testing.T) {
	bin := os.Getenv("KUBEBUILDER_ASSETS")
	if bin == "" {
		t.Fatal("KUBEBUILDER_ASSETS must name the folder of the control plane's programs: run `make test`")
	}
	c, err := Start(t.Context(), Config{Bin: bin, Dir: t.TempDir(), Say: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)

	t.Run("a kubeconfig file works for kubectl's loader", func(t *testing.T) {
		file := t.TempDir() + "/kubeconfig"
		if err := c.Kubeconfig(file, "demo-admin", "system:masters"); err != nil {
			t.Fatal(err)
		}
		rest, err := clientcmd.BuildConfigFromFlags("", file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := kubernetes.NewForConfigOrDie(rest).CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); err != nil {
			t.Errorf("the administrator may not list secrets: %v", err)
		}
	})

	t.Run("a node has a node's permissions", func(t *testing.T) {
		rest, err := c.Node("n1")
		if err != nil {
			t.Fatal(err)
		}
		node := kubernetes.NewForConfigOrDie(rest).CoreV1()
		for name, want := range map[string]bool{"n1": true, "n2": false} {
			_, err := node.Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
			if allowed := err == nil; allowed != want {
				t.Errorf("register %s: %v", name, err)
			}
		}
		if _, err := node.Secrets("").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
			t.Errorf("list all secrets: %v, want forbidden", err)
		}
	})

	t.Run("the end of a part is reported with its last words", func(t *testing.T) {
		var scheduler *process.Process
		for _, p := range c.parts {
			if p.Name() == "kube-scheduler" {
				scheduler = p
			}
		}
		scheduler.Stop(0)
		if err := <-c.Ended(); !strings.Contains(err.Error(), "kube-scheduler ended (signal: killed)") {
			t.Errorf("got %q", err)
		}
	})

	t.Run("nothing runs after Stop", func(t *testing.T) {
		parts := c.parts
		c.Stop()
		if len(parts) != 4 {
			t.Errorf("%d parts, want 4", len(parts))
		}
		for _, p := range parts {
			if p.Running() {
				t.Errorf("%s still runs", p.Name())
			}
		}
	})
}

// A program that cannot start is an error with its output, at once, and not a wait for readiness.
func TestStartReportsAPartThatExits(t *testing.T) {
	bin := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, bin+"/etcd"); err != nil { // The test binary does not know etcd's flags.
		t.Fatal(err)
	}
	_, err = Start(t.Context(), Config{Bin: bin, Dir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "etcd ended (exit status 2); its last words:\n") {
		t.Errorf("got %v", err)
	}
}
