package sweep

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/internal/queue"
)

func lastSegment(url string) string { return url[strings.LastIndexByte(url, '/')+1:] }

// ripe says that something has been found for long enough, by two sweeps at least.
func (s *Sweeper) ripe(f lifecycle.Finding) bool {
	return f.Passes > 1 && s.Clock.Since(f.Since) >= s.Grace
}

// sweepQueues deletes the reply queues that no record covers.
func (s *Sweeper) sweepQueues(ctx context.Context, p *place, covered *records) error {
	recorded := make(map[string]bool, len(covered.uids))
	for uid := range covered.uids {
		recorded[p.ReplyQueueName(uid)] = true
	}
	total := 0
	var orphans []string
	for _, name := range p.listed {
		if !p.IsReplyQueueName(name) {
			continue
		}
		total++
		if !recorded[name] {
			orphans = append(orphans, name)
		}
	}
	findings := p.orphans.See(orphans, s.Clock.Now())
	judged := s.judges(p.memory, v1alpha1.ConditionSweepHeld)
	s.Metrics.orphans(p.Name, len(findings))
	doomed, unread := s.doomed(ctx, p, findings)
	if held, err := s.braked(ctx, p, total, len(doomed), judged); err != nil || held {
		return errors.Join(unread, err)
	}
	problems := []error{unread}
	for _, f := range doomed {
		err := s.sweepQueue(ctx, p, f)
		problems = append(problems, p.stopped(ctx, f.Key, err))
		if concernsAll(ctx, err) {
			break
		}
	}
	return errors.Join(problems...)
}

// stopped notes that a sweep could not go on with a queue, or with any, and returns why.
func (p *place) stopped(ctx context.Context, name string, err error) error {
	if concernsAll(ctx, err) {
		name = ""
	}
	return p.obstacles.meet(name, err)
}

// concernsAll says that the other queues would fare no better. They are found again.
func concernsAll(ctx context.Context, err error) bool {
	class := queue.Classify(err)
	return class == queue.Throttled || class == queue.Fenced || class == queue.Unproven || ctx.Err() != nil
}

// doomed are the findings that are to be deleted, as far as is known. Tags are read once: they are read again before a
// deletion, and until then whatever they say keeps the queue. One that cannot be looked at is kept, and the error says so:
// anybody may have made it, and it must not keep the others.
func (s *Sweeper) doomed(ctx context.Context, p *place, findings []lifecycle.Finding) ([]lifecycle.Finding, error) {
	before, readers := p.tags, p.readers
	p.tags, p.readers = make(map[string]map[string]string, len(findings)), make(map[string]*reading, len(findings))
	var doomed []lifecycle.Finding
	var problems []error
	for _, f := range findings {
		if tags, known := before[f.Key]; known {
			p.tags[f.Key] = tags
		}
		if p.readers[f.Key] = readers[f.Key]; p.readers[f.Key] == nil {
			p.readers[f.Key] = &reading{}
		}
		// One sweep alone says nothing: SQS lists what was just deleted.
		if f.Passes < 2 {
			continue
		}
		if p.tags[f.Key] == nil {
			if err := s.readTags(ctx, p, f.Key); queue.Classify(err) == queue.NotFound {
				continue
			} else if err != nil {
				problems = append(problems, fmt.Errorf("read the tags of %s: %w", f.Key, p.stopped(ctx, f.Key, err)))
				if concernsAll(ctx, err) {
					break
				}
				continue
			}
		}
		if odd := oddOwner(p.tags[f.Key]); odd != nil {
			problems = append(problems, fmt.Errorf("the queue %s is kept: %w", f.Key, p.obstacles.meet(f.Key, odd)))
			continue
		}
		orphan, err := s.look(ctx, p, f)
		if err != nil { // of the API server, and so for all
			return doomed, errors.Join(append(problems, err)...)
		}
		if lifecycle.Sweep(orphan, s.terms(p)) == lifecycle.SweepDelete {
			doomed = append(doomed, f)
		}
	}
	return doomed, errors.Join(problems...)
}

// oddOwner is why tags name nothing that the API server could be asked for; nil when they do, or name nothing.
func oddOwner(tags map[string]string) error {
	for _, owner := range []struct{ namespace, name string }{
		{v1alpha1.TagNamespace, v1alpha1.TagName}, {v1alpha1.TagPodNamespace, v1alpha1.TagPodName},
	} {
		if odd := oddName(types.NamespacedName{Namespace: tags[owner.namespace], Name: tags[owner.name]}); odd != nil {
			return fmt.Errorf("by its tags %s and %s it %w", owner.namespace, owner.name, odd)
		}
	}
	return nil
}

// oddName is why there can be no object of that name; nil when there can, or when it is empty.
func oddName(key types.NamespacedName) error {
	if why := validation.IsDNS1123Label(key.Namespace); key.Namespace != "" && len(why) > 0 {
		return fmt.Errorf("is in a namespace %q: %s", key.Namespace, why[0])
	}
	if why := validation.IsDNS1123Subdomain(key.Name); key.Name != "" && len(why) > 0 {
		return fmt.Errorf("is of an object %q: %s", key.Name, why[0])
	}
	return nil
}

func (s *Sweeper) terms(p *place) lifecycle.SweepTerms {
	return lifecycle.SweepTerms{Cluster: s.ClusterUID, Former: s.Fence.SweepsFrom(p.Name), Grace: s.Grace}
}

// readTags keeps a queue's tags. What cannot be read is not kept: no tags would say that the queue is nobody's.
func (s *Sweeper) readTags(ctx context.Context, p *place, name string) error {
	delete(p.tags, name)
	return s.patiently(ctx, func() error {
		tags, err := p.TagsOf(ctx, name)
		if err != nil {
			return err
		}
		if tags == nil {
			tags = map[string]string{}
		}
		p.tags[name] = tags
		return nil
	})
}

// look asks the API server about a finding whose tags are known.
func (s *Sweeper) look(ctx context.Context, p *place, f lifecycle.Finding) (lifecycle.Orphan, error) {
	tags := p.tags[f.Key]
	since := s.Clock.Since(f.Since)
	o := lifecycle.Orphan{
		NameComputed: p.IsReplyQueueName(f.Key), Kind: tags[v1alpha1.TagKind], Cluster: tags[v1alpha1.TagCluster],
		Passes: f.Passes, Unrecorded: since, Unread: since,
	}
	if lifecycle.Sweep(o, s.terms(p)) == lifecycle.SweepNotOurs {
		return o, nil
	}
	var err error
	if o.Recorded, err = s.recorded(ctx, p, f.Key, tags); err != nil {
		return o, err
	}
	by, unsure, err := s.read(ctx, p, f.Key, tags)
	if o.PodLives = by != nil; unsure && s.ripe(f) {
		_ = p.obstacles.meet(f.Key, keptFor(by)) // No error: it may be as it should be.
	}
	if last := p.readers[f.Key].last; !last.IsZero() {
		o.Unread = s.Clock.Since(last)
	}
	return o, err
}

// braked says whether a human has to allow the sweep first. What a human allowed is used up before it is used, and also
// when it is not needed any more: it must not stay open for another day. judged says that what is doomed is all there is, and
// not just what this process has found for long enough.
func (s *Sweeper) braked(ctx context.Context, p *place, total, doomed int, judged bool) (bool, error) {
	allowed, err := s.Fence.Allowance(ctx, p.Name)
	if err != nil {
		return true, err
	}
	message := ""
	if lifecycle.Braked(total, doomed, allowed) {
		message = fmt.Sprintf("%s. None is deleted. If they are to be deleted, annotate the identity's ConfigMap with %s=%s=%d",
			lifecycle.BrakeMessage(total, doomed), v1alpha1.AnnotationAllowSweep, p.Name, doomed)
	}
	news, err := s.report(ctx, p.Name, v1alpha1.ConditionSweepHeld, message, judged)
	s.Metrics.held(p.Name, s.Fence.Trouble(p.Name, v1alpha1.ConditionSweepHeld) != "")
	if news && message != "" {
		ctrl.LoggerFrom(ctx).WithName("sweep").Info("The sweep is held: too many reply queues have no record", "provider", p.Name, "why", message)
	}
	if err != nil || message != "" {
		return true, err
	}
	if allowed > 0 && !s.DryRun && (judged || lifecycle.Braked(total, doomed, 0)) {
		return false, s.Fence.UseAllowance(ctx, p.Name)
	}
	return false, nil
}

// sweepQueue deletes one reply queue, if everything read anew still says so.
func (s *Sweeper) sweepQueue(ctx context.Context, p *place, f lifecycle.Finding) error {
	log := ctrl.LoggerFrom(ctx).WithName("sweep").WithValues("provider", p.Name, "queue", f.Key)
	if err := s.readTags(ctx, p, f.Key); err != nil {
		if queue.Classify(err) == queue.NotFound {
			return nil
		}
		return err
	}
	orphan, err := s.look(ctx, p, f)
	if err != nil || lifecycle.Sweep(orphan, s.terms(p)) != lifecycle.SweepDelete {
		return err
	}
	owner := queue.OwnerIn(p.tags[f.Key])
	if s.DryRun {
		log.Info("Would delete a reply queue without a record (dry run)", "namespace", owner.Namespace, "name", owner.Name)
		return nil
	}
	if err := s.patiently(ctx, func() error { return p.DeleteQueueByName(ctx, f.Key) }); err != nil {
		return err
	}
	log.Info("Deleted a reply queue without a record", "namespace", owner.Namespace, "name", owner.Name, "foundFor", orphan.Unrecorded.String())
	s.Metrics.deleted(p.Name, kindReply)
	return nil
}

// findMissing tells of records whose queue is gone. A queue that was created after the queues were listed is in the
// next list, so one sweep alone says nothing.
func (s *Sweeper) findMissing(ctx context.Context, p *place, covered *records) error {
	if p.MayDelete() != nil {
		// What was listed, now or in the sweeps before, may be another account's. It is found again.
		p.missing = lifecycle.Findings{}
		delete(p.judging, v1alpha1.ConditionQueuesMissing)
		return nil
	}
	listed := make(map[string]bool, len(p.listed))
	for _, name := range p.listed {
		listed[name] = true
	}
	open := covered.open[p.Name]
	absent := map[string]openRecord{}
	var keys []string
	for _, r := range open {
		if name := p.ReplyQueueName(r.uid); !listed[name] {
			absent[name], keys = r, append(keys, name)
		}
	}
	var missing []lifecycle.Finding
	absentFor := p.missing.See(keys, s.Clock.Now())
	judged := s.judges(p.memory, v1alpha1.ConditionQueuesMissing)
	for _, f := range absentFor {
		if s.ripe(f) {
			missing = append(missing, f)
		}
	}
	s.Metrics.missing(p.Name, len(missing))
	log := ctrl.LoggerFrom(ctx).WithName("sweep").WithValues("provider", p.Name)
	if held, err := s.missingBraked(ctx, p, len(open), len(missing), judged); held || err != nil {
		return err
	}
	var problems []error
	for _, f := range missing {
		// The list may lag behind.
		err := s.patiently(ctx, func() error { _, err := p.LookUp(ctx, f.Key); return err })
		switch {
		case err == nil:
			continue
		case queue.Classify(err) != queue.NotFound:
			if problems = append(problems, p.stopped(ctx, f.Key, err)); concernsAll(ctx, err) {
				return errors.Join(problems...)
			}
			continue
		}
		r := absent[f.Key]
		var same bool
		err = s.patiently(ctx, func() (err error) { same, err = p.SameAccount(ctx, r.url); return err })
		if err != nil { // of the marker, and so for all
			return errors.Join(append(problems, p.obstacles.meet("", err))...)
		}
		if !same {
			// Whether it is there nobody here can tell. Where that lasts, somebody has to.
			problems = append(problems, p.obstacles.meet(f.Key, fmt.Errorf(
				"of ReplyQueue %s, in another account than the operator's credentials: give it those, or remove that record for the pod to get another", r.NamespacedName)))
			continue
		}
		log.Info("A record has no queue any more: someone else deleted it", "namespace", r.Namespace, "name", r.Name)
		if s.Missing != nil && !s.DryRun {
			s.Missing(ctx, r.NamespacedName, r.uid)
		}
	}
	return errors.Join(problems...)
}

// missingBraked says whether a human has to allow first that so many records are given up. As many queues do not vanish one
// by one: it is rather the operator that looks into another account. judged is as with braked.
func (s *Sweeper) missingBraked(ctx context.Context, p *place, records, missing int, judged bool) (bool, error) {
	allowanceOf := p.Name + "/missing"
	allowed, err := s.Fence.Allowance(ctx, allowanceOf)
	if err != nil {
		return true, err
	}
	message := ""
	if lifecycle.Braked(records, missing, allowed) {
		message = fmt.Sprintf("%d of %d reply queues with a record are not found in SQS, more than a sweep gives up by itself: the operator may look into another account, or another region. Their pods keep what they have. If they were deleted, and the pods are to get new ones, annotate the identity's ConfigMap with %s=%s=%d",
			missing, records, v1alpha1.AnnotationAllowSweep, allowanceOf, missing)
	}
	if _, err := s.report(ctx, p.Name, v1alpha1.ConditionQueuesMissing, message, judged); err != nil || message != "" {
		return true, err
	}
	if allowed > 0 && !s.DryRun && (judged || lifecycle.Braked(records, missing, 0)) {
		return false, s.Fence.UseAllowance(ctx, allowanceOf)
	}
	return false, nil
}

// reportUnclaimed counts the request and dead-letter queues of this cluster that no RequestChannel has. They may hold
// requests that nobody has answered, so a human decides about them.
func (s *Sweeper) reportUnclaimed(ctx context.Context, p *place) error {
	var channels v1alpha1.RequestChannelList
	if err := s.Client.List(ctx, &channels, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	claimed := map[string]bool{p.IdentityQueueName(): true}
	for i := range channels.Items {
		c := &channels.Items[i]
		claimed[p.ChannelQueueName(c)] = true
		claimed[p.DeadLetterQueueName(c.Namespace, c.Name, c.Spec.FIFO != nil)] = true
	}
	counts := map[string]int{v1alpha1.TagKindRequest: 0, v1alpha1.TagKindDeadLetter: 0}
	owners := map[string]queue.Owner{}
	defer func() { p.owners = owners }()
	var problems []error
	for _, name := range p.listed {
		if claimed[name] || p.IsReplyQueueName(name) {
			continue
		}
		owner, known := p.owners[name]
		if !known {
			var tags map[string]string
			err := s.patiently(ctx, func() (err error) { tags, err = p.TagsOf(ctx, name); return err })
			if queue.Classify(err) == queue.NotFound {
				continue
			}
			if err != nil {
				if problems = append(problems, p.stopped(ctx, name, err)); concernsAll(ctx, err) {
					return errors.Join(problems...)
				}
				continue
			}
			owner = queue.OwnerIn(tags)
		}
		owners[name] = owner
		if _, counted := counts[owner.Kind]; !counted || owner.Cluster != s.ClusterUID {
			continue
		}
		counts[owner.Kind]++
		if !p.said[name] {
			p.said[name] = true
			ctrl.LoggerFrom(ctx).WithName("sweep").Info("A queue has no RequestChannel, and is left alone: delete it in SQS if nobody needs what is in it",
				"provider", p.Name, "queue", name, "kind", owner.Kind, "namespace", owner.Namespace, "name", owner.Name)
		}
	}
	for kind, n := range counts {
		s.Metrics.unclaimed(p.Name, kind, n)
	}
	return errors.Join(problems...)
}
