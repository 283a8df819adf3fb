// Package rpcclient makes calls over Amazon SQS: typed requests with a deadline, each with its own reply
// or an error that says what happened. It works in both directions with the Amazon SQS Temporary Queue
// Client for Java. docs/protocol.md specifies the messages.
//
// # A first call
//
// Requester and responder share a method, usually in a package that both import:
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
// Elsewhere, NewRequester and NewResponder take an SQS client and the queues' URLs. Tests need neither:
// see package rpctest.
//
// # Forms of call
//
//	Call                  waits for the one reply
//	Start                 does not: its Pending has Wait, Done and Cancel
//	Stream                ranges over many replies, which HandleStream sends
//	Gather, GatherFirst   ask several channels at once
//	Notify                awaits no reply
//	Resume                awaits the reply of a call that an earlier process made (WithCallID), where the
//	                      reply queue outlives it (a ReplyHost with identity Stable)
//
// All are methods of Method. NewRawMethod has them for bytes.
//
// # Deadlines
//
// A call ends at the earliest of its context's deadline, CallTimeout, the channel's and the requester's
// timeout (30 s unless set), counted from the moment of the call: waiting for a place among the pending
// calls and every attempt are within it. What is left travels with the request: a responder drops a
// request whose time is over, and gives its handler the rest as its context's deadline. Calls that a
// handler makes with that context inherit it. How long a request waited is told by SQS's clock alone. The machines' own
// clocks matter only where one is off by five minutes or more: by the time that its requester stamps on it, a request that is so
// much older than its deadline is dropped, since it was moved back from a dead-letter queue. A requester whose clock is
// behind sees that by SQS's first answer, and stamps SQS's time from then on; what it sent before is lost if its clock
// is that far behind, of which responders warn in their logs.
//
// # Errors
//
// Every error of a call is an *Error. Its Code is one of gRPC's; its Outcome says whether a handler ran:
//
//	NotSent        certainly not: repeat at will
//	Rejected       no: a responder refused it before its handler ran. Repeat at will, after RetryAfter
//	Executed       yes, and this is its answer, or happened to its answer
//	MaybeExecuted  nobody can say: repeat what is idempotent
//
// Rejected is said of the copy that the responder had, and has deleted before it says so. SQS may have made another by itself, and that one
// may be executed elsewhere, as it may after a success: see Duplicates. Where the requester or the responder
// can tell that there are copies, the outcome is MaybeExecuted.
//
// A handler chooses the caller's error with Errorf and WithDetails. What a requester finds by itself:
//
//	INVALID_ARGUMENT     NotSent        the request cannot be encoded, or an option is wrong
//	                     Rejected       the responder cannot decode it
//	RESOURCE_EXHAUSTED   NotSent        ErrPayloadTooLarge, ErrTooManyPending, or SQS throttles
//	                     Executed       the reply is over the limit of SQS, or of its queue
//	UNAVAILABLE          NotSent        SQS cannot be reached, or there is no reply queue (ErrReplyQueueLost)
//	                     Rejected       shed: the responders have more than they can do
//	                     MaybeExecuted  the reply queue was lost (ErrReplyQueueLost); or SQS's answer to a request that
//	                                    is one-way, or idempotent with no time left to repeat it
//	                     Executed       a stream's reply queue is gone after some of its replies (Incomplete)
//	UNIMPLEMENTED        Rejected       no responder has the method, or it answers with a stream
//	NOT_FOUND            NotSent        the request queue does not exist
//	PERMISSION_DENIED    NotSent        AWS refused the credentials or the action
//	FAILED_PRECONDITION  NotSent        SQS refused the message for another reason
//	DEADLINE_EXCEEDED    NotSent, MaybeExecuted  no reply in time (context.DeadlineExceeded), also when SQS's answer to
//	                                    the request was lost
//	                     Rejected       it ended in the pause after a refusal
//	                     Executed       a stream broke off after some of its replies (Incomplete)
//	CANCELLED            NotSent, MaybeExecuted  the context ended (its cause), or ErrClosed
//	                     Rejected       it ended in the pause after a refusal
//	                     Executed       a stream broke off after some of its replies (Incomplete)
//	ALREADY_EXISTS       NotSent        a call with this WithCallID is pending
//	DATA_LOSS            Executed       a stream lost replies (Incomplete)
//	INTERNAL             Executed       the reply cannot be decoded, or the handler panicked
//	                     MaybeExecuted  its envelope cannot be read, or an interceptor or a codec ended the call
//	                     NotSent        they did so before it was made
//	UNKNOWN              Executed       the handler returned an error without a code
//
// The outcome is that of the attempt which got furthest, the code the last one's; where there may be copies of a
// request, MaybeExecuted takes the place of Rejected, and in Resume that of NotSent.
//
// docs/protocol.md says what to do about each. errors.Is finds the sentinels and the cause of a
// cancelled context; errors.As finds Incomplete.
//
// # Retries
//
// A requester repeats calls by itself where that is safe and may help (RetryPolicy): what is Unavailable or
// ResourceExhausted when it is NotSent or Rejected, and whatever is Unavailable for methods marked Idempotent;
// up to three attempts, within the deadline, with
// backoff, a responder's RetryAfter obeyed, and not at all while most of a channel's calls fail. A call
// that may have been executed is never repeated otherwise: the program has to say that it may be. All
// attempts have one call ID, so that responders which share a store (Duplicates) execute no two of them; a
// repeated Rejected is executed twice only where SQS itself made a copy, which might happen without repeating.
//
// # Duplicates
//
// SQS delivers at least once. A responder recognises copies of a request for as long as it matters and
// answers them without running the handler again, but only within its own process. A handler that must
// not run twice needs WithReplyStore, a store that its responders share, or one of its own keyed by
// something in the request. So does one that runs for more than 12 hours, beyond which SQS hides no message.
//
// # Interceptors and hooks
//
// Interceptors (WithCallInterceptors, WithHandlerInterceptors) wrap calls and handlers: they see and may
// change requests, replies, metadata and errors. The first given is the outermost. On the requester all
// attempts happen inside; on the responder they run once per execution, after decoding, and not for
// duplicates. Hooks only watch. Package rpcotel has spans and metrics.
//
// # Load
//
// A requester holds at most MaxPending calls; one more waits, within its deadline, or fails at once
// (WithMaxPending). A responder receives no more than it has free handlers (WithConcurrency), so that
// what waits is in the queue, where other responders find it. A method can have a limit of its own
// (WithMethodConcurrency), and requests that waited too long can be refused (WithMaxQueueAge): both tell
// requesters when to try again. Replies to a queue that SQS does not let it write, as one that is throttled, are kept
// beyond a bound, and sent when their requests come again, so that others do not wait for them. The dead-letter queue of the channel takes what fails without a reply.
//
// Requester.Healthy and Responder.Healthy say when nothing can be received; a call's error has what the last
// receive failed with.
//
// # Cost
//
// Sends, deletes and extensions share SQS requests: a call costs about 0.6 at 256 at a time, 4 where one follows the
// other within a second, and 6 to 8 by itself, which shares nothing. Nothing waits for a batch to fill while the queue
// is idle. A requester polls only while calls are pending: when nothing came for 1.5 s, with up to three polls side by
// side, since one may be lost in the network. Where nothing comes for longer they become one, that a loss may delay a
// reply by a third of the time that was waited: three requests a minute after the first two, however many calls wait. An
// idle responder makes three a minute per channel.
//
// # Shutdown
//
// Stop what makes calls first and what answers replies last. In a process that only serves, end Serve's
// context: it stops receiving, finishes handlers, sends their replies and deletes their requests. In one
// that only calls, call Requester.Shutdown, which waits for pending calls. In one whose handlers call:
// end Serve's context, wait for Serve to return, then call Requester.Shutdown; the other way round, the
// handlers' calls would fail. Give Shutdown a context that ends before Kubernetes kills the pod: what is not done by
// then is cut off, the last deletes a second later, and Shutdown returns the context's cause.
//
// An idle responder's long poll is let run out, for 20 s at most (WithReceiveWait), because SQS may have
// given it a request that would otherwise stay hidden.
//
// # Deadlock
//
// A handler may call other channels, its own too: replies are received apart from requests. But a
// responder whose handlers all wait for calls to itself has no handler free to answer them: with a
// concurrency of 64, 64 such requests at once wait for each other until their deadlines, and so do two
// services that call each other in a circle. Make such calls on a channel of their own with a responder
// of its own, or give the outer method a limit (WithMethodConcurrency) below half of the responder's
// concurrency, since as many may wait as may run: then there is always a place for the inner one.
package rpcclient
