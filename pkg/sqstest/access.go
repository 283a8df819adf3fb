package sqstest

import (
	"fmt"
	"path"
	"strings"
	"sync"
)

// AccessRule allows or denies requests. Each pattern is one of package path, so "*" and "" are everything,
// "Get*" is all actions that begin so, and "rq_*" all queues with that prefix.
type AccessRule struct {
	// Deny makes it a denial, which no allowance overrides.
	Deny bool
	// AccessKey is the pattern of access key IDs.
	AccessKey string
	// Action is the pattern of permissions, such as "SendMessage". As in IAM, that of SendMessage, DeleteMessage and
	// ChangeMessageVisibility is for their batches too, which have none of their own.
	Action string
	// Queue is the pattern of queue names. A rule with one says nothing about requests that are about no queue, such as
	// ListQueues.
	Queue string
}

// access is who may do what. Without rules, everybody may do everything.
type access struct {
	mu    sync.RWMutex
	rules []AccessRule
}

// SetAccess replaces the access rules. A request is refused with AccessDenied (HTTP 403) when a denial matches it, or when
// there are allowances for its access key and none matches it. No rules at all allow everything. A message move task also
// takes ReceiveMessage, DeleteMessage and GetQueueAttributes on the dead-letter queue, and SendMessage on each queue that
// it may move to ("dead-letter queue redrive", developer guide). It is a stand-in for IAM and queue policies, which are not
// evaluated. It panics on a rule that could never apply: a pattern that is malformed, or matches no action, or no name that
// a queue can have.
func (s *Server) SetAccess(rules ...AccessRule) {
	for i, r := range rules {
		if err := r.check(); err != nil {
			panic(fmt.Sprintf("sqstest: access rule %d: %v", i, err))
		}
	}
	s.access.mu.Lock()
	defer s.access.mu.Unlock()
	s.access.rules = append([]AccessRule(nil), rules...)
}

// check refuses a rule that could never apply. It names the field.
func (r AccessRule) check() error {
	if _, err := parsePattern(r.AccessKey); err != nil {
		return fmt.Errorf("AccessKey: pattern %q: %w", r.AccessKey, err)
	}
	if _, err := parsePattern(r.Action); err != nil {
		return fmt.Errorf("Action: pattern %q: %w", r.Action, err)
	}
	kinds, err := kindsOf(r.Queue)
	if err != nil {
		return fmt.Errorf("Queue: pattern %q: %w", r.Queue, err)
	}
	var of []string
	for action := range actions {
		if matches(r.Action, permission(action)) {
			of = append(of, action)
		}
	}
	switch {
	case len(of) == 0:
		return fmt.Errorf("Action: there is no permission %q (batches are governed by that of the single action)", r.Action)
	case !kinds.standard && !kinds.fifo:
		return fmt.Errorf("Queue: %w", errNoSuchName(r.Queue))
	case len(of) == 1 && of[0] == "ListQueues" && !kinds.none:
		return fmt.Errorf("Queue: %q never matches: ListQueues is about no queue", r.Queue)
	}
	return nil
}

// permission is what an action is called where access is granted ("Amazon SQS API permissions", developer guide).
func permission(action string) string { return strings.TrimSuffix(action, "Batch") }

// check is about what a request asks for itself.
func (a *access) check(c *call) *apiError { return a.may(c.accessKey, permission(c.action), c.about) }

// may is nil when the access key has the permission on the queue; the zero queueKey is for none.
func (a *access) may(accessKey, permission string, on queueKey) *apiError {
	a.mu.RLock()
	defer a.mu.RUnlock()
	limited, allowed := false, false
	for _, r := range a.rules {
		if !matches(r.AccessKey, accessKey) {
			continue
		}
		applies := matches(r.Action, permission) && matches(r.Queue, on.name)
		if r.Deny {
			if applies {
				return denied(accessKey, permission, on)
			}
			continue
		}
		limited = true
		allowed = allowed || applies
	}
	if limited && !allowed {
		return denied(accessKey, permission, on)
	}
	return nil
}

// mayMove is about a message move task: what it does, its caller must be allowed to do.
func (a *access) mayMove(accessKey string, from queueKey, to ...queueKey) *apiError {
	for _, permission := range []string{"ReceiveMessage", "DeleteMessage", "GetQueueAttributes"} {
		if err := a.may(accessKey, permission, from); err != nil {
			return err
		}
	}
	for _, key := range to {
		if err := a.may(accessKey, "SendMessage", key); err != nil {
			return err
		}
	}
	return nil
}

func denied(accessKey, permission string, on queueKey) *apiError {
	resource := "*"
	if on.name != "" {
		resource = on.arn()
	}
	return errAccessDenied(accessKey, permission, resource)
}

// matches is path.Match with an empty pattern for everything. A bad pattern matches nothing.
func matches(pattern, s string) bool {
	if pattern == "" || pattern == "*" {
		return true
	}
	ok, err := path.Match(pattern, s)
	return ok && err == nil
}
