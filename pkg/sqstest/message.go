package sqstest

import (
	"crypto/md5" // the digest that the SQS API defines, not a protection
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of SQS (SendMessage, SendMessageBatch and "message quotas", developer guide).
const (
	maxMessageBytes     = 1 << 20
	maxAttributes       = 10
	maxAttributeName    = 256
	maxAttributeType    = 256
	maxGroupID          = 128
	maxVisibility       = 43200
	maxDelay            = 900
	maxWait             = 20
	maxInFlight         = 120_000
	maxBatchEntries     = 10
	maxBatchID          = 80
	maxQueueName        = 80
	maxListResults      = 1000
	traceHeader         = "AWSTraceHeader"
	attributeTypeBinary = "Binary"
)

// attributeValue is a message attribute on the wire. The list members exist in the API's model and are refused by the service.
type attributeValue struct {
	DataType         string   `json:"DataType,omitempty"`
	StringValue      *string  `json:"StringValue,omitempty"`
	BinaryValue      []byte   `json:"BinaryValue,omitempty"`
	StringListValues []string `json:"StringListValues,omitempty"`
	BinaryListValues [][]byte `json:"BinaryListValues,omitempty"`
}

func (v *attributeValue) binary() bool { return strings.HasPrefix(v.DataType, attributeTypeBinary) }

func (v *attributeValue) size() int {
	if v.binary() {
		return len(v.BinaryValue)
	}
	if v.StringValue == nil {
		return 0
	}
	return len(*v.StringValue)
}

// attribute is a named one.
type attribute struct {
	name string
	attributeValue
}

// attributes are those of a message, by name: in this order their digest is made, and of several errors always the same one
// is reported.
type attributes []attribute

// UnmarshalJSON reads any form that the API has; see decode.go for the usual one.
func (a *attributes) UnmarshalJSON(b []byte) error {
	var all map[string]attributeValue
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	*a = nil
	if all != nil {
		*a = make(attributes, 0, len(all))
	}
	for name, v := range all {
		*a = append(*a, attribute{name, v})
	}
	a.sort()
	return nil
}

// MarshalJSON writes what UnmarshalJSON reads.
func (a attributes) MarshalJSON() ([]byte, error) { return a.appendJSON(nil), nil }

func (a attributes) sort() {
	slices.SortFunc(a, func(x, y attribute) int { return strings.Compare(x.name, y.name) })
}

// size is what the attributes count towards the message's size: name, type and value of each.
func (a attributes) size() int {
	n := 0
	for i := range a {
		n += len(a[i].name) + len(a[i].DataType) + a[i].size()
	}
	return n
}

// digest is the MD5 of the attributes as the API defines it: by name, each of name, type and value with its length, and
// a byte for the kind of value (1 text, 2 binary).
func (a attributes) digest() string {
	var room [1024]byte
	b := room[:0]
	if n := a.size() + len(a)*(3*4+1); n > len(room) {
		b = make([]byte, 0, n)
	}
	for i := range a {
		v := &a[i]
		b = appendSized(appendSized(b, v.name), v.DataType)
		if v.binary() {
			b = appendSized(append(b, 2), v.BinaryValue)
			continue
		}
		b = appendSized(append(b, 1), *v.StringValue)
	}
	return digestHex(md5.Sum(b))
}

func appendSized[T string | []byte](b []byte, s T) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// check is nil when SQS would take the attributes.
func (a attributes) check() *apiError {
	if len(a) > maxAttributes {
		return errInvalidParameter("Number of message attributes [%d] exceeds the allowed maximum [%d].", len(a), maxAttributes)
	}
	for i := range a {
		if err := checkAttributeName(a[i].name); err != nil {
			return err
		}
		if err := a[i].check(a[i].name); err != nil {
			return err
		}
	}
	return nil
}

func checkAttributeName(name string) *apiError {
	switch {
	case name == "" || utf8.RuneCountInString(name) > maxAttributeName:
		return errInvalidParameter("Message (user) attribute name must be 1 to %d characters long.", maxAttributeName)
	case hasPrefixFold(name, "aws.") || hasPrefixFold(name, "amazon."):
		return errInvalidParameter("Message (user) attribute name '%s' must not start with a reserved prefix (AWS. or Amazon.).", name)
	case name[0] == '.' || name[len(name)-1] == '.' || strings.Contains(name, ".."):
		return errInvalidParameter("Message (user) attribute name '%s' must not start or end with a period, nor have two in succession.", name)
	}
	for _, c := range name {
		// Letters of any script: recorded, LocalStack's test_send_message_with_invalid_string_attributes.
		if !unicode.IsLetter(c) && !unicode.IsDigit(c) && c != '_' && c != '-' && c != '.' {
			return errInvalidParameter("Message (user) attribute name '%s' can contain only alphanumeric characters, hyphens, underscores and periods.", name)
		}
	}
	return nil
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}

// check is nil when SQS would take the value of the attribute of this name.
func (v *attributeValue) check(name string) *apiError {
	if len(v.StringListValues) > 0 || len(v.BinaryListValues) > 0 {
		return errUnsupported("Message attribute list values in SendMessage operation are not supported.")
	}
	kind, _, _ := strings.Cut(v.DataType, ".")
	switch {
	case v.DataType == "":
		return errInvalidParameter("Message (user) attribute '%s' must contain a non-empty message attribute type.", name)
	case len(v.DataType) > maxAttributeType:
		return errInvalidParameter("Message (user) attribute '%s' has a type longer than %d characters.", name, maxAttributeType)
	case kind != "String" && kind != "Number" && kind != attributeTypeBinary:
		return errInvalidParameter("Message (user) attribute '%s' has an invalid message attribute type, the set of supported type prefixes is Binary, Number, and String.", name)
	case kind == attributeTypeBinary && v.StringValue != nil, kind != attributeTypeBinary && v.BinaryValue != nil:
		return errInvalidParameter("Message (user) attribute '%s' with type '%s' must use field '%s'.", name, kind, map[bool]string{true: attributeTypeBinary, false: "String"}[kind == attributeTypeBinary])
	case v.size() == 0:
		return errInvalidParameter("Message (user) attribute '%s' must contain a non-empty value of type '%s'.", name, kind)
	case kind == "Number" && !isNumber(*v.StringValue):
		return errInvalidParameter("Can't cast the value of message (user) attribute '%s' to a number.", name)
	case kind != attributeTypeBinary && !validText(*v.StringValue):
		// Recorded: LocalStack's test_invalid_string_attributes_cause_invalid_parameter_value_error.
		return errInvalidParameter("Message (user) attribute '%s' has a value with invalid characters.", name)
	}
	return nil
}

// isNumber accepts the decimal notation that SQS documents: a sign, up to 38 digits with a point, an exponent.
func isNumber(s string) bool {
	digits, point := 0, false
	mantissa, exponent, hasExponent := strings.Cut(strings.ToLower(s), "e")
	for i, c := range mantissa {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c == '.' && !point:
			point = true
		case (c == '-' || c == '+') && i == 0:
		default:
			return false
		}
	}
	if digits == 0 || digits > 38 {
		return false
	}
	if !hasExponent {
		return true
	}
	exponent = strings.TrimLeft(exponent, "+-")
	return exponent != "" && len(exponent) <= 3 && strings.Trim(exponent, "0123456789") == ""
}

// validText reports whether every character is one that SQS carries: those of XML 1.0.
func validText(s string) bool {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c < 0x20 && c != '\t' && c != '\n' && c != '\r' {
				return false
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 || r == 0xFFFE || r == 0xFFFF {
			return false
		}
		i += n
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// isToken reports whether s is 1 to 128 alphanumeric or punctuation characters: the form of group, deduplication and
// receive attempt IDs.
func isToken(s string) bool {
	if s == "" || len(s) > maxGroupID {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func md5Hex(s string) string {
	return digestHex(md5.Sum([]byte(s)))
}

func digestHex(sum [md5.Size]byte) string {
	var out [2 * md5.Size]byte
	hex.Encode(out[:], sum[:])
	return string(out[:])
}

// messageState says in which of a queue's places a message is.
type messageState uint8

const (
	stateReady    messageState = iota // can be received
	stateDelayed                      // not yet received, hidden until its delay has passed
	stateInFlight                     // received, hidden until its visibility timeout has passed
)

// message is one message in a queue. It is guarded by its queue's lock.
type message struct {
	serial   uint64 // within its queue; the receipt handle names it
	id       string
	body     string
	bodyMD5  string
	attrs    attributes
	attrsMD5 string
	trace    string // X-Ray header, a system attribute that is not counted in the size
	group    string
	dedup    string
	sender   string
	sequence string // FIFO only

	sent          int64 // milliseconds since 1970: SentTimestamp
	enqueued      int64 // what retention is counted from; a move to a standard dead-letter queue keeps it
	firstReceived int64 // ApproximateFirstReceiveTimestamp, 0 before
	received      int64 // when it was received last
	receives      int   // ApproximateReceiveCount: goes on in a dead-letter queue
	failures      int   // receives since it came into this queue, which is what a redrive policy counts
	receipt       uint64
	leap          uint64 // what the next receipt is higher by, after Load
	replays       uint32 // receives that were given to another request under the same attempt ID
	source        string // DeadLetterQueueSourceArn
	copy          bool   // a duplicate, by the fault of that name

	state   messageState
	order   uint64 // among the ready: lowest first; of a FIFO group's first message, the group's place among groups
	visible int64  // milliseconds: when a hidden message becomes ready

	placeHidden, placeReady, placeAge int32

	// FIFO: the group's list.
	next, prev *message
	// Standard queues: whose message it is; nil without a group.
	tenant *tenant
}

func (m *message) size() int { return len(m.body) + m.attrs.size() }
