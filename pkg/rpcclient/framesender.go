package rpcclient

import (
	"context"
	"sync"
)

const (
	// frameWindow and frameWindowBytes bound the frames of one stream that SQS has not accepted yet.
	frameWindow      = 32
	frameWindowBytes = 1 << 20
)

// frameSender sends the frames of one execution of a streaming handler.
type frameSender struct {
	server *channelServer
	q      *request
	cancel context.CancelCauseFunc // of the handler's context

	mu       sync.Mutex
	out      int // frames that SQS has not accepted yet
	bytes    int
	err      error         // of the first that was not accepted
	refused  int           // its number, from 0
	accepted int           // how many were accepted up to the latest of them
	changed  chan struct{} // capacity 1: something changed
}

func newFrameSender(s *channelServer, q *request) *frameSender {
	return &frameSender{server: s, q: q, changed: make(chan struct{}, 1)}
}

// run calls the handler, and returns when SQS has accepted every frame or refused one.
func (f *frameSender) run(ctx context.Context) error {
	ctx, f.cancel = context.WithCancelCause(ctx)
	defer f.cancel(nil)
	defer f.wait() // before the context's end, also when the handler panics
	h := f.q.handler
	req, err := h.decode(f.q.payload)
	if err != nil {
		return &undecodable{err}
	}
	return h.serve(ctx, &IncomingCall{Info: &f.q.info, Request: req}, func(reply any) error {
		payload, err := h.encode(reply)
		if err != nil {
			return Errorf(Internal, "encode the reply: %w", err)
		}
		return f.send(ctx, payload)
	})
}

// send queues one frame, once there is room.
func (f *frameSender) send(ctx context.Context, payload []byte) error {
	q, r := f.q, f.server.r
	content := frameContent(q, payload)
	size := content.bytes()
	if size+r.cfg.reserve > maxSQSBytes {
		return &Error{Code: ResourceExhausted, Message: "the reply is over the limit of a message", cause: ErrPayloadTooLarge}
	}
	for {
		f.mu.Lock()
		if f.err == nil && ctx.Err() == nil && (f.out == 0 || f.out < frameWindow && f.bytes+size <= frameWindowBytes) {
			break
		}
		err := f.err
		f.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-f.changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	number := q.sent
	q.sent++
	f.out++
	f.bytes += size
	f.mu.Unlock()
	if q.peer == PeerOneWay {
		f.done(number, size, nil)
		return nil
	}
	m := &replyMessage{to: q.to, content: content, reserve: r.cfg.reserve, deadline: q.deadline, pack: q.packs}
	deliver := func() {
		m.out = outgoing{message: m}
		r.replies.to(q.to.queueURL).add(&m.out)
	}
	m.done = func(err error) {
		if waits, err := f.server.notFoundYet(q, m, err, deliver); !waits {
			f.done(number, size, err)
		}
	}
	deliver()
	return nil
}

func (f *frameSender) done(number, size int, err error) {
	f.mu.Lock()
	f.out--
	f.bytes -= size
	if err == nil {
		f.server.r.gone.answered(f.q.to.queueURL)
		f.accepted = max(f.accepted, number+1)
	} else if f.err == nil {
		f.err, f.refused = err, number
		f.cancel(err)
	}
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// wait blocks until no frame is on its way. A sender gives up by itself after some seconds.
func (f *frameSender) wait() {
	for {
		f.mu.Lock()
		out := f.out
		f.mu.Unlock()
		if out == 0 {
			return
		}
		<-f.changed
	}
}

// endAtRefused has the stream end in the place of the frame that was refused, unless one behind it was accepted: then
// it ends with a gap. It is called when no frame is on its way.
func (f *frameSender) endAtRefused() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.accepted <= f.refused {
		f.q.sent = f.refused
	}
}

// failure is why a frame was not accepted; nil if all were.
func (f *frameSender) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}
