package model

import (
	"context"
	"errors"
	"iter"
	"time"
)

// call is one request of an operator to the API server or to SQS, about to be made.
type call struct {
	task *task
	op   *operator
	// sqs says that it goes to SQS; verb and target are for the trace.
	sqs          bool
	verb, target string
	// closing says that it marks a record closed.
	closing bool
	// run has its effect, fail makes its caller see an error instead of the answer.
	run  func()
	fail func(error)
}

// closes says that this is the write that closes a Lease: the moment that matters most.
func (c *call) closes() bool { return c.verb == "update Lease" }

var errUnreachable = errors.New("the other side cannot be reached")

// task is one run of something of an operator's, a reconcile mostly, as a coroutine that stops before each external call.
type task struct {
	op      *operator
	name    string
	pending *call
	next    func() (*call, bool)
	stop    func()
	finish  func()
	// stalled says that the script leaves it alone until it is thawed.
	stalled bool
	// knew says that its cache showed the record with a queue when it began (P6), podRead when it last read a pod from the
	// API server (P2), and began when it began; both in steps.
	knew    bool
	podRead int
	// podReadAt is when that was.
	podReadAt time.Duration
	began     int
	// steps counts its calls.
	steps int
}

type yieldKey struct{}

// errKilled ends a coroutine whose process was killed.
var errKilled = errors.New("killed")

// start begins a task and runs it up to its first call. finish is called when it has ended by itself.
func (op *operator) start(name string, body func(context.Context), finish func()) *task {
	return op.startKnowing(name, false, body, finish)
}

// startKnowing returns nil when the task ended without a call.
func (op *operator) startKnowing(name string, knew bool, body func(context.Context), finish func()) *task {
	t := &task{op: op, name: name, finish: finish, knew: knew, began: op.world.step}
	sequence := func(yield func(*call) bool) {
		defer func() {
			if r := recover(); r != nil {
				if err, ok := r.(error); !ok || !errors.Is(err, errKilled) {
					panic(r)
				}
			}
		}()
		body(context.WithValue(op.ctx, yieldKey{}, func(c *call) {
			c.task = t
			if !yield(c) {
				panic(errKilled)
			}
		}))
	}
	t.next, t.stop = iter.Pull(iter.Seq[*call](sequence))
	op.tasks = append(op.tasks, t)
	t.resume()
	if t.pending == nil {
		return nil
	}
	return t
}

// resume runs the task up to its next call, or to its end.
func (t *task) resume() {
	c, more := t.next()
	if more {
		t.pending = c
		t.steps++
		return
	}
	t.pending = nil
	t.op.forget(t)
	t.finish()
}

// kill ends the task where it stands, without the call that it was about to make.
func (t *task) kill() {
	t.pending = nil
	t.stop()
}

func (op *operator) forget(t *task) {
	for i := range op.tasks {
		if op.tasks[i] == t {
			op.tasks = append(op.tasks[:i], op.tasks[i+1:]...)
			return
		}
	}
}

// ask makes a call when the script says so, and returns its answer.
func ask[T any](ctx context.Context, op *operator, c *call, run func(*call) (T, error)) (T, error) {
	var out T
	var err error
	c.op = op
	c.run = func() { out, err = run(c) }
	c.fail = func(e error) {
		var none T
		out, err = none, e
	}
	if yield, ok := ctx.Value(yieldKey{}).(func(*call)); ok {
		yield(c)
	} else {
		c.run()
	}
	return out, err
}
