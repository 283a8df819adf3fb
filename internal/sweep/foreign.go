package sweep

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/internal/queue"
)

// The tags of the Amazon SQS Temporary Queue Client for Java: how many seconds a queue may be idle, and when a client
// last used it, in milliseconds since 1970 by the client's clock.
const (
	javaRetention = "__IdleQueueRetentionPeriodSeconds"
	javaHeartbeat = "__AmazonSQSIdleQueueDeletingClient.LastHeartbeatTimestamp"
)

// javaMargin is added to the retention, because the heartbeat is by another computer's clock.
const javaMargin = 5 * time.Minute

// abandoned applies the Java client's rule to a queue's tags: both are there, and the heartbeat is older than the
// retention. unchanged is for how long the heartbeat has been seen to stay the same, by our own clock; it has to
// exceed the retention too, so that no clock that is wrong gets a living queue deleted.
func abandoned(tags map[string]string, now time.Time, unchanged time.Duration) bool {
	seconds, err := strconv.ParseInt(tags[javaRetention], 10, 32)
	if err != nil || seconds < 1 {
		return false
	}
	millis, err := strconv.ParseInt(tags[javaHeartbeat], 10, 64)
	if err != nil || millis <= 0 {
		return false
	}
	retention := time.Duration(seconds) * time.Second
	return now.Sub(time.UnixMilli(millis)) > retention+javaMargin && unchanged > retention
}

// sweepForeign deletes abandoned queues under the prefixes that an administrator listed. It reads the tags of each such
// queue in every sweep: the heartbeat is in them.
func (s *Sweeper) sweepForeign(ctx context.Context, p *place) error {
	if len(p.ForeignPrefixes) == 0 {
		_, err := s.Fence.Report(ctx, p.Name, v1alpha1.ConditionForeignSweepHeld, "")
		return err
	}
	tags := map[string]map[string]string{}
	var keys []string
	total := 0
	var problems []error
	for _, prefix := range p.ForeignPrefixes {
		names, err := s.listAll(ctx, p.Provider, prefix)
		if err != nil {
			return p.obstacles.meet("", err)
		}
		for _, name := range names {
			if strings.HasPrefix(name, p.OwnPrefix()) {
				continue
			}
			total++
			var has map[string]string
			err := s.patiently(ctx, func() (err error) { has, err = p.TagsOf(ctx, name); return err })
			if queue.Classify(err) == queue.NotFound {
				continue
			}
			if err != nil {
				if problems = append(problems, p.stopped(ctx, name, err)); concernsAll(ctx, err) {
					return errors.Join(problems...)
				}
				continue
			}
			if has[javaRetention] != "" && has[javaHeartbeat] != "" && has[v1alpha1.TagCluster] == "" {
				tags[name] = has
				keys = append(keys, name+" "+has[javaHeartbeat])
			}
		}
	}
	var doomed []string
	unchanged := p.foreign.See(keys, s.Clock.Now())
	judged := s.judges(p.memory, v1alpha1.ConditionForeignSweepHeld)
	for _, f := range unchanged {
		name, _, _ := strings.Cut(f.Key, " ")
		if s.ripe(f) && abandoned(tags[name], s.Clock.Now(), s.Clock.Since(f.Since)) {
			doomed = append(doomed, name)
		}
	}
	allowanceOf := p.Name + "/foreign"
	allowed, err := s.Fence.Allowance(ctx, allowanceOf)
	if err != nil {
		return err
	}
	message := ""
	if lifecycle.Braked(total, len(doomed), allowed) {
		message = fmt.Sprintf("%d of %d queues of the Java client are abandoned, more than a sweep deletes by itself. None is deleted. If they are to be deleted, annotate the identity's ConfigMap with %s=%s=%d",
			len(doomed), total, v1alpha1.AnnotationAllowSweep, allowanceOf, len(doomed))
	}
	if _, err := s.report(ctx, p.Name, v1alpha1.ConditionForeignSweepHeld, message, judged); err != nil || message != "" {
		return errors.Join(append(problems, err)...)
	}
	if allowed > 0 && !s.DryRun && (judged || lifecycle.Braked(total, len(doomed), 0)) {
		if err := s.Fence.UseAllowance(ctx, allowanceOf); err != nil {
			return errors.Join(append(problems, err)...)
		}
	}
	for _, name := range doomed {
		err := s.sweepForeignQueue(ctx, p, name, tags[name][javaHeartbeat])
		if problems = append(problems, p.stopped(ctx, name, err)); concernsAll(ctx, err) {
			break
		}
	}
	return errors.Join(problems...)
}

// sweepForeignQueue deletes one abandoned queue, unless its heartbeat changed or it holds messages. A queue of which
// SQS does not tell all three counts is kept.
func (s *Sweeper) sweepForeignQueue(ctx context.Context, p *place, name, heartbeat string) error {
	log := ctrl.LoggerFrom(ctx).WithName("sweep").WithValues("provider", p.Name, "queue", name)
	url, err := p.QueueURL(ctx, name)
	if err != nil {
		return err
	}
	var attributes, tags map[string]string
	err = s.patiently(ctx, func() (err error) { attributes, err = p.Attributes(ctx, url); return err })
	if err == nil {
		err = s.patiently(ctx, func() (err error) { tags, err = p.TagsOf(ctx, name); return err })
	}
	switch {
	case queue.Classify(err) == queue.NotFound:
		return nil
	case err != nil:
		return err
	case !queue.Empty(attributes) || tags[javaHeartbeat] != heartbeat:
		return nil
	case s.DryRun:
		log.Info("Would delete an abandoned queue of the Java client (dry run)", "heartbeat", heartbeat)
		return nil
	}
	if err := s.patiently(ctx, func() error { return p.Delete(ctx, url) }); err != nil {
		return err
	}
	log.Info("Deleted an abandoned queue of the Java client", "heartbeat", heartbeat)
	s.Metrics.deleted(p.Name, kindForeign)
	return nil
}
