package rpcclient

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Message attributes on the wire. SQS allows ten, and agents add their own, so ours are two.
const (
	// attributeEnvelope carries everything of ours in one packed JSON object.
	attributeEnvelope = "replyqueue"
	// attributeReplyTo carries the return address: <reply queue URL>#<call ID> (Java's name).
	attributeReplyTo = "ResponseQueueUrl"
	// attributeVirtualQueue carries, on a reply, the text after the # (Java's name).
	attributeVirtualQueue = "__AmazonSQSVirtualQueuesClient.QueueName"
)

// dataTypeString is the SQS data type of all our attributes.
const dataTypeString = "String"

// protocolVersion is the version of the envelope this package speaks. A responder refuses a higher one
// with Unimplemented; new fields do not raise it.
const protocolVersion = 1

// Kinds of envelope.
const (
	kindRequest = "q"
	kindReply   = "r"
)

// Limits on what an envelope may carry, so that one attribute stays small.
const (
	maxMetadataBytes = 4 << 10
	maxMessageBytes  = 1 << 10
	maxDetailsBytes  = 16 << 10
	maxMethodBytes   = 256
)

// requestEnvelope is the attribute "replyqueue" of a request.
type requestEnvelope struct {
	Kind     string   `json:"k"`
	Version  int      `json:"v"`
	CallID   string   `json:"id"`
	Method   string   `json:"m"`
	Encoding string   `json:"e,omitempty"`
	Codec    string   `json:"c,omitempty"`  // absent: json
	Accept   []string `json:"f,omitempty"`  // features the requester understands in replies
	Metadata Metadata `json:"md,omitempty"` // at most 4 KiB
	BudgetMS int64    `json:"b"`            // what is left of the deadline as the message is sent
	SentMS   int64    `json:"t"`            // the time by its sender, a guard only
	Attempt  int      `json:"a"`            // from 1
}

// replyEnvelope is the attribute "replyqueue" of a reply.
type replyEnvelope struct {
	Kind         string            `json:"k"`
	Version      int               `json:"v"`
	Code         Code              `json:"s,omitempty"` // absent: OK
	Message      string            `json:"msg,omitempty"`
	Details      []json.RawMessage `json:"d,omitempty"`
	Rejected     bool              `json:"x,omitempty"`  // refused before the handler ran
	Uncertain    bool              `json:"u,omitempty"`  // of a refusal: another copy may have been handled
	RetryAfterMS int64             `json:"ra,omitempty"` // wanted pause before another attempt
	Encoding     string            `json:"e,omitempty"`
	Codec        string            `json:"c,omitempty"`
	Metadata     Metadata          `json:"md,omitempty"`  // at most 4 KiB
	Attempt      int               `json:"a,omitempty"`   // the request's attempt that this answers; absent: the first
	Run          string            `json:"run,omitempty"` // which execution this is
	Sequence     int               `json:"n"`             // of the frame, from 0
	End          int               `json:"end,omitempty"` // on the last frame: how many frames there were
}

var errNotOurs = errors.New("not an envelope of the expected kind")

// parseRequestEnvelope reads the attribute of a request. errNotOurs means that the message is to be
// treated as a Java or hand-written one; another error, that it is ours and broken.
func parseRequestEnvelope(text string) (requestEnvelope, error) {
	e, plain := plainRequest(text)
	var err error
	if !plain {
		e, err = unmarshalRequest(text)
	}
	if e.Kind != kindRequest || err != nil && !errors.As(err, new(*json.UnmarshalTypeError)) {
		return requestEnvelope{Version: e.Version}, errNotOurs
	}
	switch {
	case e.Version > protocolVersion && err != nil: // its fields mean what that version says
		return e, Errorf(Unimplemented, "protocol version %d; this side speaks %d", e.Version, protocolVersion)
	case err != nil:
		return e, err
	case e.Version < 1:
		return e, fmt.Errorf("version %d", e.Version)
	case e.CallID == "" || len(e.CallID) > maxVirtualNameBytes:
		return e, errors.New("no usable call ID")
	case len(e.Method) > maxMethodBytes:
		return e, errors.New("method name too long")
	case e.BudgetMS < 0 || e.BudgetMS > int64(maxBudget/time.Millisecond):
		return e, fmt.Errorf("budget of %d ms", e.BudgetMS)
	case e.Attempt < 0:
		return e, fmt.Errorf("attempt %d", e.Attempt)
	}
	return e, nil
}

// unmarshalRequest reads any envelope. A field of another type leaves the others read.
func unmarshalRequest(text string) (e requestEnvelope, err error) {
	err = unmarshalExactly(text, &e)
	return e, err
}

// unmarshalExactly is json.Unmarshal for an envelope, whose fields have lower-case names. encoding/json takes a name in
// any case for one of them, where it is another field, which this version does not know.
func unmarshalExactly(text string, envelope any) error {
	if hasLowerCaseNames(text) {
		return json.Unmarshal([]byte(text), envelope)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &members); err != nil {
		return err
	}
	maps.DeleteFunc(members, func(name string, _ json.RawMessage) bool { return !isLowerCase(name) })
	rest, err := json.Marshal(members)
	if err != nil {
		return err
	}
	return json.Unmarshal(rest, envelope)
}

// hasLowerCaseNames reports whether the names of a JSON object are certainly in lower case, those of objects in it apart.
func hasLowerCaseNames(text string) bool {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			start := i + 1
			for i = start; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			if i >= len(text) {
				return true // no JSON
			}
			isName := strings.HasPrefix(strings.TrimLeft(text[i+1:], " \t\r\n"), ":")
			if depth == 1 && isName && !isLowerCase(text[start:i]) {
				return false
			}
		}
	}
	return true
}

// isLowerCase reports whether s has neither capitals nor what may be folded or unescaped to other letters.
func isLowerCase(s string) bool {
	for i := range len(s) {
		if c := s[i]; c >= utf8.RuneSelf || 'A' <= c && c <= 'Z' || c == '\\' {
			return false
		}
	}
	return true
}

// plainReplies are the envelopes of answers without anything remarkable, and their texts: what most
// replies are, and what need not be put together and taken apart each time.
var plainReplies, plainReplyTexts = func() (map[string]replyEnvelope, map[[2]string]string) {
	parsed, texts := map[string]replyEnvelope{}, map[[2]string]string{}
	for _, encoding := range []string{encodingText, encodingEmpty, encodingBase64} {
		for _, codec := range []string{"", Raw.Name()} {
			e := replyEnvelope{Kind: kindReply, Version: protocolVersion, Encoding: encoding, Codec: codec, End: 1}
			text, _ := marshalEnvelope(&e)
			e.Code = OK
			parsed[text], texts[[2]string{encoding, codec}] = e, text
		}
	}
	return parsed, texts
}()

// plainReplyText is the envelope's text, if it is one of plainReplies.
func plainReplyText(e *replyEnvelope) (text string, ok bool) {
	if e.Code != "" || e.Metadata != nil || e.Attempt != 0 || e.Run != "" || e.Sequence != 0 || e.End != 1 {
		return "", false
	}
	text, ok = plainReplyTexts[[2]string{e.Encoding, e.Codec}]
	return text, ok
}

// isImplied reports whether an envelope says no more than its absence does: the body is the text of the whole
// answer. Most replies' does, and an attribute costs both sides and SQS time and bytes.
func isImplied(text string) bool {
	e, ok := plainReplies[text]
	return ok && e.Encoding == encodingText
}

// parseReplyEnvelope reads the attribute of a reply. errNotOurs: a Java responder's reply, whose body
// is the whole answer.
func parseReplyEnvelope(text string) (replyEnvelope, error) {
	if e, ok := plainReplies[text]; ok {
		return e, nil
	}
	var e replyEnvelope
	err := unmarshalExactly(text, &e)
	if e.Kind != kindReply || err != nil && !errors.As(err, new(*json.UnmarshalTypeError)) {
		return replyEnvelope{}, errNotOurs
	}
	if err != nil {
		return e, err
	}
	if e.Version != protocolVersion {
		return e, fmt.Errorf("reply of protocol version %d, this side speaks %d", e.Version, protocolVersion)
	}
	if e.Code == "" {
		e.Code = OK
	}
	if e.Code != OK && !e.Code.known() {
		e.Code = Unknown
	}
	return e, nil
}

// marshalEnvelope returns v as JSON of XML characters.
func marshalEnvelope(v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	text := string(b)
	if !isXMLText(text) {
		// encoding/json escapes everything else that XML has no room for, but in a json.RawMessage.
		text = strings.NewReplacer("\uFFFE", `\ufffe`, "\uFFFF", `\uffff`).Replace(strings.ToValidUTF8(text, "\uFFFD"))
	}
	return text, nil
}

// requestStamp is a request's envelope rendered up to the three fields that are known only when the
// message leaves: budget, send time and attempt.
type requestStamp struct{ head string }

// stampRoom is enough for most envelopes, with identifiers of our own and methods of usual length.
const stampRoom = 256

// maxStampBytes bounds what render adds to head.
const maxStampBytes = len(`,"b":,"t":,"a":}`) + 3*20

func newRequestStamp(e *requestEnvelope) (requestStamp, error) {
	e.BudgetMS, e.SentMS, e.Attempt = 0, 0, 0
	if head, ok := plainHead(e); ok {
		return requestStamp{head: head}, nil
	}
	text, err := marshalEnvelope(e)
	if err != nil {
		return requestStamp{}, err
	}
	const tail = `,"b":0,"t":0,"a":0}`
	head, ok := strings.CutSuffix(text, tail)
	if !ok {
		return requestStamp{}, fmt.Errorf("request envelope does not end in %s", tail)
	}
	return requestStamp{head: head}, nil
}

// render completes the envelope. budget is rounded down to milliseconds.
func (s requestStamp) render(budget time.Duration, sent time.Time, attempt int) string {
	var room [stampRoom]byte
	b := append(room[:0], s.head...)
	b = append(b, `,"b":`...)
	b = strconv.AppendInt(b, max(0, budget.Milliseconds()), 10)
	b = append(b, `,"t":`...)
	b = strconv.AppendInt(b, sent.UnixMilli(), 10)
	b = append(b, `,"a":`...)
	b = strconv.AppendInt(b, int64(attempt), 10)
	b = append(b, '}')
	return string(b)
}

func (s requestStamp) size() int { return len(s.head) + maxStampBytes }

// newErrorEnvelope cuts an error to what a reply may carry.
func newErrorEnvelope(e *Error, rejected bool) replyEnvelope {
	code := e.Code
	if !code.known() {
		code = Unknown
	}
	env := replyEnvelope{
		Kind: kindReply, Version: protocolVersion, Code: code, Message: cutUTF8(e.Message, maxMessageBytes),
		Rejected: rejected, Encoding: encodingEmpty, End: 1,
	}
	if e.RetryAfter > 0 {
		env.RetryAfterMS = max(1, e.RetryAfter.Milliseconds())
	}
	room := maxDetailsBytes
	for _, d := range e.Details {
		d = bytes.ToValidUTF8(d, []byte("\uFFFD")) // SQS takes nothing else
		if len(d) > room || !json.Valid(d) {
			continue
		}
		room -= len(d)
		env.Details = append(env.Details, d)
	}
	return env
}

// cutUTF8 shortens s to at most n bytes without splitting a character.
func cutUTF8(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
