package controller

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// TestCrashPoints stops the operator after each single write of a pod's whole life in turn, restarts it without its
// memory, and expects the same end each time: no queue of a living pod lost, and nothing left. A write is any to the API
// server or to SQS. A stop before a call, or after one that only reads, finds the world as the write before it left it, and
// the process remembers nothing: it is the stop after that write.
func TestCrashPoints(t *testing.T) {
	live := func(t *testing.T, point int) int {
		s := newReadyStage(t)
		return s.liveOneLife(point)
	}
	points := live(t, 0)
	if points < 20 {
		t.Errorf("only %d writes in a life: the scenario does not do what it says", points)
	}
	t.Run("points", func(t *testing.T) {
		for point := 1; point <= points; point++ {
			t.Run(fmt.Sprint(point), func(t *testing.T) {
				t.Parallel()
				if live(t, point) < point {
					t.Error("the point was never reached")
				}
			})
		}
	})
	if !t.Failed() {
		t.Logf("CRASHPOINTS lifecycle=%d", points) // hack/crashpoints reads this line.
	}
}

var errCrash = errors.New("the process was stopped here")

// liveOneLife is created → queue → heartbeat → silence → idle → wake → deleted, with a crash after the given write of the
// operator; 0: none. It counts the writes.
func (s *stage) liveOneLife(point int) (writes int) {
	alive := true
	// The crash comes after the effect: the write is done and its caller never learns of it.
	crash := func() {
		s.Helper()
		for range 40 {
			crashed := s.settleOrCrash(func() bool {
				writes++
				return alive && writes == point
			})
			if !crashed {
				return
			}
			alive = false
			s.restart()
		}
		s.Fatal("never came to rest")
	}
	p := s.pod("web-1", caller())
	crash()
	s.run(p)
	crash()
	s.beat(p)
	crash()
	if n := len(s.queues()); n != 1 {
		s.Fatalf("%d queues for a living pod, want 1", n)
	}
	for range 4 { // the silence; a crash in it begins its count anew
		s.undisturbed(70 * time.Second)
		s.signals.Heartbeats.Tick(s.clock.Now())
		crash()
	}
	if n := len(s.queues()); n != 0 {
		s.Fatalf("%d queues for a silent pod, want 0", n)
	}
	s.beat(p)
	crash()
	s.beat(p)
	crash()
	if n := len(s.queues()); n != 1 {
		s.Fatalf("%d queues for a pod that woke, want 1", n)
	}
	s.stop(p)
	for range 4 {
		crash()
		s.undisturbed(time.Minute)
	}
	s.expectNothingLeft(p)
	return writes
}

// settleOrCrash settles, and gives up at once after the write for which stop returns true.
func (s *stage) settleOrCrash(stop func() bool) (crashed bool) {
	s.Helper()
	s.afterWrite = func() {
		if stop() {
			panic(errCrash)
		}
	}
	defer func() {
		s.afterWrite = nil
		if r := recover(); r != nil {
			if err, ok := r.(error); !ok || !errors.Is(err, errCrash) {
				panic(r)
			}
			crashed = true
		}
	}()
	s.settle()
	return false
}
