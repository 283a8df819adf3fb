package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/queue"
)

const (
	// slowRetry is when to try again what only heals outside the cluster: IAM, KMS, another team's queue.
	slowRetry = 5 * time.Minute
	// nameLockRetry is when to ask again for a name that SQS refuses for 60 s after its deletion. Asking costs one
	// request and does not prolong the refusal.
	nameLockRetry = 15 * time.Second
	// throttledRetry is when to try again after SQS, rather than our own limiter, asked to slow down.
	throttledRetry = 10 * time.Second
	// visibleRetry is when to read again what SQS does not show yet.
	visibleRetry = 2 * time.Second
)

// pause is why a reconcile ends before the queue is as asked for: what to tell, and when to go on.
type pause struct {
	// stalled: only a change by a human can help.
	stalled bool
	// reason and message for the conditions; an empty reason leaves them as they are.
	reason, message string
	// about, if set, is what message begins with. What follows are the words of one try, which may differ from the next one's.
	about string
	// passing: the trouble says nothing about the queue itself, and goes by.
	passing bool
	// after is when to try again; 0 with no cause: when something changes.
	after time.Duration
	// cause, if set, is returned, so that the workqueue backs off.
	cause error
	// why, if set, says in a way that the code can ask for what message says to people.
	why error
}

// Error is the message.
func (p *pause) Error() string { return p.message }

// Unwrap is the cause, and why.
func (p *pause) Unwrap() []error {
	return slices.DeleteFunc([]error{p.cause, p.why}, func(err error) bool { return err == nil })
}

func (p *pause) result() (ctrl.Result, error) {
	if p.cause != nil {
		return ctrl.Result{}, p.cause
	}
	return ctrl.Result{RequeueAfter: p.after}, nil
}

func stalled(reason, format string, args ...any) error {
	return &pause{stalled: true, reason: reason, message: fmt.Sprintf(format, args...), after: slowRetry}
}

func waiting(after time.Duration, reason, format string, args ...any) error {
	return &pause{reason: reason, message: fmt.Sprintf(format, args...), after: after}
}

// ofCluster marks an error as the API server's, or the way to it: it says nothing about the queue, and the workqueue
// backs off.
func ofCluster(err error) error {
	if err == nil {
		return nil
	}
	return &pause{message: err.Error(), cause: err}
}

// refusedByCluster reports whether the API server refuses a write until somebody changes something: by a quota, an admission policy or
// webhook, or since it makes no sense. A webhook that denies without a code, as some policy engines do, is answered as a bad request.
func refusedByCluster(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)
}

// notVisible waits for SQS to show a queue that was created a moment ago.
func notVisible(name string) error {
	return waiting(visibleRetry, v1alpha1.ReasonProgressing, "queue %s was created and SQS does not show it yet", name)
}

// judge turns an error into what to tell of it and when to go on; nil stays nil. Slow retries are spread by a tenth to
// either side, so that channels which stalled together do not ask together.
func judge(channel *v1alpha1.RequestChannel, err error) *pause {
	p := judged(channel, err)
	if p != nil && p.after == slowRetry {
		p.after = time.Duration(float64(slowRetry) * (0.9 + 0.2*fraction(channel.UID)))
	}
	return p
}

func judged(channel *v1alpha1.RequestChannel, err error) *pause {
	if err == nil {
		return nil
	}
	var p *pause
	if errors.As(err, &p) {
		return p
	}
	var kubernetes apierrors.APIStatus
	if errors.As(err, &kubernetes) || errors.Is(err, context.Canceled) {
		return &pause{cause: err}
	}
	return judgeSQS(channel, err)
}

func judgeSQS(channel *v1alpha1.RequestChannel, err error) *pause {
	words := queue.Explain(err)
	switch class := queue.Classify(err); class {
	case queue.NotFound:
		return &pause{reason: v1alpha1.ReasonProgressing, message: "SQS does not show the queue yet", after: visibleRetry}
	case queue.DeletedRecently:
		return &pause{
			reason: v1alpha1.ReasonQueueDeletedRecently, after: nameLockRetry,
			message: "SQS refuses the queue's name for 60 seconds after a queue of that name was deleted",
		}
	case queue.Throttled:
		after, told := queue.RetryAfter(err)
		var ours *queue.SlowDown
		if errors.As(err, &ours) {
			return &pause{reason: v1alpha1.ReasonProgressing, message: "Many queues are being worked on at once; this one waits for its turn", after: after, passing: true}
		}
		if !told || after <= 0 {
			after = time.Duration(float64(throttledRetry) * (0.5 + fraction(channel.UID)))
		}
		return &pause{reason: v1alpha1.ReasonThrottled, message: "SQS asks for fewer requests; the queue waits for its turn", after: after, passing: true}
	case queue.Fenced:
		return &pause{stalled: true, reason: v1alpha1.ReasonIdentityConflict, message: words, after: slowRetry}
	case queue.Unproven:
		after, _ := queue.RetryAfter(err)
		return &pause{reason: v1alpha1.ReasonIdentityUnproven, message: words, after: after, passing: true, why: err}
	case queue.Denied:
		return &pause{stalled: true, reason: v1alpha1.ReasonAccessDenied, message: "AWS denies the operator: " + words, after: slowRetry}
	case queue.KMS:
		return &pause{stalled: true, reason: v1alpha1.ReasonKMSError, message: queue.FieldOf(queue.KMSMasterKeyID) + ": " + words, after: slowRetry}
	case queue.Exists:
		return &pause{stalled: true, reason: v1alpha1.ReasonConflict, message: words, after: slowRetry}
	case queue.Invalid:
		return &pause{stalled: true, reason: v1alpha1.ReasonInvalid, message: blame(words, channel.Spec.ExtraAttributes) + words, after: slowRetry}
	default:
		return &pause{reason: v1alpha1.ReasonSQSUnavailable, message: "SQS does not answer as it should: " + words, cause: err, passing: true}
	}
}

// blame names the field that AWS's words are about, where they name an attribute; extra are those without a field.
func blame(words string, extra map[string]string) string {
	if attribute := queue.AttributeIn(words, extra); attribute != "" {
		return queue.FieldOf(attribute) + ": "
	}
	if strings.Contains(strings.ToLower(words), "tag") {
		return "spec.tags: "
	}
	return ""
}
