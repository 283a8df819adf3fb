package sqstest

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// apiError is an answer of SQS other than success, in the three forms that clients read: the shape's name (`__type` in
// the body), the code of the old query protocol (the x-amzn-query-error header; the Go SDK reports this one as
// ErrorCode) and the HTTP status. Names, codes and statuses are those of the service's API model.
type apiError struct {
	shape   string
	query   string
	status  int
	sender  bool // whose fault: the sender's, or the service's
	message string
}

func (e *apiError) Error() string { return e.query + ": " + e.message }

func (e *apiError) fault() string {
	if e.sender {
		return "Sender"
	}
	return "Receiver"
}

func (e *apiError) body() []byte {
	namespace := "com.amazonaws.sqs#"
	if !modelled[e.shape] {
		namespace = "com.amazon.coral.service#"
	}
	b, err := json.Marshal(struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
	}{namespace + e.shape, e.message})
	if err != nil {
		panic(err) // two strings always marshal
	}
	return b
}

// modelled are the shapes that the SDK has a type for. The others reach its callers as a generic error with the query code.
var modelled = map[string]bool{
	"BatchEntryIdsNotDistinct": true, "BatchRequestTooLong": true, "EmptyBatchRequest": true, "InvalidAddress": true,
	"InvalidAttributeName": true, "InvalidAttributeValue": true, "InvalidBatchEntryId": true, "InvalidIdFormat": true,
	"InvalidMessageContents": true, "InvalidSecurity": true, "KmsAccessDenied": true, "KmsDisabled": true,
	"KmsInvalidKeyUsage": true, "KmsInvalidState": true, "KmsNotFound": true, "KmsOptInRequired": true, "KmsThrottled": true,
	"MessageNotInflight": true, "OverLimit": true, "PurgeQueueInProgress": true, "QueueDeletedRecently": true,
	"QueueDoesNotExist": true, "QueueNameExists": true, "ReceiptHandleIsInvalid": true, "RequestThrottled": true,
	"ResourceNotFoundException": true, "TooManyEntriesInBatchRequest": true, "UnsupportedOperation": true,
}

func senderError(shape, query string, status int, format string, args ...any) *apiError {
	return &apiError{shape: shape, query: query, status: status, sender: true, message: fmt.Sprintf(format, args...)}
}

const service = "AWS.SimpleQueueService."

func errInvalidParameter(format string, args ...any) *apiError {
	return senderError("InvalidParameterValueException", "InvalidParameterValue", http.StatusBadRequest, format, args...)
}

func errParameter(name string, value any, reason string) *apiError {
	return errInvalidParameter("Value %v for parameter %s is invalid. Reason: %s", value, name, reason)
}

func errMissing(name string) *apiError {
	return senderError("MissingRequiredParameterException", "MissingParameter", http.StatusBadRequest,
		"The request must contain the parameter %s.", name)
}

func errAttributeName(format string, args ...any) *apiError {
	return senderError("InvalidAttributeName", "InvalidAttributeName", http.StatusBadRequest, format, args...)
}

func errAttributeValue(name, reason string) *apiError {
	if reason != "" {
		reason = " Reason: " + reason
	}
	return senderError("InvalidAttributeValue", "InvalidAttributeValue", http.StatusBadRequest,
		"Invalid value for the parameter %s.%s", name, reason)
}

func errNoQueue() *apiError {
	return senderError("QueueDoesNotExist", service+"NonExistentQueue", http.StatusBadRequest, "The specified queue does not exist.")
}

func errAddress(url string) *apiError {
	return senderError("InvalidAddress", "InvalidAddress", http.StatusNotFound, "The address %s is not valid for this endpoint.", url)
}

func errNameExists(what string) *apiError {
	return senderError("QueueNameExists", "QueueAlreadyExists", http.StatusBadRequest,
		"A queue already exists with the same name and a different value for %s", what)
}

func errDeletedRecently() *apiError {
	return senderError("QueueDeletedRecently", service+"QueueDeletedRecently", http.StatusBadRequest,
		"You must wait 60 seconds after deleting a queue before you can create another with the same name.")
}

func errPurgeInProgress(queue string) *apiError {
	return senderError("PurgeQueueInProgress", service+"PurgeQueueInProgress", http.StatusForbidden,
		"Only one PurgeQueue operation on %s is allowed every 60 seconds.", queue)
}

func errOverLimit(format string, args ...any) *apiError {
	return senderError("OverLimit", "OverLimit", http.StatusForbidden, format, args...)
}

func errReceiptHandle(handle string) *apiError {
	return senderError("ReceiptHandleIsInvalid", "ReceiptHandleIsInvalid", http.StatusNotFound,
		"The input receipt handle %q is not a valid receipt handle.", handle) // the status is recorded: sqs-java-extended-client#16
}

func errHandleExpired(handle string) *apiError {
	return errParameter("ReceiptHandle", handle, "The receipt handle has expired.")
}

func errNotAvailable(handle string) *apiError {
	return errParameter("ReceiptHandle", handle, "Message does not exist or is not available for visibility timeout change.")
}

func errNotInFlight() *apiError {
	return senderError("MessageNotInflight", service+"MessageNotInflight", http.StatusBadRequest, "The specified message is not in flight.")
}

func errContents() *apiError {
	return senderError("InvalidMessageContents", "InvalidMessageContents", http.StatusBadRequest,
		"Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF")
}

func errResource(format string, args ...any) *apiError {
	return senderError("ResourceNotFoundException", "ResourceNotFoundException", http.StatusNotFound, format, args...)
}

func errUnsupported(format string, args ...any) *apiError {
	return senderError("UnsupportedOperation", service+"UnsupportedOperation", http.StatusBadRequest, format, args...)
}

func errBatch(shape, format string, args ...any) *apiError {
	return senderError(shape, service+shape, http.StatusBadRequest, format, args...)
}

func errAccessDenied(accessKey, action, resource string) *apiError {
	return senderError("AccessDeniedException", "AccessDenied", http.StatusForbidden,
		"User: %s is not authorized to perform: sqs:%s on resource: %s", accessKey, action, resource)
}

// errTooLarge is what a request gets that is larger than any of SQS's can be ("common errors", API reference).
func errTooLarge() *apiError {
	return senderError("RequestEntityTooLargeException", "RequestEntityTooLargeException", http.StatusRequestEntityTooLarge,
		"The request is longer than %d bytes.", maxRequestBytes)
}

// errSerialization is what a request that is no JSON of the right shape gets.
func errSerialization(format string, args ...any) *apiError {
	return senderError("SerializationException", "MalformedInput", http.StatusBadRequest, format, args...)
}

func errUnknownAction(target string) *apiError {
	return senderError("UnknownOperationException", "InvalidAction", http.StatusBadRequest,
		"The action or operation requested is invalid: %q.", target)
}
