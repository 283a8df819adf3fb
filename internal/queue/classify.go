package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Class says what an error of SQS asks of the caller.
type Class string

const (
	// None: no error.
	None Class = ""
	// NotFound: there is no such queue.
	NotFound Class = "NotFound"
	// DeletedRecently: SQS refuses a name for 60 seconds after a queue of that name was deleted. Wait.
	DeletedRecently Class = "DeletedRecently"
	// Exists: a queue of that name exists with other attributes.
	Exists Class = "Exists"
	// Throttled: too many requests, by SQS's judgement or by our own limiter's. Slow down.
	Throttled Class = "Throttled"
	// Denied: credentials or permissions are missing or wrong. They heal outside the cluster.
	Denied Class = "Denied"
	// KMS: the key cannot be used. It heals outside the cluster.
	KMS Class = "KMS"
	// Invalid: SQS refuses what was asked for, and will until something changes.
	Invalid Class = "Invalid"
	// Fenced: the queue may be another cluster's, and only a human can say whose (see Fence).
	Fenced Class = "Fenced"
	// Unproven: that the queue is this cluster's has not been proven yet, or not lately. It will be in a moment, unless it is Overdue.
	Unproven Class = "Unproven"
	// Transient: anything else; trying again with a backoff may help.
	Transient Class = "Transient"
)

// classes maps codes to classes. SQS moved from the query to the JSON protocol: a code arrives as the modelled
// name, or, by the header x-amzn-query-error, as the old query code; servers other than AWS's use either.
var classes = map[string]Class{
	"QueueDoesNotExist":                       NotFound,
	"AWS.SimpleQueueService.NonExistentQueue": NotFound,
	"NonExistentQueue":                        NotFound,

	"QueueDeletedRecently":                        DeletedRecently,
	"AWS.SimpleQueueService.QueueDeletedRecently": DeletedRecently,

	"QueueNameExists":    Exists,
	"QueueAlreadyExists": Exists,

	"RequestThrottled":          Throttled,
	"Throttling":                Throttled,
	"ThrottlingException":       Throttled,
	"ThrottledException":        Throttled,
	"RequestThrottledException": Throttled,
	"TooManyRequestsException":  Throttled,
	"RequestLimitExceeded":      Throttled,
	"SlowDown":                  Throttled,
	"KmsThrottled":              Throttled,
	"KMS.ThrottlingException":   Throttled,

	"AccessDenied":                        Denied,
	"AccessDeniedException":               Denied,
	"UnauthorizedOperation":               Denied,
	"AuthFailure":                         Denied,
	"AuthorizationError":                  Denied,
	"InvalidSecurity":                     Denied,
	"InvalidClientTokenId":                Denied,
	"UnrecognizedClientException":         Denied,
	"InvalidAccessKeyId":                  Denied,
	"SignatureDoesNotMatch":               Denied,
	"InvalidSignatureException":           Denied,
	"IncompleteSignature":                 Denied,
	"MissingAuthenticationToken":          Denied,
	"MissingAuthenticationTokenException": Denied,
	"OptInRequired":                       Denied,
	"NotAuthorized":                       Denied,
	"InvalidIdentityToken":                Denied,
	"IDPRejectedClaim":                    Denied,

	// Credentials run out while a request is under way; the next one is signed with new ones.
	"ExpiredToken":          Transient,
	"ExpiredTokenException": Transient,
	"RequestExpired":        Transient,

	"KmsAccessDenied":    KMS,
	"KmsDisabled":        KMS,
	"KmsInvalidKeyUsage": KMS,
	"KmsInvalidState":    KMS,
	"KmsNotFound":        KMS,
	"KmsOptInRequired":   KMS,

	"InvalidAttributeName":                        Invalid,
	"InvalidAttributeValue":                       Invalid,
	"InvalidParameterValue":                       Invalid,
	"InvalidParameterCombination":                 Invalid,
	"InvalidParameter":                            Invalid,
	"MissingParameter":                            Invalid,
	"ValidationError":                             Invalid,
	"ValidationException":                         Invalid,
	"InvalidAddress":                              Invalid,
	"UnsupportedOperation":                        Invalid,
	"AWS.SimpleQueueService.UnsupportedOperation": Invalid,
	"OverLimit":                                   Invalid,
	"TooManyTags":                                 Invalid,
	"TagPolicyViolation":                          Invalid,
}

// Classify says what err asks of the caller: by the SDK's typed error, by either form of its code, by our own
// limiter's error, or by the HTTP status where nothing else is known. It is total: an error it does not know is
// Transient, and nil is None.
func Classify(err error) Class {
	if err == nil {
		return None
	}
	var slow *SlowDown
	if errors.As(err, &slow) {
		return Throttled
	}
	if held, ok := heldBy(err); ok {
		if held.Conflict {
			return Fenced
		}
		return Unproven
	}
	if class := classifyTyped(err); class != None {
		return class
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		if class := classifyCode(api.ErrorCode()); class != None {
			return class
		}
	}
	var credentials *noCredentials
	if errors.As(err, &credentials) {
		return credentials.class()
	}
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) {
		switch status := response.HTTPStatusCode(); status {
		case http.StatusTooManyRequests:
			return Throttled
		case http.StatusUnauthorized, http.StatusForbidden:
			return Denied
		}
	}
	return Transient
}

func classifyTyped(err error) Class {
	switch {
	case is[*types.QueueDoesNotExist](err):
		return NotFound
	case is[*types.QueueDeletedRecently](err):
		return DeletedRecently
	case is[*types.QueueNameExists](err):
		return Exists
	case is[*types.RequestThrottled](err), is[*types.KmsThrottled](err):
		return Throttled
	case is[*types.KmsAccessDenied](err), is[*types.KmsDisabled](err), is[*types.KmsInvalidKeyUsage](err),
		is[*types.KmsInvalidState](err), is[*types.KmsNotFound](err), is[*types.KmsOptInRequired](err):
		return KMS
	case is[*types.InvalidSecurity](err):
		return Denied
	case is[*types.InvalidAttributeName](err), is[*types.InvalidAttributeValue](err),
		is[*types.InvalidAddress](err), is[*types.UnsupportedOperation](err), is[*types.OverLimit](err):
		return Invalid
	}
	return None
}

func is[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}

func classifyCode(code string) Class {
	// A JSON error's type may carry its namespace: com.amazonaws.sqs#QueueDoesNotExist.
	code = code[strings.LastIndexByte(code, '#')+1:]
	if class, known := classes[code]; known {
		return class
	}
	// The query codes of KMS errors are many and all alike: KMS.DisabledException, KMS.NotFoundException, …
	if strings.HasPrefix(code, "KMS.") {
		return KMS
	}
	return None
}

// SaysNoTarget reports whether an error says that the queue that a redrive policy names does not exist.
func SaysNoTarget(err error) bool {
	return strings.Contains(strings.ToLower(Explain(err)), "target does not exist")
}

// requestIDs are those that SQS's words have where it passes on what another service answered, such as KMS: "(Service: AWSKMS; Status
// Code: 400; Error Code: AccessDeniedException; Request ID: …; Proxy: null)".
var requestIDs = regexp.MustCompile(`(; )?\bRequest ID: [0-9A-Za-z-]+`)

// Explain returns AWS's own words for err, without request IDs and the SDK's wrapping, which would make each
// occurrence a different text. For an error that is not AWS's it is the error's text.
func Explain(err error) string {
	var credentials *noCredentials
	if errors.As(err, &credentials) {
		return credentials.words()
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		code := api.ErrorCode()
		if message := api.ErrorMessage(); message != "" {
			return code + ": " + requestIDs.ReplaceAllString(message, "")
		}
		return code
	}
	if words := networkWords(err); words != "" {
		return words
	}
	// The SDK wraps every failure in one of these, of status 0 where nothing came, and of 200 where the answer was cut off.
	var response *smithyhttp.ResponseError
	if errors.As(err, &response) && response.HTTPStatusCode() >= http.StatusBadRequest {
		return fmt.Sprintf("HTTP status %d", response.HTTPStatusCode())
	}
	var send *smithyhttp.RequestSendError
	if errors.As(err, &send) {
		return send.Err.Error()
	}
	return err.Error()
}

// networkWords say what became of a request on its way, in the same words each time: without the addresses, since the
// local port differs. Empty: nothing, as far as that is known.
func networkWords(err error) string {
	var lookup *net.DNSError
	if errors.As(err, &lookup) {
		return "look up " + lookup.Name + ": " + dnsWords(lookup)
	}
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || (errors.As(err, &timeout) && timeout.Timeout()) {
		return "no answer in time"
	}
	var network *net.OpError
	switch {
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the connection was reset"
	case errors.As(err, &network):
		return network.Op + ": " + network.Err.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed before the answer was complete"
	}
	return ""
}

// dnsWords say what became of a look-up, without the resolver's and our own address: the local port differs each time.
func dnsWords(err *net.DNSError) string {
	switch {
	case err.IsNotFound:
		return "no such host"
	case err.IsTimeout:
		return "no answer in time"
	default:
		return "the resolver fails"
	}
}

// SlowDown is our own limiter's refusal: the request was not sent, since its turn is further off than a worker
// should wait for it.
type SlowDown struct {
	// Provider and Action that were limited.
	Provider, Action string
	// RetryAfter is when its turn comes. Turns are given out one by one, so that those refused together do not
	// come back together.
	RetryAfter time.Duration
}

// Error says which request must wait, and how long.
func (e *SlowDown) Error() string {
	return fmt.Sprintf("%s on provider %s: too many requests at once, next turn in %s",
		e.Action, e.Provider, e.RetryAfter.Round(time.Millisecond))
}

// RetryAfter is how long err asks to wait before the next try; ok is false when it does not say.
func RetryAfter(err error) (after time.Duration, ok bool) {
	var slow *SlowDown
	if errors.As(err, &slow) {
		return slow.RetryAfter, true
	}
	var refused *throttled
	if errors.As(err, &refused) {
		return refused.after, true
	}
	if held, ok := heldBy(err); ok {
		return held.RetryAfter, true
	}
	return 0, false
}
