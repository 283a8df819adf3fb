package rpcclient

import (
	"sync"
	"time"
)

// absent are the replies that wait to be sent again since their queues were not found. As many wait at a time as may be
// stuck at queues that fail.
type absent struct {
	mu      sync.Mutex
	waiting map[string][]func() // by queue: send them again
}

// wait keeps what sends a reply again, and reports whether it is the first of its queue.
func (a *absent) wait(url string, again func()) (first bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting == nil {
		a.waiting = map[string][]func(){}
	}
	a.waiting[url] = append(a.waiting[url], again)
	return len(a.waiting[url]) == 1
}

// take takes what waits for a queue.
func (a *absent) take(url string) []func() {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.waiting[url]
	delete(a.waiting, url)
	return all
}

// notFoundYet has a native requester's reply, or frame, sent again in a while whose queue was not found, and reports
// that it waits for that: SQS may not know a new queue at first. It does not when SQS has said so for long enough, or
// when the reply's time is over. Beyond the bound it does not either: nobody knows yet whether the queue is gone, which
// the error that it returns says then. It comes again with its request.
func (s *channelServer) notFoundYet(q *request, m *replyMessage, err error, again func()) (waits bool, _ error) {
	r := s.r
	if err == nil || !isMissingQueue(err) || q.peer != PeerNative {
		return false, err
	}
	if r.gone.missing(q.to.queueURL, time.Now()) || !time.Now().Before(m.deadline) {
		return false, err
	}
	jam := &r.replies.jam
	if jam.stuck.Add(1) > jam.limit {
		jam.stuck.Add(-1)
		if m.last { // it does not come again
			return false, err
		}
		return false, errJammed
	}
	r.unsettled.Add(1)
	if url := m.to.queueURL; r.replies.absent.wait(url, again) {
		go func() { // ends when the responder is cut off, at the latest
			sleep(r.work, missingRetry)
			for _, again := range r.replies.absent.take(url) {
				jam.stuck.Add(-1)
				again()
				r.unsettled.Done()
			}
		}()
	}
	return true, nil
}
