package queue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

func TestClassify(t *testing.T) {
	text := func(s string) *string { return &s }
	code := func(c string) error { return &smithy.GenericAPIError{Code: c, Message: "in AWS's words"} }
	status := func(s int) error {
		return &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: &http.Response{StatusCode: s}}, Err: errors.New("body")}
	}
	for _, tc := range []struct {
		name string
		err  error
		want Class
	}{
		{"nothing", nil, None},

		{"typed", &types.QueueDoesNotExist{}, NotFound},
		{"typed with the query code", &types.QueueDoesNotExist{ErrorCodeOverride: text("AWS.SimpleQueueService.NonExistentQueue")}, NotFound},
		{"typed with a code nobody knows", &types.QueueDoesNotExist{ErrorCodeOverride: text("Surprise")}, NotFound},
		{"modelled code", code("QueueDoesNotExist"), NotFound},
		{"query code", code("AWS.SimpleQueueService.NonExistentQueue"), NotFound},
		{"code with a namespace", code("com.amazonaws.sqs#QueueDoesNotExist"), NotFound},

		{"typed", &types.QueueDeletedRecently{}, DeletedRecently},
		{"modelled code", code("QueueDeletedRecently"), DeletedRecently},
		{"query code", code("AWS.SimpleQueueService.QueueDeletedRecently"), DeletedRecently},

		{"typed", &types.QueueNameExists{}, Exists},
		{"modelled code", code("QueueNameExists"), Exists},
		{"query code", code("QueueAlreadyExists"), Exists},

		{"typed", &types.RequestThrottled{}, Throttled},
		{"KMS throttles", &types.KmsThrottled{}, Throttled},
		{"query code", code("Throttling"), Throttled},
		{"query code of KMS", code("KMS.ThrottlingException"), Throttled},
		{"HTTP 429", status(429), Throttled},
		{"our own limiter", &SlowDown{RetryAfter: time.Second}, Throttled},

		{"typed", &types.InvalidSecurity{}, Denied},
		{"code", code("AccessDenied"), Denied},
		{"code", code("AccessDeniedException"), Denied},
		{"expired", code("ExpiredToken"), Transient},
		{"HTTP 403", status(403), Denied},

		{"typed", &types.KmsAccessDenied{}, KMS},
		{"typed", &types.KmsDisabled{}, KMS},
		{"typed", &types.KmsInvalidKeyUsage{}, KMS},
		{"typed", &types.KmsInvalidState{}, KMS},
		{"typed", &types.KmsNotFound{}, KMS},
		{"typed", &types.KmsOptInRequired{}, KMS},
		{"query code", code("KMS.DisabledException"), KMS},

		{"typed", &types.InvalidAttributeValue{}, Invalid},
		{"typed", &types.InvalidAttributeName{}, Invalid},
		{"typed", &types.OverLimit{}, Invalid},
		{"query code", code("InvalidParameterValue"), Invalid},

		{"HTTP 500", status(500), Transient},
		{"HTTP 503", status(503), Transient},
		{"unknown code", code("InternalError"), Transient},
		{"time is up", context.DeadlineExceeded, Transient},
		{"anything", errors.New("connection refused"), Transient},
	} {
		t.Run(fmt.Sprintf("%s %v", tc.name, tc.err), func(t *testing.T) {
			if got := Classify(tc.err); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
			if tc.err == nil {
				return
			}
			wrapped := fmt.Errorf("create queue: %w", &smithy.OperationError{ServiceID: "SQS", OperationName: "CreateQueue", Err: tc.err})
			if got := Classify(wrapped); got != tc.want {
				t.Errorf("wrapped as the SDK does: got %q, want %q", got, tc.want)
			}
		})
	}
}

// Whatever a server calls its errors, Classify is total, does not depend on wrapping, and the typed error wins.
func FuzzClassify(f *testing.F) {
	for code := range classes {
		f.Add(code, "message", 400)
	}
	f.Add("KMS.NewException", "", 400)
	f.Add("x#y#QueueDoesNotExist", "", 400)
	f.Add("", "", 503)
	f.Fuzz(func(t *testing.T, code, message string, status int) {
		err := error(&smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}},
			Err:      &smithy.GenericAPIError{Code: code, Message: message},
		})
		class := Classify(err)
		if class == None {
			t.Fatalf("an error without a class: %v", err)
		}
		if again := Classify(fmt.Errorf("outer: %w", err)); again != class {
			t.Fatalf("wrapping turned %s into %s", class, again)
		}
		if Classify(&types.QueueDoesNotExist{ErrorCodeOverride: &code, Message: &message}) != NotFound {
			t.Fatalf("code %q hid the typed error", code)
		}
		if message != "" && !strings.Contains(Explain(err), message) {
			t.Fatalf("AWS's words %q are lost in %q", message, Explain(err))
		}
	})
}

func TestExplainLeavesOutWhatDiffersEachTime(t *testing.T) {
	message := "User is not authorized to perform: sqs:createqueue"
	err := fmt.Errorf("create queue login: %w", &smithy.OperationError{ServiceID: "SQS", OperationName: "CreateQueue", Err: &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{"X-Amzn-Requestid": {"b5293cb5"}}}},
		Err:      &smithy.GenericAPIError{Code: "AccessDenied", Message: message},
	}})
	if got, want := Explain(err), "AccessDenied: "+message; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestExplainNetworkErrorsAlikeEachTime(t *testing.T) {
	broken := func(port int) error {
		return fmt.Errorf("get attributes: %w", &smithyhttp.RequestSendError{Err: &url.Error{Op: "Post", URL: "http://127.0.0.1:4566/", Err: &net.OpError{
			Op: "read", Net: "tcp", Source: &net.TCPAddr{Port: port}, Err: errors.New("connection reset by peer"),
		}}})
	}
	if a, b := Explain(broken(40001)), Explain(broken(40002)); a != b || a != "read: connection reset by peer" {
		t.Errorf("got %q and %q", a, b)
	}
	if got := Explain(fmt.Errorf("x: %w", context.DeadlineExceeded)); got != "no answer in time" {
		t.Errorf("got %q", got)
	}
}
