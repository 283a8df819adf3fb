package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// Forms of call beside the plain one.
const (
	stream = "stream"
	gather = "gather"
	first  = "first" // GatherFirst of one
	notify = "notify"
	slow   = "slow" // takes longer than a request stays hidden by itself
)

// caller makes calls, and tells the ledger the beginning and the end of each.
type caller struct {
	channels [2]*rpcclient.Channel // of requestQueue and keptQueue
	say      func(format string, args ...any)
	slow     bool // makes slow calls too
}

// call makes one call of some form.
func (c *caller) call(key string) {
	limit := shortest + rand.N(longest-shortest)
	w := work{Key: key, Numbers: []int{rand.IntN(100), rand.IntN(100), rand.IntN(100)}}
	ch := c.channels[0]
	if rand.IntN(4) == 0 {
		ch = c.channels[1]
	}
	if c.slow && rand.IntN(200) == 0 {
		c.plain(slow, slowSum, c.channels[1], w, slowLimit)
		return
	}
	switch rand.IntN(40) {
	case 0:
		c.stream(ch, w, limit)
	case 1:
		c.gather(gather, w, limit)
	case 2:
		c.gather(first, w, limit)
	case 3, 4:
		c.notify(ch, w, limit)
	default:
		c.one(ch, w, limit)
	}
}

func (c *caller) began(key, what string, limit time.Duration) (started time.Time) {
	started = time.Now()
	c.say("began %s %s %d %d", key, what, started.UnixNano(), limit)
	return started
}

// ended tells how a call ended that answered with a key.
func (c *caller) ended(key, answer string, err error, took time.Duration) {
	outcome, code := "OK", "OK"
	if err != nil {
		var e *rpcclient.Error
		if outcome, code, answer = "untyped", "-", "-"; errors.As(err, &e) {
			outcome, code = e.Outcome.String(), string(e.Code)
		}
	}
	c.say("ended %s %s %s %s %d", key, outcome, code, answer, took)
}

// broken tells in what a call's answer contradicts itself.
func (c *caller) broken(key string, wrong []string) {
	for _, what := range wrong {
		c.say("broken %s: %s", key, strings.ReplaceAll(what, "\n", "; "))
	}
}

// total is what an answer says, or that it is wrong.
func total(got result, w work) string {
	if want := w.Numbers[0] + w.Numbers[1] + w.Numbers[2]; got.Sum != want {
		return "wrong-sum-" + strconv.Itoa(got.Sum)
	}
	return got.Key
}

func (c *caller) one(ch *rpcclient.Channel, w work, limit time.Duration) {
	what, method := "sum", sum
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	switch rand.IntN(25) {
	case 0:
		what, method = "fail", fails
	case 1:
		what, method = "nowhere", nowhere
	case 5, 6:
		what, method = "busy", busy
	case 2, 3, 4: // the caller changes its mind
		what = "cancel"
		defer time.AfterFunc(rand.N(cancelWithin), cancel).Stop()
	}
	opts := []rpcclient.CallOption{rpcclient.CallTimeout(limit)}
	if what == "busy" { // many are refused for good
		opts = append(opts, rpcclient.CallMaxAttempts(1+rand.IntN(2)))
	}
	key := keyOn(ch.Name(), w.Key)
	started := c.began(key, what, limit)
	got, err := method.Call(ctx, ch, w, opts...)
	c.ended(key, total(got, w), err, time.Since(started))
}

func (c *caller) plain(what string, method rpcclient.Method[work, result], ch *rpcclient.Channel, w work, limit time.Duration) {
	key := keyOn(ch.Name(), w.Key)
	started := c.began(key, what, limit)
	got, err := method.Call(context.Background(), ch, w, rpcclient.CallTimeout(limit))
	c.ended(key, total(got, w), err, time.Since(started))
}

// mostFrames bounds a stream's replies.
const mostFrames = 25

// frames is how many replies a stream has.
func frames(w work) int { return w.Numbers[0] % (mostFrames + 1) }

// stream takes the replies in their order.
func (c *caller) stream(ch *rpcclient.Channel, w work, limit time.Duration) {
	key := keyOn(ch.Name(), w.Key)
	started := c.began(key, stream, limit)
	answer, wrong, err := judgeStream(counts.Stream(context.Background(), ch, w, rpcclient.CallTimeout(limit)), key, frames(w))
	took := time.Since(started)
	c.broken(key, wrong)
	c.ended(key, answer, err, took)
}

// judgeStream ranges over a stream of a number of replies, and says what is wrong with it: what is missing must be
// said to be, once. answer is the key in the replies.
func judgeStream(replies iter.Seq2[result, error], key string, number int) (answer string, wrong []string, err error) {
	next, ends, run := 0, 0, ""
	answer = key
	for got, e := range replies {
		switch {
		case e != nil:
			ends++
			err = e
			continue
		case ends > 0:
			wrong = append(wrong, fmt.Sprintf("reply %d after the end", got.Sum))
		case got.Sum != next:
			wrong = append(wrong, fmt.Sprintf("reply %d in place of %d", got.Sum, next))
		case got.Key != key:
			answer = got.Key
		case next > 0 && got.Run != run:
			wrong = append(wrong, fmt.Sprintf("reply %d is of another execution than the one before", got.Sum))
		}
		run = got.Run
		next++
	}
	var incomplete *rpcclient.Incomplete
	switch {
	case ends > 1:
		wrong = append(wrong, fmt.Sprintf("%d errors", ends))
	case err == nil && next != number:
		wrong = append(wrong, fmt.Sprintf("%d of %d replies, and no error", next, number))
	case errors.As(err, &incomplete) && (incomplete.Received != next || incomplete.Expected >= 0 && incomplete.Expected != number):
		wrong = append(wrong, fmt.Sprintf("%d of %d replies came, and the error is %v", next, number, err))
	case err != nil && next > 0 && incomplete == nil && !rpcclient.IsRemote(err):
		wrong = append(wrong, fmt.Sprintf("%d of %d replies came, and the error does not say so: %v", next, number, err))
	}
	return answer, wrong, err
}

// gather asks both channels, for all answers or the first.
func (c *caller) gather(what string, w work, limit time.Duration) {
	var keys [2]string
	var started time.Time
	for i, ch := range c.channels {
		keys[i] = keyOn(ch.Name(), w.Key)
		started = c.began(keys[i], what, limit)
	}
	want := len(keys)
	if what == first {
		want = 1
	}
	got, err := sum.GatherFirst(context.Background(), want, c.channels[:], w, rpcclient.CallTimeout(limit))
	took := time.Since(started)
	c.broken(keys[0], judgeGather(got, err, c.channels[:], want))
	for i, key := range keys {
		c.ended(key, total(got[i].Reply, w), got[i].Err, took)
	}
}

// judgeGather says what is wrong with the sum of some answers.
func judgeGather(got []rpcclient.Gathered[result], err error, channels []*rpcclient.Channel, want int) (wrong []string) {
	answered := 0
	for i := range channels {
		if got[i].Err == nil {
			answered++
		}
		if got[i].Channel != channels[i] {
			wrong = append(wrong, "an answer is said to be another channel's")
		}
	}
	var incomplete *rpcclient.Incomplete
	switch {
	case (err == nil) != (answered >= want):
		wrong = append(wrong, fmt.Sprintf("%d answers of %d, and the error is %v", answered, want, err))
	case err != nil && (!errors.As(err, &incomplete) || incomplete.Received != answered || incomplete.Expected != want):
		wrong = append(wrong, fmt.Sprintf("%d answers of %d, and the error says %v", answered, want, incomplete))
	}
	return wrong
}

func (c *caller) notify(ch *rpcclient.Channel, w work, limit time.Duration) {
	key := keyOn(ch.Name(), w.Key)
	started := c.began(key, notify, limit)
	// Of one attempt, or of several: what is known of one is not forgotten for another.
	err := notes.Notify(context.Background(), ch, w, rpcclient.CallTimeout(limit), rpcclient.CallMaxAttempts(1+rand.IntN(2)))
	c.ended(key, key, err, time.Since(started))
}
