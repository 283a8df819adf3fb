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
// there are allowances for its access key and none matches it. No rules at all allow everything. It is a stand-in for
// IAM and queue policies, which are not evaluated. It panics on a pattern that is malformed, and on one of actions that
// matches none.
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

func (r AccessRule) check() error {
	for _, pattern := range []string{r.AccessKey, r.Action, r.Queue} {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("pattern %q: %w", pattern, err)
		}
	}
	for action := range actions {
		if matches(r.Action, permission(action)) {
			return nil
		}
	}
	return fmt.Errorf("there is no permission %q (batches are governed by that of the single action)", r.Action)
}

// permission is what an action is called where access is granted ("Amazon SQS API permissions", developer guide).
func permission(action string) string { return strings.TrimSuffix(action, "Batch") }

func (a *access) check(c *call) *apiError {
	a.mu.RLock()
	defer a.mu.RUnlock()
	limited, allowed := false, false
	for _, r := range a.rules {
		if !matches(r.AccessKey, c.accessKey) {
			continue
		}
		applies := matches(r.Action, permission(c.action)) && matches(r.Queue, c.queue)
		if r.Deny {
			if applies {
				return a.denied(c)
			}
			continue
		}
		limited = true
		allowed = allowed || applies
	}
	if limited && !allowed {
		return a.denied(c)
	}
	return nil
}

func (a *access) denied(c *call) *apiError {
	resource := "*"
	if c.queue != "" {
		resource = queueKey{c.region, c.owner(), c.queue}.arn()
	}
	return errAccessDenied(c.accessKey, permission(c.action), resource)
}

// matches is path.Match with an empty pattern for everything. A bad pattern matches nothing.
func matches(pattern, s string) bool {
	if pattern == "" || pattern == "*" {
		return true
	}
	ok, err := path.Match(pattern, s)
	return ok && err == nil
}
