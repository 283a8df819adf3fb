package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// gapped is an API server with one pod, whose watch breaks once, and by then another pod has its name: the version from which
// the watch would go on is too old, so that a list takes its place.
type gapped struct {
	lists   atomic.Int32
	changed chan struct{} // closed: the watch breaks
}

func (g *gapped) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	status := func(code int32, reason metav1.StatusReason) metav1.Status {
		return metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: code, Reason: reason}
	}
	switch query := r.URL.Query(); {
	case query.Get("sendInitialEvents") != "":
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(w).Encode(status(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid))
	case query.Get("watch") != "":
		w.(http.Flusher).Flush()
		if g.lists.Load() > 1 {
			<-r.Context().Done()
			return
		}
		select {
		case <-g.changed:
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "ERROR", "object": status(http.StatusGone, metav1.StatusReasonExpired)})
		case <-r.Context().Done():
		}
	default:
		n := g.lists.Add(1)
		pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db-0", UID: types.UID(fmt.Sprint(n)), ResourceVersion: fmt.Sprint(10 * n)}}
		_ = json.NewEncoder(w).Encode(corev1.PodList{
			TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: metav1.ListMeta{ResourceVersion: fmt.Sprint(10 * n)}, Items: []corev1.Pod{pod},
		})
	}
}

// An object that another has replaced under its name, in a gap of the watch, is told to be gone, and the other to be new.
func TestAnObjectThatWasReplacedInAGapIsGone(t *testing.T) {
	api := &gapped{changed: make(chan struct{})}
	server := httptest.NewServer(api)
	defer server.Close()
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, meta.RESTScopeNamespace)
	c, err := newCache(&rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}, cache.Options{Scheme: Scheme(), Mapper: mapper})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Start(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		server.CloseClientConnections() // Informers let go of their watches in their own time.
	}()
	said := make(chan string, 10)
	say := func(what string, o any) {
		if lost, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
			what, o = what+", unseen,", lost.Obj
		}
		said <- fmt.Sprintf("%s %s", what, o.(*corev1.Pod).UID)
	}
	handler := toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { say("added", o) }, DeleteFunc: func(o any) { say("deleted", o) },
		UpdateFunc: func(_, o any) { say("updated to", o) },
	}
	informer, err := c.GetInformer(ctx, &corev1.Pod{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := informer.AddEventHandlerWithOptions(handler, toolscache.HandlerOptions{}); err != nil {
		t.Fatal(err)
	}
	byKind, err := c.GetInformerForKind(ctx, schema.GroupVersionKind{Version: "v1", Kind: "Pod"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := byKind.AddEventHandler(toolscache.ResourceEventHandlerFuncs{UpdateFunc: func(_, o any) { say("by kind, updated to", o) }}); err != nil {
		t.Fatal(err)
	}
	events := []string{<-said}
	close(api.changed)
	for !strings.HasSuffix(events[len(events)-1], " 2") {
		events = append(events, <-said)
	}
	if diff := cmp.Diff([]string{"added 1", "deleted, unseen, 1", "added 2"}, events); diff != "" {
		t.Error(diff)
	}
}
