package queue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// silentAfter is how many requests in a row get no answer before a provider's endpoint is taken to give none.
	silentAfter = 3
	// shortestSilence and longestSilence are how long it is left alone then before one request tries it again; the time
	// doubles with each that tries in vain. So it takes at most a fifth of a worker, in the end.
	shortestSilence = time.Second
	longestSilence  = 4 * RequestTimeout
)

// silence keeps a provider that gets no answers from taking all workers: each of its requests holds one for RequestTimeout. While
// it lasts, one request at a time is sent, and the others fail at once as the last one did. It is each provider's own: others
// may lead to the same account and region by an endpoint that answers.
type silence struct {
	mu sync.Mutex
	// row is how many requests in a row got no answer, and last what became of the last.
	row  int
	last error
	// pause is how long nothing is sent, and until when.
	pause time.Duration
	until time.Time
}

// notSent is what a request fails with that was not sent, since those before it got no answer.
type notSent struct{ error }

func (e *notSent) Error() string { return fmt.Sprintf("not sent, as the last got none: %v", e.error) }
func (e *notSent) Unwrap() error { return e.error }

// anyway marks a context whose requests are sent also where those before them got no answer.
type anyway struct{}

// Anyway returns a context whose requests are sent also where those before them got no answer. It is for whoever asks seldom, and
// has to know.
func Anyway(ctx context.Context) context.Context { return context.WithValue(ctx, anyway{}, true) }

// Unanswered reports whether err is that of a request which got no answer in time, or was not sent since those before it got
// none. SQS's refusals are answers, and so are connections that are refused.
func Unanswered(err error) bool { return errors.Is(err, context.DeadlineExceeded) }

// ask returns what a request fails with that is not to be sent, and otherwise whether it is the one that tries. It never blocks.
func (s *silence) ask(now time.Time) (tries bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.row < silentAfter:
		return false, nil
	case now.Before(s.until):
		return false, &notSent{s.last}
	}
	s.until = now.Add(2 * RequestTimeout) // Nobody else meanwhile; its caller may go before it is over.
	return true, nil
}

// untried gives a try back that was not sent, so that the next request is it.
func (s *silence) untried() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = time.Time{}
}

// heard notes what became of a request that was sent: err is why it got no answer; nil: it got one, whichever.
func (s *silence) heard(err error, tried bool, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.row, s.last, s.pause, s.until = 0, nil, 0, time.Time{}
		return
	}
	s.row++
	s.last = err
	if tried || s.row == silentAfter { // Those that were under way with the last of these say nothing new.
		s.pause = min(max(2*s.pause, shortestSilence), longestSilence)
		s.until = now.Add(s.pause)
	}
}
