package rpcclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Code says what kind of failure an error is. The names and meanings are gRPC's, so that people and
// tools that know those know these; the name is what travels on the wire.
type Code string

// The codes. OK never appears in an Error.
const (
	OK                 Code = "OK"
	Canceled           Code = "CANCELLED"
	Unknown            Code = "UNKNOWN"
	InvalidArgument    Code = "INVALID_ARGUMENT"
	DeadlineExceeded   Code = "DEADLINE_EXCEEDED"
	NotFound           Code = "NOT_FOUND"
	AlreadyExists      Code = "ALREADY_EXISTS"
	PermissionDenied   Code = "PERMISSION_DENIED"
	ResourceExhausted  Code = "RESOURCE_EXHAUSTED"
	FailedPrecondition Code = "FAILED_PRECONDITION"
	Aborted            Code = "ABORTED"
	OutOfRange         Code = "OUT_OF_RANGE"
	Unimplemented      Code = "UNIMPLEMENTED"
	Internal           Code = "INTERNAL"
	Unavailable        Code = "UNAVAILABLE"
	DataLoss           Code = "DATA_LOSS"
	Unauthenticated    Code = "UNAUTHENTICATED"
)

// known reports whether c is one of the codes above other than OK.
func (c Code) known() bool {
	switch c {
	case Canceled, Unknown, InvalidArgument, DeadlineExceeded, NotFound, AlreadyExists, PermissionDenied,
		ResourceExhausted, FailedPrecondition, Aborted, OutOfRange, Unimplemented, Internal, Unavailable,
		DataLoss, Unauthenticated:
		return true
	default:
		return false
	}
}

// Outcome answers the one question that decides whether a failed call may be repeated: did a handler
// run? It is never more certain than what is known.
type Outcome uint8

// The outcomes.
const (
	// MaybeExecuted: the request may have reached a responder. Repeat only what is idempotent.
	MaybeExecuted Outcome = iota
	// NotSent: SQS certainly did not accept the request.
	NotSent
	// Rejected: a responder received the request, refused it before its handler ran, and deleted it before it said
	// so. That is said of the copy which that responder had. Where the requester's own send may have made another, or SQS handed the
	// same message out before, the outcome is MaybeExecuted. What nobody can see is a copy that SQS made by
	// itself (standard queues deliver at least once) and gave to another responder: that one may be executed.
	// It may be without any refusal, too: what must not be executed twice needs WithReplyStore, or FIFO.
	Rejected
	// Executed: a handler ran, and the error is its answer or happened to its answer.
	Executed
)

// String returns the outcome as it is printed and counted: maybe_executed, not_sent, rejected, executed.
func (o Outcome) String() string {
	switch o {
	case NotSent:
		return "not_sent"
	case Rejected:
		return "rejected"
	case Executed:
		return "executed"
	default:
		return "maybe_executed"
	}
}

// Reasons that callers can tell apart with errors.Is.
var (
	// ErrReplyQueueLost: the queue on which the reply was awaited was deleted or replaced.
	ErrReplyQueueLost = errors.New("the reply queue is gone")
	// ErrClosed: the requester or responder is shutting down.
	ErrClosed = errors.New("closed")
	// ErrPayloadTooLarge: the message would be over the queue's limit. Nothing was sent.
	ErrPayloadTooLarge = errors.New("the message is too large")
	// ErrTooManyPending: MaxPending calls wait for replies and the requester is set to fail rather than block.
	ErrTooManyPending = errors.New("too many calls are pending")
)

// Error is what every failed call returns, and what a handler returns to choose the caller's error.
//
// On the calling side all fields describe the call. In a handler only Code, Message, Details and
// RetryAfter are sent; the rest is filled in by the requester.
type Error struct {
	// Code is the kind of failure.
	Code Code
	// Message is for people. Responders cut it to 1 KiB.
	Message string
	// Details are JSON values that both sides agree on. Together at most 16 KiB travel.
	Details []json.RawMessage
	// Outcome says whether a handler ran.
	Outcome Outcome
	// CallID is a short hash of the call's identifier, fit for logs on both sides. The identifier itself
	// is a secret between requester and responder.
	CallID string
	// Attempt is the attempt this error ended, from 1.
	Attempt int
	// RetryAfter is the pause a responder asks for before another attempt; 0: none asked.
	RetryAfter time.Duration

	remote bool
	cause  error
}

// Errorf returns an error with a code for a handler to return. %w works as in fmt.Errorf.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: errors.Unwrap(err)}
}

// A nil *Error in an error's place is read as no error wherever this package is handed one: it is what
// "var e *Error; return e" gives, and nobody means more by it. Its methods do not panic.
func isNil(err error) bool {
	e, ok := err.(*Error) //nolint:errorlint // a nil that is wrapped is an error
	return ok && e == nil
}

// errorAs finds the first *Error in err's chain; nil if there is none.
func errorAs(err error) *Error {
	var e *Error
	errors.As(err, &e)
	return e
}

// WithDetails returns a copy of e with the JSON form of each value added to its details. A value that
// has no JSON form is left out. Of a nil e it is nil.
func (e *Error) WithDetails(values ...any) *Error {
	if e == nil {
		return nil
	}
	c := *e
	c.Details = append([]json.RawMessage(nil), e.Details...)
	for _, v := range values {
		if raw, err := json.Marshal(v); err == nil {
			c.Details = append(c.Details, raw)
		}
	}
	return &c
}

// Error implements error: "UNAVAILABLE (not_sent): …".
func (e *Error) Error() string {
	if e == nil {
		return "<nil>"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s (%s)", e.Code, e.Outcome)
	if e.Message != "" {
		b.WriteString(": ")
		b.WriteString(e.Message)
	}
	return b.String()
}

// Unwrap returns what caused a local error: context.Cause of an ended context, one of this package's
// sentinels, or an error of the SQS client. It is nil for errors a responder sent.
func (e *Error) Unwrap() error {
	if e == nil {
		return nil
	}
	return e.cause
}

// Is makes a DeadlineExceeded match context.DeadlineExceeded and a Canceled match context.Canceled,
// wherever the error came from.
func (e *Error) Is(target error) bool {
	if e == nil {
		return false
	}
	switch target {
	case context.DeadlineExceeded:
		return e.Code == DeadlineExceeded
	case context.Canceled:
		return e.Code == Canceled
	default:
		return false
	}
}

// IsRemote reports whether err was sent by a responder, as opposed to found on this side.
func IsRemote(err error) bool {
	e := errorAs(err)
	return e != nil && e.remote
}

// CodeOf returns the code of err: OK for nil and for a nil *Error, the code of an *Error in its chain, the matching code for
// the two context errors, and Unknown for anything else.
func CodeOf(err error) Code {
	if err == nil || isNil(err) {
		return OK
	}
	switch e := errorAs(err); {
	case e != nil:
		return e.Code
	case errors.Is(err, context.DeadlineExceeded):
		return DeadlineExceeded
	case errors.Is(err, context.Canceled):
		return Canceled
	default:
		return Unknown
	}
}

// localError builds the error of a call that failed on this side.
func localError(code Code, outcome Outcome, cause error, format string, args ...any) *Error {
	return &Error{Code: code, Outcome: outcome, Message: fmt.Sprintf(format, args...), cause: cause}
}

// endedError turns the end of a context into an *Error, keeping its cause.
func endedError(ctx context.Context, outcome Outcome, doing string) *Error {
	cause := context.Cause(ctx)
	code := Canceled
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		code = DeadlineExceeded
	}
	return localError(code, outcome, cause, "%s: %v", doing, cause)
}
