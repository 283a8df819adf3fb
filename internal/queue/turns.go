package queue

import (
	"maps"
	"net/url"
	"strings"
	"sync/atomic"

	"k8s.io/utils/clock"
)

// This file holds which providers share turns. AWS counts requests by account and region, whoever sends them.

// counted is where AWS counts requests.
type counted struct {
	region string
	// endpoint is empty where it is one of AWS's own, whichever.
	endpoint string
	// account of the role that is assumed; empty: that of the operator's own credentials.
	account string
}

// turnsAt returns the turns of a place. They are kept when a QueueProvider is edited, and shared by all that lead there. Which
// account the operator's own credentials are of shows with the first URL of a queue; until then they count as one of their own.
func (r *Registry) turnsAt(at counted, limits Limits, clk clock.Clock) *atomic.Pointer[limiter] {
	turns, known := r.turns[at]
	if known {
		return turns
	}
	turns = r.keepTurns(at, newLimiter(limits, clk))
	if account := r.own[at.endpoint]; at.account == "" && account != "" {
		r.shareTurns(at, account)
	}
	return turns
}

// owns notes which account the operator's own credentials are of: from now on they take their turns, in every region, from those
// that a role of that account has too.
func (r *Registry) owns(endpoint, account string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.own[endpoint]
	if was == account {
		return
	}
	if r.own == nil {
		r.own = map[string]string{}
	}
	r.own[endpoint] = account
	for at, turns := range maps.Clone(r.turns) {
		if at.account != "" || at.endpoint != endpoint {
			continue
		}
		if was != "" {
			turns.Store(turns.Load().fresh()) // The credentials are another account's than before.
		}
		r.shareTurns(at, account)
	}
}

// shareTurns has the operator's own credentials take their turns there from those of an account, or that account from theirs
// where it has none yet.
func (r *Registry) shareTurns(at counted, account string) {
	own := r.turns[at]
	at.account = account
	if there, known := r.turns[at]; known {
		own.Store(there.Load())
		return
	}
	r.keepTurns(at, own.Load())
}

func (r *Registry) keepTurns(at counted, l *limiter) *atomic.Pointer[limiter] {
	if r.turns == nil {
		r.turns = map[counted]*atomic.Pointer[limiter]{}
	}
	turns := &atomic.Pointer[limiter]{}
	turns.Store(l)
	r.turns[at] = turns
	return turns
}

// notAWSs is the endpoint, unless it is one of AWS's own: the regional one, its dual-stack and FIPS forms, and VPC endpoints lead to
// the same service, which counts by account and region.
func notAWSs(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return endpoint
	}
	for _, domain := range []string{".amazonaws.com", ".amazonaws.com.cn", ".api.aws"} {
		if strings.HasSuffix(u.Hostname(), domain) {
			return ""
		}
	}
	return endpoint
}
