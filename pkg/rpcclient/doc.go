// Package rpcclient makes calls over Amazon SQS: typed requests with a deadline, each with its own reply
// or an error that says what happened. It works in both directions with the Amazon SQS Temporary Queue
// Client for Java. docs/protocol.md specifies the messages.
//
// # A call
//
// Requester and responder share a method:
//
//	var Sum = rpcclient.NewMethod[SumRequest, SumReply]("calculate_sum")
//
// In a pod that the operator has injected, package rpcenv finds everything else:
//
//	requester, err := rpcenv.NewRequester(ctx)
//	login, err := requester.Channel("login")
//	reply, err := Sum.Call(ctx, login, SumRequest{Numbers: []int{10, 20, 30}})
//
//	responder, err := rpcenv.NewResponder(ctx)
//	Sum.Handle(responder, func(ctx context.Context, r SumRequest) (SumReply, error) { … })
//	err = responder.Serve(ctx)
//
// Elsewhere, NewRequester and NewResponder take an SQS client and the queues' URLs.
//
// # Deadlines
//
// A call ends at the earliest of its context's deadline, CallTimeout, the channel's and the requester's
// timeout (30 s unless set), counted from the moment of the call. What is left travels with the
// request: a responder drops a request whose time is over, and gives its handler the rest as its
// context's deadline. Calls that a handler makes with that context inherit it. Clocks of different
// machines are never compared.
//
// # Errors
//
// Every error of Call is an *Error. Its Code is one of gRPC's; its Outcome says whether a handler ran:
//
//	NotSent        certainly not: repeat at will
//	Rejected       certainly not, a responder refused it: repeat at will, after RetryAfter
//	Executed       yes, and this is its error
//	MaybeExecuted  nobody can say: repeat what is idempotent
//
// errors.Is finds context.DeadlineExceeded, the cause of a cancelled context, ErrReplyQueueLost,
// ErrPayloadTooLarge, ErrTooManyPending and ErrClosed. A handler chooses the caller's error with Errorf.
//
// # Duplicates
//
// SQS delivers at least once. A responder recognises copies of a request for as long as it matters and
// answers them without running the handler again, but only within its own process: a handler that must
// not run twice needs a store of its own, keyed by something in the request.
//
// # Cost
//
// Sends, deletes and extensions share SQS requests: a call alone costs about 4, at 256 at a time 0.6.
// Nothing waits for a batch to fill while the queue is idle. A requester polls only while calls are
// pending; an idle responder makes three requests a minute per channel.
//
// # Shutdown
//
// Stop what makes calls first and what answers replies last. In a process that only serves, end Serve's
// context: it stops receiving, finishes handlers, sends their replies and deletes their requests. In one
// that only calls, call Requester.Shutdown, which waits for pending calls. In one whose handlers call:
// end Serve's context, wait for Serve to return, then call Requester.Shutdown; the other way round, the
// handlers' calls would fail.
//
// An idle responder's long poll is let run out, for 20 s at most (WithReceiveWait), because SQS may have
// given it a request that would otherwise stay hidden.
//
// # Deadlock
//
// A handler may call other channels, its own too: replies are received apart from requests. But a
// responder whose handlers all wait for calls to itself has no handler free to answer them; such calls
// end at their deadlines. Give them a channel of their own or more concurrency than they can use.
package rpcclient
