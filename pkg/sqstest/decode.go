package sqstest

import (
	"bytes"
	"unicode/utf8"
)

// The requests that come for every message are read here, in the form in which clients write them: one pass instead of
// encoding/json's three. Whatever has another form is left to encoding/json, errors too.

// quick is a request that can be read by hand. ok is false for what encoding/json must read.
type quick interface{ read(s *scan) (ok bool) }

// quickly reads a document in the plain form. Characters by number and bytes that are not UTF-8 are never plain.
func quickly(document []byte, in quick) bool {
	if bytes.Contains(document, []byte(`\u`)) || !utf8.Valid(document) {
		return false
	}
	s := scan{b: document}
	return in.read(&s) && s.space() == len(document)
}

func (in *sendMessageBatchIn) read(s *scan) bool { return readBatch(s, &in.QueueURL, &in.Entries) }

func (in *deleteMessageBatchIn) read(s *scan) bool { return readBatch(s, &in.QueueURL, &in.Entries) }

func (in *receiveMessageIn) read(s *scan) bool {
	return s.object(func(name []byte) bool {
		switch string(name) {
		case "QueueUrl":
			return s.into(&in.QueueURL)
		case "MaxNumberOfMessages":
			return s.intoNumber(&in.Max)
		case "VisibilityTimeout":
			return s.intoNumber(&in.Visibility)
		case "WaitTimeSeconds":
			return s.intoNumber(&in.Wait)
		case "MessageAttributeNames":
			return s.intoTexts(&in.Attributes)
		case "MessageSystemAttributeNames":
			return s.intoTexts(&in.SystemAttributes)
		default:
			return false
		}
	})
}

// readBatch reads a queue's URL and a list of entries.
func readBatch[E any, P interface {
	*E
	quick
}](s *scan, url *string, entries *[]E) bool {
	return s.object(func(name []byte) bool {
		switch {
		case string(name) == "QueueUrl":
			return s.into(url)
		case string(name) == "Entries" && *entries == nil:
			*entries = make([]E, 0, maxBatchEntries)
			return s.array(func() bool {
				*entries = append(*entries, *new(E))
				return P(&(*entries)[len(*entries)-1]).read(s)
			})
		default:
			return false
		}
	})
}

func (e *sendBatchEntry) read(s *scan) bool {
	return s.object(func(name []byte) bool {
		switch string(name) {
		case "Id":
			return s.into(&e.ID)
		case "MessageBody":
			return s.intoNew(&e.Body)
		case "MessageGroupId":
			return s.intoNew(&e.Group)
		case "MessageDeduplicationId":
			return s.intoNew(&e.Dedup)
		case "MessageAttributes":
			return e.Attributes == nil && s.attributes(&e.Attributes)
		default:
			return false
		}
	})
}

func (e *deleteBatchEntry) read(s *scan) bool {
	return s.object(func(name []byte) bool {
		switch string(name) {
		case "Id":
			return s.into(&e.ID)
		case "ReceiptHandle":
			return s.into(&e.Handle)
		default:
			return false
		}
	})
}

// attributes reads those that are texts.
func (s *scan) attributes(to *attributes) bool {
	out := make(attributes, 0, 2)
	ok := s.object(func(name []byte) bool {
		for i := range out {
			if out[i].name == string(name) {
				return false
			}
		}
		out = append(out, attribute{name: s.repeated(name)})
		v := &out[len(out)-1]
		return s.object(func(field []byte) bool {
			switch string(field) {
			case "DataType":
				text, ok := s.plain()
				ok = ok && v.DataType == ""
				v.DataType = s.repeated(text)
				return ok
			case "StringValue":
				return s.intoNew(&v.StringValue)
			default:
				return false
			}
		})
	})
	out.sort()
	*to = out
	return ok
}

// scan reads through JSON, and stops at what is not plain.
type scan struct {
	b    []byte
	i    int
	seen []string // names and types of attributes, which are the same in each entry of most batches
}

// repeated is text as a string, which is made once for all texts that are equal.
func (s *scan) repeated(text []byte) string {
	for _, known := range s.seen {
		if known == string(text) {
			return known
		}
	}
	made := string(text)
	if len(s.seen) < maxAttributes {
		s.seen = append(s.seen, made)
	}
	return made
}

func (s *scan) space() int {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\t' || s.b[s.i] == '\n' || s.b[s.i] == '\r') {
		s.i++
	}
	return s.i
}

// next passes c, if that is what comes.
func (s *scan) next(c byte) bool {
	if s.space() == len(s.b) || s.b[s.i] != c {
		return false
	}
	s.i++
	return true
}

// object reads an object; member reads the value of the member of that name, which it must not keep.
func (s *scan) object(member func(name []byte) bool) bool {
	return s.list('{', '}', func() bool {
		name, ok := s.plain()
		return ok && s.next(':') && member(name)
	})
}

// array reads an array; element reads each of its elements.
func (s *scan) array(element func() bool) bool { return s.list('[', ']', element) }

// list reads what stands between open and end, with commas; one reads each of it.
func (s *scan) list(open, end byte, one func() bool) bool {
	if !s.next(open) {
		return false
	}
	for first := true; !s.next(end); first = false {
		if !first && !s.next(',') || !one() {
			return false
		}
	}
	return true
}

// into reads a text that was not there yet, or was empty.
func (s *scan) into(to *string) bool {
	text, ok := s.text()
	ok = ok && *to == ""
	*to = text
	return ok
}

// intoNew reads a text that was not there yet.
func (s *scan) intoNew(to **string) bool {
	text, ok := s.text()
	ok = ok && *to == nil
	*to = &text
	return ok
}

// intoTexts reads a list of texts that was not there yet.
func (s *scan) intoTexts(to *[]string) bool {
	if *to != nil {
		return false
	}
	out := make([]string, 0, 4)
	ok := s.array(func() bool {
		text, ok := s.text()
		out = append(out, text)
		return ok
	})
	*to = out
	return ok
}

// intoNumber reads a whole number of at most 9 digits, without a sign, that was not there yet.
func (s *scan) intoNumber(to **int) bool {
	start, n := s.space(), 0
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' && s.i-start < 9 {
		n = n*10 + int(s.b[s.i]-'0')
		s.i++
	}
	if digits := s.i - start; *to != nil || digits == 0 || digits > 1 && s.b[start] == '0' {
		return false
	}
	*to = &n
	return true
}

// plain reads a string without escapes, as it stands in the document.
func (s *scan) plain() ([]byte, bool) {
	if !s.next('"') {
		return nil, false
	}
	for start := s.i; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return s.b[start : s.i-1], true
		case c < ' ' || c == '\\':
			return nil, false
		}
	}
	return nil, false
}

// escapes are the characters that stand for others after a backslash.
var escapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// text reads a string.
func (s *scan) text() (string, bool) {
	if !s.next('"') {
		return "", false
	}
	rest := s.b[s.i:]
	var out []byte // what came before start, once there was an escape
	start := 0
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '"':
			s.i += i + 1
			if out == nil {
				return string(rest[:i]), true
			}
			return string(append(out, rest[start:i]...)), true
		case c < ' ':
			return "", false
		case c == '\\':
			if out == nil {
				end := bytes.IndexByte(rest[i:], '}') // about where it ends
				out = make([]byte, 0, i+max(end, 64))
			}
			out = append(out, rest[start:i]...)
			i++
			if i == len(rest) || escapes[rest[i]] == 0 {
				return "", false
			}
			out = append(out, escapes[rest[i]])
			start = i + 1
		}
	}
	return "", false
}
