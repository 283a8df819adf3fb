package rpcclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestErrorIs(t *testing.T) {
	late := error(localError(DeadlineExceeded, MaybeExecuted, nil, "late"))
	if !errors.Is(late, context.DeadlineExceeded) || errors.Is(late, context.Canceled) {
		t.Error("a DeadlineExceeded is not context.DeadlineExceeded")
	}
	lost := fmt.Errorf("login: %w", localError(Unavailable, NotSent, ErrReplyQueueLost, "lost"))
	if !errors.Is(lost, ErrReplyQueueLost) || IsRemote(lost) || CodeOf(lost) != Unavailable {
		t.Errorf("%v", lost)
	}
	if got := lost.Error(); got != "login: UNAVAILABLE (not_sent): lost" {
		t.Errorf("got %q", got)
	}
	if e := Errorf(NotFound, "read: %w", io.EOF); !errors.Is(e, io.EOF) || e.Message != "read: EOF" {
		t.Errorf("%v", e)
	}
}

func TestEndedErrorKeepsTheCause(t *testing.T) {
	cause := errors.New("the user left")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	e := endedError(ctx, NotSent, "waiting")
	if e.Code != Canceled || !errors.Is(e, cause) || !errors.Is(e, context.Canceled) {
		t.Errorf("%v", e)
	}
}

func TestWithDetailsLeavesTheOriginal(t *testing.T) {
	base := Errorf(NotFound, "no").WithDetails(1)
	more := base.WithDetails("x", func() {})
	if len(base.Details) != 1 || len(more.Details) != 2 || string(more.Details[1]) != `"x"` {
		t.Errorf("%s, %s", base.Details, more.Details)
	}
	var n int
	if err := json.Unmarshal(more.Details[0], &n); err != nil || n != 1 {
		t.Errorf("%v %v", n, err)
	}
}

func TestCodeOf(t *testing.T) {
	for code, err := range map[Code]error{
		OK: nil, Unknown: io.EOF, Canceled: context.Canceled,
		DeadlineExceeded: fmt.Errorf("x: %w", context.DeadlineExceeded), NotFound: Errorf(NotFound, ""),
	} {
		if got := CodeOf(err); got != code {
			t.Errorf("CodeOf(%v) = %s, want %s", err, got, code)
		}
	}
}
