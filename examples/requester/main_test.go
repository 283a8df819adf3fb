package main

import (
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

func TestQuantile(t *testing.T) {
	var l latencies
	if l.quantile(0.5) != 0 {
		t.Error("a quantile of nothing")
	}
	for ms := 1; ms <= 1000; ms++ {
		l.add(time.Duration(ms) * time.Millisecond)
	}
	for q, want := range map[float64]float64{0.5: 500, 0.99: 990, 1: 1000} {
		if got := l.quantile(q); math.Abs(got-want) > want*0.06 {
			t.Errorf("quantile %v is %v ms, want %v", q, got, want)
		}
	}
	l.add(0)
	l.add(24 * time.Hour)
}

func TestBooksKeepWrongAnswersApart(t *testing.T) {
	var b books
	b.answered(time.Millisecond, true)
	b.answered(time.Millisecond, false)
	b.failed(&rpcclient.Error{Code: rpcclient.Unavailable, Outcome: rpcclient.NotSent}, false)
	b.failed(errors.New("x"), true)
	b.cutOff()
	if b.calls != 5 || b.ok != 1 || b.wrong != 1 || b.excused != 1 || b.cut != 1 || b.failures["UNAVAILABLE/not_sent"] != 1 {
		t.Errorf("%+v", &b)
	}
}

func TestOnlyPausesExcuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pauses{lastTick: time.Now()} // its ticker stands still, as in a stopped process
		lost := rpcclient.Errorf(rpcclient.Unavailable, "%w", rpcclient.ErrReplyQueueLost)
		other := rpcclient.Errorf(rpcclient.Unavailable, "no")
		started := time.Now()
		time.Sleep(time.Second)
		if p.excuse(started, other) {
			t.Error("excused without a pause")
		}
		time.Sleep(time.Minute)
		if !p.excuse(started, other) {
			t.Error("a call across a pause is not excused")
		}
		started = time.Now()
		time.Sleep(time.Second)
		if p.excuse(started, other) || !p.excuse(started, lost) {
			t.Error("after a pause only the loss of the reply queue is its consequence")
		}
		for range 60 {
			time.Sleep(time.Second)
			p.tick()
		}
		if p.excuse(time.Now(), lost) {
			t.Error("excused a minute after the pause")
		}
	})
}
