package rpcclient

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// readSendBatch is false, and leaves out as it is, when the answer is not as plain as they are.
func readSendBatch(t *jsonText, out *sqs.SendMessageBatchOutput) bool {
	var o sqs.SendMessageBatchOutput
	t.object(func(name string) {
		switch {
		case name == "Successful" && o.Successful == nil:
			o.Successful = make([]types.SendMessageBatchResultEntry, 0, maxBatch)
			t.list(func() {
				var e types.SendMessageBatchResultEntry
				t.object(func(name string) {
					switch name {
					case "Id":
						t.into(&e.Id)
					case "MessageId":
						t.into(&e.MessageId)
					case "MD5OfMessageBody":
						t.into(&e.MD5OfMessageBody)
					case "MD5OfMessageAttributes":
						t.into(&e.MD5OfMessageAttributes)
					case "MD5OfMessageSystemAttributes":
						t.into(&e.MD5OfMessageSystemAttributes)
					case "SequenceNumber":
						t.into(&e.SequenceNumber)
					default:
						t.odd = true
					}
				})
				o.Successful = append(o.Successful, e)
			})
		case name == "Failed" && o.Failed == nil:
			o.Failed = t.failed()
		default:
			t.odd = true
		}
	})
	if !t.end() {
		return false
	}
	out.Successful, out.Failed = o.Successful, o.Failed
	return true
}

// readDeleteBatch is as readSendBatch.
func readDeleteBatch(t *jsonText, out *sqs.DeleteMessageBatchOutput) bool {
	var o sqs.DeleteMessageBatchOutput
	t.object(func(name string) {
		switch {
		case name == "Successful" && o.Successful == nil:
			o.Successful = make([]types.DeleteMessageBatchResultEntry, 0, maxBatch)
			t.list(func() {
				var e types.DeleteMessageBatchResultEntry
				t.object(func(name string) {
					if name != "Id" {
						t.odd = true
						return
					}
					t.into(&e.Id)
				})
				o.Successful = append(o.Successful, e)
			})
		case name == "Failed" && o.Failed == nil:
			o.Failed = t.failed()
		default:
			t.odd = true
		}
	})
	if !t.end() {
		return false
	}
	out.Successful, out.Failed = o.Successful, o.Failed
	return true
}

func (t *jsonText) failed() []types.BatchResultErrorEntry {
	all := []types.BatchResultErrorEntry{}
	t.list(func() {
		var e types.BatchResultErrorEntry
		t.object(func(name string) {
			switch name {
			case "Id":
				t.into(&e.Id)
			case "Code":
				t.into(&e.Code)
			case "Message":
				t.into(&e.Message)
			case "SenderFault":
				e.SenderFault = t.truth()
			default:
				t.odd = true
			}
		})
		all = append(all, e)
	})
	return all
}

// readReceive is as readSendBatch.
func readReceive(t *jsonText, out *sqs.ReceiveMessageOutput) bool {
	var all []types.Message
	t.object(func(name string) {
		if name != "Messages" || all != nil {
			t.odd = true
			return
		}
		all = make([]types.Message, 0, maxBatch)
		t.list(func() {
			all = append(all, types.Message{})
			t.message(&all[len(all)-1])
		})
	})
	if !t.end() {
		return false
	}
	out.Messages = all
	return true
}

func (t *jsonText) message(m *types.Message) {
	t.object(func(name string) {
		switch {
		case name == "MessageId":
			t.into(&m.MessageId)
		case name == "ReceiptHandle":
			t.into(&m.ReceiptHandle)
		case name == "MD5OfBody":
			t.into(&m.MD5OfBody)
		case name == "Body":
			t.into(&m.Body)
		case name == "MD5OfMessageAttributes":
			t.into(&m.MD5OfMessageAttributes)
		case name == "Attributes" && m.Attributes == nil:
			m.Attributes = map[string]string{}
			t.object(func(name string) { m.Attributes[t.kept(name)] = t.kept(t.text()) })
		case name == "MessageAttributes" && m.MessageAttributes == nil:
			m.MessageAttributes = map[string]types.MessageAttributeValue{}
			t.object(func(name string) {
				var v types.MessageAttributeValue
				t.object(func(name string) {
					switch name {
					case "DataType":
						t.into(&v.DataType)
					case "StringValue":
						t.into(&v.StringValue)
					default: // binary ones are not ours
						t.odd = true
					}
				})
				m.MessageAttributes[t.kept(name)] = v
			})
		default:
			t.odd = true
		}
	})
}

// sharedText is the longest answer of which the strings are parts. Of a longer one they are copies: one that is
// kept for long would keep all of it.
const sharedText = 32 << 10

// jsonText reads an answer. Whatever is not as SQS writes it today makes it odd, and the SDK reads it then.
type jsonText struct {
	s    string
	i    int
	odd  bool
	copy bool     // strings are not to be parts of s
	room []string // what pointers point into
}

func newJSONText(s string) *jsonText { return &jsonText{s: s, copy: len(s) > sharedText} }

// end reports whether everything was read.
func (t *jsonText) end() bool {
	t.space()
	return !t.odd && t.i == len(t.s)
}

func (t *jsonText) space() {
	for t.i < len(t.s) && (t.s[t.i] == ' ' || t.s[t.i] == '\n' || t.s[t.i] == '\t' || t.s[t.i] == '\r') {
		t.i++
	}
}

// next takes c if it is what comes next.
func (t *jsonText) next(c byte) bool {
	if t.i < len(t.s) && t.s[t.i] == c {
		t.i++
		return true
	}
	t.space()
	if t.i < len(t.s) && t.s[t.i] == c {
		t.i++
		return true
	}
	return false
}

// object calls each with the name of each member, which must read its value.
func (t *jsonText) object(each func(name string)) {
	if !t.next('{') {
		t.odd = true
		return
	}
	if t.next('}') {
		return
	}
	for {
		name := t.text()
		if t.odd = t.odd || !t.next(':'); t.odd {
			return
		}
		each(name)
		switch {
		case t.odd:
			return
		case t.next(','):
		case t.next('}'):
			return
		default:
			t.odd = true
			return
		}
	}
}

// list calls each for each element, which must read it.
func (t *jsonText) list(each func()) {
	if !t.next('[') {
		t.odd = true
		return
	}
	if t.next(']') {
		return
	}
	for {
		each()
		switch {
		case t.odd:
			return
		case t.next(','):
		case t.next(']'):
			return
		default:
			t.odd = true
			return
		}
	}
}

// into reads a string that was not there before.
func (t *jsonText) into(to **string) {
	s := t.kept(t.text())
	if *to != nil {
		t.odd = true
		return
	}
	if len(t.room) == cap(t.room) {
		t.room = make([]string, 0, 48)
	}
	t.room = append(t.room, s)
	*to = &t.room[len(t.room)-1]
}

// kept is s for longer than the answer is read.
func (t *jsonText) kept(s string) string {
	if t.copy {
		return strings.Clone(s)
	}
	return s
}

func (t *jsonText) truth() bool {
	t.space()
	switch rest := t.s[t.i:]; {
	case strings.HasPrefix(rest, "true"):
		t.i += len("true")
		return true
	case strings.HasPrefix(rest, "false"):
		t.i += len("false")
	default:
		t.odd = true
	}
	return false
}

// text reads a string.
func (t *jsonText) text() string {
	if !t.next('"') {
		t.odd = true
		return ""
	}
	start := t.i
	i := start + plainPrefix(t.s[start:])
	for ; i < len(t.s); i++ {
		switch c := t.s[i]; {
		case c == '"':
			t.i = i + 1
			return t.s[start:i]
		case c == '\\':
			return t.escaped(start, i)
		case c < ' ':
			t.odd = true
			return ""
		}
	}
	t.odd = true
	return ""
}

// escaped reads a string that began at start and has its first escape at i.
func (t *jsonText) escaped(start, i int) string {
	end := i
	for end < len(t.s) && t.s[end] != '"' {
		if t.s[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(t.s) {
		t.odd = true
		return ""
	}
	var b strings.Builder
	b.Grow(end - start)
	from := start
	for ; i < end; i++ {
		c := t.s[i]
		if c < ' ' {
			t.odd = true
			return ""
		}
		if c != '\\' {
			continue
		}
		b.WriteString(t.s[from:i])
		i++ // at the letter, which is before end
		switch c := t.s[i]; c {
		case '"', '\\', '/':
			b.WriteByte(c)
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'r':
			b.WriteByte('\r')
		case 'b':
			b.WriteByte('\b')
		case 'f':
			b.WriteByte('\f')
		case 'u':
			r, n := jsonRune(t.s[i+1 : end])
			if n == 0 {
				t.odd = true
				return ""
			}
			b.WriteRune(r)
			i += n
		default:
			t.odd = true
			return ""
		}
		from = i + 1
	}
	b.WriteString(t.s[from:end])
	t.i = end + 1
	s := b.String()
	if !utf8.ValidString(s) { // the SDK has its own way with that
		t.odd = true
	}
	return s
}

// jsonRune reads what follows a \u, with the other half of a pair, and how many bytes that takes; 0: it is none.
func jsonRune(s string) (r rune, n int) {
	unit := func(s string) (rune, bool) {
		if len(s) < 4 {
			return 0, false
		}
		v, err := strconv.ParseUint(s[:4], 16, 16)
		return rune(v), err == nil
	}
	r, ok := unit(s)
	switch {
	case !ok:
		return 0, 0
	case !utf16.IsSurrogate(r):
		return r, 4
	case len(s) < 10 || s[4:6] != `\u`:
		return 0, 0
	}
	low, ok := unit(s[6:])
	if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
		return 0, 0
	}
	return r, 10
}
