package rpcclient

import (
	"strconv"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// jsonFrame is more than the names, quotes and braces around the members of any one entry or attribute.
const jsonFrame = 160

// writeSendBatch is the body of a SendMessageBatch; nil when it has something that calls have not.
func writeSendBatch(in *sqs.SendMessageBatchInput) []byte {
	size := jsonFrame + jsonSize(in.QueueUrl)
	for i := range in.Entries {
		e := &in.Entries[i]
		if e.DelaySeconds != 0 || e.MessageSystemAttributes != nil {
			return nil
		}
		size += jsonFrame + jsonSize(e.Id) + jsonSize(e.MessageBody) + jsonSize(e.MessageDeduplicationId) + jsonSize(e.MessageGroupId)
		for name, a := range e.MessageAttributes {
			if a.BinaryValue != nil || a.BinaryListValues != nil || a.StringListValues != nil {
				return nil
			}
			size += jsonFrame + jsonSize(&name) + jsonSize(a.DataType) + jsonSize(a.StringValue)
		}
	}
	w := jsonWriter{buf: make([]byte, 0, size)}
	w.open('{')
	if in.Entries != nil {
		w.name(`"Entries":`)
		w.open('[')
		for i := range in.Entries {
			w.sendEntry(&in.Entries[i])
		}
		w.close(']')
	}
	w.member(`"QueueUrl":`, in.QueueUrl)
	w.close('}')
	return w.buf
}

func (w *jsonWriter) sendEntry(e *types.SendMessageBatchRequestEntry) {
	w.element()
	w.open('{')
	w.member(`"Id":`, e.Id)
	if e.MessageAttributes != nil {
		w.name(`"MessageAttributes":`)
		w.open('{')
		for name, a := range e.MessageAttributes {
			w.element()
			w.text(name)
			w.buf = append(w.buf, ':')
			w.open('{')
			w.member(`"DataType":`, a.DataType)
			w.member(`"StringValue":`, a.StringValue)
			w.close('}')
		}
		w.close('}')
	}
	w.member(`"MessageBody":`, e.MessageBody)
	w.member(`"MessageDeduplicationId":`, e.MessageDeduplicationId)
	w.member(`"MessageGroupId":`, e.MessageGroupId)
	w.close('}')
}

// writeReceive is the body of a ReceiveMessage; nil when it has something that calls have not.
func writeReceive(in *sqs.ReceiveMessageInput) []byte {
	if in.AttributeNames != nil || in.ReceiveRequestAttemptId != nil { //nolint:staticcheck // middleware may still set what is deprecated
		return nil
	}
	w := jsonWriter{buf: make([]byte, 0, 512)}
	w.open('{')
	w.whole(`"MaxNumberOfMessages":`, in.MaxNumberOfMessages)
	if in.MessageAttributeNames != nil {
		w.name(`"MessageAttributeNames":`)
		jsonList(&w, in.MessageAttributeNames)
	}
	if in.MessageSystemAttributeNames != nil {
		w.name(`"MessageSystemAttributeNames":`)
		jsonList(&w, in.MessageSystemAttributeNames)
	}
	w.member(`"QueueUrl":`, in.QueueUrl)
	w.whole(`"VisibilityTimeout":`, in.VisibilityTimeout)
	w.whole(`"WaitTimeSeconds":`, in.WaitTimeSeconds)
	w.close('}')
	return w.buf
}

// writeDeleteBatch is the body of a DeleteMessageBatch.
func writeDeleteBatch(in *sqs.DeleteMessageBatchInput) []byte {
	size := jsonFrame + jsonSize(in.QueueUrl)
	for i := range in.Entries {
		size += jsonFrame/4 + jsonSize(in.Entries[i].Id) + jsonSize(in.Entries[i].ReceiptHandle)
	}
	w := jsonWriter{buf: make([]byte, 0, size)}
	w.open('{')
	if in.Entries != nil {
		w.name(`"Entries":`)
		w.open('[')
		for i := range in.Entries {
			w.element()
			w.open('{')
			w.member(`"Id":`, in.Entries[i].Id)
			w.member(`"ReceiptHandle":`, in.Entries[i].ReceiptHandle)
			w.close('}')
		}
		w.close(']')
	}
	w.member(`"QueueUrl":`, in.QueueUrl)
	w.close('}')
	return w.buf
}

// jsonWriter appends JSON without white space.
type jsonWriter struct {
	buf   []byte
	comma bool // something precedes in the same object or list
}

func (w *jsonWriter) open(c byte) {
	w.buf, w.comma = append(w.buf, c), false
}

func (w *jsonWriter) close(c byte) {
	w.buf, w.comma = append(w.buf, c), true
}

// element begins an element of a list, or a member whose name follows.
func (w *jsonWriter) element() {
	if w.comma {
		w.buf = append(w.buf, ',')
	}
	w.comma = true
}

// name begins a member; quoted is its name with quotes and colon.
func (w *jsonWriter) name(quoted string) {
	w.element()
	w.buf = append(w.buf, quoted...)
}

// member writes a text, unless it is absent.
func (w *jsonWriter) member(quoted string, v *string) {
	if v != nil {
		w.name(quoted)
		w.text(*v)
	}
}

// whole writes a number, unless it is 0, which SQS takes for absent in these requests.
func (w *jsonWriter) whole(quoted string, v int32) {
	if v != 0 {
		w.name(quoted)
		w.buf = strconv.AppendInt(w.buf, int64(v), 10)
	}
}

func jsonList[S ~string](w *jsonWriter, all []S) {
	w.open('[')
	for _, s := range all {
		w.element()
		w.text(string(s))
	}
	w.close(']')
}

const hexDigits = "0123456789abcdef"

// text writes a string as the SDK does.
func (w *jsonWriter) text(s string) {
	b := w.buf
	b = append(b, '"')
	done := 0 // what of s is written
	for i := plainPrefix(s); i < len(s); {
		c := s[i]
		if !jsonSpecial(c) {
			i++
			continue
		}
		n := 1
		if c >= utf8.RuneSelf {
			var r rune
			if r, n = utf8.DecodeRuneInString(s[i:]); !(r == utf8.RuneError && n == 1) && r != '\u2028' && r != '\u2029' {
				i += n
				continue
			}
			b = append(b, s[done:i]...)
			if n == 1 {
				b = append(b, "\ufffd"...)
			} else {
				b = append(b, '\\', 'u', '2', '0', '2', hexDigits[r&0xF])
			}
		} else {
			b = append(b, s[done:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xF])
			}
		}
		i += n
		done = i
		i += plainPrefix(s[i:])
	}
	w.buf = append(append(b, s[done:]...), '"')
}

// jsonSpecial reports whether a byte may not stand in a JSON string as it is, or is not ASCII.
func jsonSpecial(c byte) bool { return c < ' ' || c == '"' || c == '\\' || c >= 0x7f }

// jsonSize is how long a string is in JSON without its quotes, in most cases: what is longer costs a larger buffer.
func jsonSize(s *string) int {
	if s == nil {
		return 0
	}
	n := len(*s)
	for i := plainPrefix(*s); i < len(*s); i++ {
		switch c := (*s)[i]; {
		case c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t':
			n++
		case c < ' ' || c == 0x7f:
			n += 5
		}
	}
	return n
}

// plainPrefix is how much of s, in whole words of eight bytes but for the last, has nothing that is jsonSpecial.
func plainPrefix(s string) int {
	const (
		ones = 0x0101010101010101
		high = 0x80 * ones
	)
	i := 0
	for ; i+8 <= len(s); i += 8 {
		v := uint64(s[i]) | uint64(s[i+1])<<8 | uint64(s[i+2])<<16 | uint64(s[i+3])<<24 |
			uint64(s[i+4])<<32 | uint64(s[i+5])<<40 | uint64(s[i+6])<<48 | uint64(s[i+7])<<56 // one load
		quote, slash, del := v^('"'*ones), v^('\\'*ones), v^(0x7f*ones)
		// A byte's high bit is set in v-ones*n where it is less than n, and in x-ones where it is 0 in x.
		if (v|(v-' '*ones)|(quote-ones)&^quote|(slash-ones)&^slash|(del-ones)&^del)&high != 0 {
			return i
		}
	}
	for i < len(s) && !jsonSpecial(s[i]) {
		i++
	}
	return i
}
