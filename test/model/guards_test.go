package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	k8sclock "k8s.io/utils/clock"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// What stands guard over deletions: the fence against copies of the cluster, as each leading process runs it.

// identity is the ConfigMap that pins the cluster's identity, and marker the queue that bears its nonce.
var identity = types.NamespacedName{Namespace: "replyqueue-system", Name: "replyqueue-identity"}

const (
	marker   = "rq_c_identity"
	nonceTag = v1alpha1.TagNoncePrefix + v1alpha1.DefaultProviderName
)

// timeless is a clock for what never waits by itself here: the script says when it runs.
type timeless struct {
	k8sclock.WithTicker // nil
	clock
}

func (t timeless) Now() time.Time                   { return t.clock.Now() }
func (t timeless) Since(at time.Time) time.Duration { return t.clock.Since(at) }

// newGuards gives the process its fence, which the provider asks, and its sweeper.
func (op *operator) newGuards(provider *queue.Provider) {
	op.fence = &fence.Fence{
		Client: kube{op: op}, Identity: identity, ClusterUID: clusterUID, Providers: only{provider}, Recorder: &silent{}, InUse: inUse,
		Clock: timeless{clock: op.signals.Clock.(clock)},
	}
	if op.mutant.watchless {
		op.fence.Watch = time.Nanosecond
	}
	op.provider = provider
	switch {
	case op.mutant.noFence:
	case op.mutant.alwaysProven:
		provider.Fence = credulous{op.fence}
	default:
		provider.Fence = op.fence
	}
	op.newSweeper()
}

// credulous is a fence that a mutant believes to have been proven.
type credulous struct{ *fence.Fence }

func (c credulous) MayDelete(provider string) error {
	var held *queue.Held
	if err := c.Fence.MayDelete(provider); errors.As(err, &held) && held.Conflict {
		return err
	}
	return nil
}

// guard has the fence compare its nonces, and the sweeper sweep, when that is due, one at a time.
func (op *operator) guard() {
	switch {
	case op.guarding:
	case op.world.now >= op.nextSweep:
		op.guarding, op.nextSweep, op.sweepBegan = true, op.world.now+sweepInterval, op.world.now
		op.start("sweep", op.sweep, func() { op.guarding = false })
	case op.world.now >= op.nextCheck:
		op.guarding, op.nextCheck = true, op.world.now+fence.DefaultInterval
		op.start("fence", op.fence.Round, func() { op.guarding = false })
	}
}

// nonce is what the marker bears; exists is false when there is none.
func (w *world) nonce() (value string, exists bool) {
	out, err := w.sqs.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String(marker)})
	if err != nil {
		return "", false
	}
	tags, err := w.sqs.ListQueueTags(ctx, &sqs.ListQueueTagsInput{QueueUrl: out.QueueUrl})
	w.must(err)
	return tags.Tags[nonceTag], true
}

// nonces are those that the cluster knows for its own, newest first; none before it has seen one of them on the marker.
func (w *world) nonces() []string {
	cm, ok := w.cluster.now[configs][identity].(*corev1.ConfigMap)
	if !ok {
		return nil
	}
	var entries map[string]struct {
		Nonces []string
		Seen   bool
	}
	_ = json.Unmarshal([]byte(cm.Data["fence"]), &entries)
	e := entries[v1alpha1.DefaultProviderName]
	if !e.Seen {
		return nil
	}
	return e.Nonces
}

// removeMarker is somebody who deletes the marker, or its tag.
func (w *world) removeMarker(whole bool) bool {
	out, err := w.sqs.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String(marker)})
	if err != nil {
		return false
	}
	if whole {
		_, err = w.sqs.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: out.QueueUrl})
		w.trace("somebody deletes the marker")
	} else {
		_, err = w.sqs.UntagQueue(ctx, &sqs.UntagQueueInput{QueueUrl: out.QueueUrl, TagKeys: []string{nonceTag}})
		w.trace("somebody removes the marker's nonce")
	}
	w.must(err)
	w.sighted()
	return true
}

// conflict says that the leader says that the queues may be another cluster's.
func (w *world) conflict() bool {
	return w.leader != nil && w.leader.fence.Trouble(v1alpha1.DefaultProviderName, fence.TroubleConflict) != ""
}

// doubts says that the leader says that it has to watch whose the queues are, and deletes nothing meanwhile. That is 45 minutes at
// most.
func (w *world) doubts() bool {
	return !w.conflict() && w.leader.fence.MayDelete(v1alpha1.DefaultProviderName) != nil
}

// held says that the leader says that its sweeps are held by their brake.
func (w *world) held() bool {
	return w.leader != nil && w.leader.fence.Trouble(v1alpha1.DefaultProviderName, fence.TroubleSweep) != ""
}

// confirm is a person who reads what the fence says and declares that this cluster owns the queues. Nobody does while a
// copy runs.
func (w *world) confirm() bool {
	if len(w.copies) > 0 || !w.conflict() {
		return false
	}
	word := v1alpha1.DefaultProviderName + "=abandoned"
	if nonce, _ := w.nonce(); nonce != "" {
		word = nonce
	}
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: identity.Namespace, Name: identity.Name}}
	w.must(w.cluster.edit(cm, func() { metav1.SetMetaDataAnnotation(&cm.ObjectMeta, v1alpha1.AnnotationConfirmIdentity, word) }))
	w.trace("a person confirms the identity")
	return true
}

// allow is a person who lets the sweep that is held delete what it wants to.
func (w *world) allow() bool {
	if !w.held() {
		return false
	}
	w.allowed = len(w.queues)
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: identity.Namespace, Name: identity.Name}}
	w.must(w.cluster.edit(cm, func() {
		metav1.SetMetaDataAnnotation(&cm.ObjectMeta, v1alpha1.AnnotationAllowSweep, fmt.Sprintf("%s=%d", v1alpha1.DefaultProviderName, w.allowed))
	}))
	w.trace("a person allows the sweep")
	return true
}

// forgetful is the identity as a fence reads it that does not know any more that it had claimed the marker.
func forgetful(cm *corev1.ConfigMap) {
	if text, ok := cm.Data["fence"]; ok {
		cm.Data["fence"] = strings.ReplaceAll(text, `"seen":true`, `"seen":false`)
	}
}
