package sqstest

import (
	"path"
	"sync"
)

// AccessRule allows or denies requests. Each pattern is one of package path, so "*" and "" are everything,
// "Send*" is both kinds of send, and "rq_*" all queues with that prefix.
type AccessRule struct {
	// Deny makes it a denial, which no allowance overrides.
	Deny bool
	// AccessKey is the pattern of access key IDs.
	AccessKey string
	// Action is the pattern of actions, such as "SendMessage".
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
// IAM and queue policies, which are not evaluated.
func (s *Server) SetAccess(rules ...AccessRule) {
	s.access.mu.Lock()
	defer s.access.mu.Unlock()
	s.access.rules = append([]AccessRule(nil), rules...)
}

func (a *access) check(c *call) *apiError {
	a.mu.RLock()
	defer a.mu.RUnlock()
	limited, allowed := false, false
	for _, r := range a.rules {
		if !matches(r.AccessKey, c.accessKey) {
			continue
		}
		applies := matches(r.Action, c.action) && matches(r.Queue, c.queue)
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
	return errAccessDenied(c.accessKey, c.action, resource)
}

// matches is path.Match with an empty pattern for everything. A bad pattern matches nothing.
func matches(pattern, s string) bool {
	if pattern == "" || pattern == "*" {
		return true
	}
	ok, err := path.Match(pattern, s)
	return ok && err == nil
}
