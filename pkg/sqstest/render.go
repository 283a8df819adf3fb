package sqstest

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"
)

// The answers that come for every message are written here without reflection: a client that is measured against this
// server should not wait for it.

// rendered is an output that writes its own JSON.
type rendered interface{ appendJSON(b []byte) []byte }

const hexDigits = "0123456789abcdef"

// appendText appends s as a JSON string, as encoding/json does without HTML's escapes.
func appendText(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, `\n`...)
			case '\r':
				b = append(b, `\r`...)
			case '\t':
				b = append(b, `\t`...)
			case '\b':
				b = append(b, `\b`...)
			case '\f':
				b = append(b, `\f`...)
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(append(b, s[start:i]...), `\ufffd`...)
			start = i + n
		case r == '\u2028' || r == '\u2029': // ends of lines in JavaScript
			b = append(append(b, s[start:i]...), `\u202`...)
			b = append(b, hexDigits[r&15])
			start = i + n
		}
		i += n
	}
	return append(append(b, s[start:]...), '"')
}

// appendMember appends a member of an object, and the comma before it unless it is the first.
func appendMember(b []byte, name, value string) []byte {
	return appendText(appendName(b, name), value)
}

func appendName(b []byte, name string) []byte {
	if b[len(b)-1] != '{' {
		b = append(b, ',')
	}
	return append(appendText(b, name), ':')
}

func (a attributes) appendJSON(b []byte) []byte {
	b = append(b, '{')
	for i := range a {
		v := &a[i]
		b = append(appendName(b, v.name), `{"DataType":`...)
		b = appendText(b, v.DataType)
		if v.StringValue != nil {
			b = append(b, `,"StringValue":`...)
			b = appendText(b, *v.StringValue)
		}
		if len(v.BinaryValue) > 0 {
			b = append(b, `,"BinaryValue":"`...)
			b = append(base64.StdEncoding.AppendEncode(b, v.BinaryValue), '"')
		}
		b = append(b, '}')
	}
	return append(b, '}')
}

// receiveMessageOut renders what a receive brought, as far as it was asked for.
type receiveMessageOut struct {
	messages []delivery
	system   nameSet
	names    []string
}

func (o receiveMessageOut) appendJSON(b []byte) []byte {
	if len(o.messages) == 0 {
		return append(b, '{', '}')
	}
	size := 0
	for i := range o.messages {
		size += o.messages[i].size() + renderedOverhead
	}
	if cap(b)-len(b) < size {
		b = append(make([]byte, 0, len(b)+size), b...)
	}
	b = append(b, `{"Messages":[`...)
	for i := range o.messages {
		if i > 0 {
			b = append(b, ',')
		}
		b = o.messages[i].appendJSON(b, o.system, o.names)
	}
	return append(b, ']', '}')
}

// renderedOverhead is about what a message's JSON has beside its body and attributes.
const renderedOverhead = 640

func (d *delivery) appendJSON(b []byte, system nameSet, names []string) []byte {
	b = append(append(b, `{"MessageId":"`...), d.id...)
	b = append(append(b, `","ReceiptHandle":"`...), d.handle...)
	b = append(append(b, `","MD5OfBody":"`...), d.bodyMD5...)
	b = append(b, `","Body":`...)
	b = appendText(b, d.body)
	if len(system) > 0 {
		b = d.appendSystemAttributes(b, system)
	}
	if chosen, digest := d.chosen(names); len(chosen) > 0 {
		b = appendMember(b, "MD5OfMessageAttributes", digest)
		b = chosen.appendJSON(appendName(b, "MessageAttributes"))
	}
	return append(b, '}')
}

// chosen are the message attributes that are asked for, and the digest of these (recorded answers: it is that of the
// attributes returned).
func (d *delivery) chosen(names []string) (attributes, string) {
	if len(d.attrs) == 0 || len(names) == 0 {
		return nil, ""
	}
	n := 0
	for i := range d.attrs {
		if wanted(d.attrs[i].name, names) {
			n++
		}
	}
	switch n {
	case 0:
		return nil, ""
	case len(d.attrs):
		return d.attrs, d.attrsMD5
	}
	chosen := make(attributes, 0, n)
	for i := range d.attrs {
		if wanted(d.attrs[i].name, names) {
			chosen = append(chosen, d.attrs[i])
		}
	}
	return chosen, chosen.digest()
}

// appendSystemAttributes appends those of the message's system attributes that are asked for and that it has.
func (d *delivery) appendSystemAttributes(b []byte, names nameSet) []byte {
	start := len(b)
	b = append(appendName(b, "Attributes"), '{')
	none := len(b)
	all := names.has("All")
	text := func(name, value string) {
		if value != "" && (all || isOneOf(name, names)) {
			b = appendMember(b, name, value)
		}
	}
	number := func(name string, value int64) {
		if all || isOneOf(name, names) {
			b = append(appendName(b, name), '"')
			b = append(strconv.AppendInt(b, value, 10), '"')
		}
	}
	text("SenderId", d.sender)
	number("SentTimestamp", d.sent)
	number("ApproximateReceiveCount", int64(d.receives))
	number("ApproximateFirstReceiveTimestamp", d.firstReceived)
	text("SequenceNumber", d.sequence)
	text("MessageDeduplicationId", d.dedup)
	text("MessageGroupId", d.group)
	text(traceHeader, d.trace)
	text("DeadLetterQueueSourceArn", d.source)
	if len(b) == none {
		return b[:start]
	}
	return append(b, '}')
}

// batchEntry is what succeeded in a batch.
type batchEntry interface{ appendJSON(b []byte) []byte }

func (r batchResult[T]) appendJSON(b []byte) []byte {
	b = append(b, '{')
	if len(r.Successful) > 0 {
		b = append(appendName(b, "Successful"), '[')
		for i := range r.Successful {
			if i > 0 {
				b = append(b, ',')
			}
			b = r.Successful[i].appendJSON(b)
		}
		b = append(b, ']')
	}
	if len(r.Failed) > 0 {
		b = append(appendName(b, "Failed"), '[')
		for i := range r.Failed {
			if i > 0 {
				b = append(b, ',')
			}
			b = r.Failed[i].appendJSON(b)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

func (f *batchFailure) appendJSON(b []byte) []byte {
	b = append(b, '{')
	b = appendMember(b, "Id", f.ID)
	b = strconv.AppendBool(appendName(b, "SenderFault"), f.SenderFault)
	b = appendMember(b, "Code", f.Code)
	if f.Message != "" {
		b = appendMember(b, "Message", f.Message)
	}
	return append(b, '}')
}

func (s batchSuccess) appendJSON(b []byte) []byte {
	return append(appendMember(append(b, '{'), "Id", s.ID), '}')
}

func (s sendBatchSuccess) appendJSON(b []byte) []byte {
	return s.appendMembers(appendMember(append(b, '{'), "Id", s.ID))
}

func (s sendResult) appendJSON(b []byte) []byte { return s.appendMembers(append(b, '{')) }

func (s *sendResult) appendMembers(b []byte) []byte {
	b = appendMember(b, "MessageId", s.MessageID)
	b = append(append(append(b, `,"MD5OfMessageBody":"`...), s.MD5...), '"')
	for _, m := range [...][2]string{
		{"MD5OfMessageAttributes", s.MD5Attributes}, {"MD5OfMessageSystemAttributes", s.MD5System}, {"SequenceNumber", s.Sequence},
	} {
		if m[1] != "" {
			b = appendMember(b, m[0], m[1])
		}
	}
	return append(b, '}')
}
