package rpcclient

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// Packed replies: several replies to one reply queue in one SQS message, for requesters that say in the
// request that they understand it. The message has the envelope attribute alone, of kind "p", and a line
// of JSON for each reply with what the message of a single one would have carried:
//
//	["<call ID>",<envelope of kind r>,"<body>"]
//
// A line by itself, so that one that cannot be read costs no other; JSON, so that any language reads it.

const (
	kindPack = "p"
	// featurePack is what a requester that reads packs says in its requests.
	featurePack = "pack"
	// packEnvelope is a pack's attribute.
	packEnvelope = `{"k":"p","v":1}`
	// maxPackBytes is SQS's billing unit: a larger message costs another request.
	maxPackBytes = 64 << 10
	// maxPackEntries bounds the replies in one message.
	maxPackEntries = 512
)

// packOverhead is what a pack has besides its lines, as SQS counts it.
const packOverhead = len(attributeEnvelope) + len(dataTypeString) + len(packEnvelope)

// packed is one reply of a pack.
type packed struct{ id, envelope, body string }

// line renders a reply as a line of a pack, the end of the line included.
func (p packed) line() string {
	b := make([]byte, 0, len(p.id)+len(p.envelope)+len(p.body)+len(p.body)/8+16)
	b = append(b, '[')
	b = appendJSONString(b, p.id)
	b = append(b, ',')
	b = append(b, p.envelope...)
	b = append(b, ',')
	b = appendJSONString(b, p.body)
	b = append(b, ']', '\n')
	return string(b)
}

// appendJSONString appends s, which is XML text as SQS takes it, as a JSON string: only what JSON wants
// escaped is, since a pack's size is money.
func appendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	done := 0
	for i := range len(s) {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[done:i]...)
		done = i + 1
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
			b = append(b, `\u00`...)
			b = append(b, "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		}
	}
	b = append(b, s[done:]...)
	return append(b, '"')
}

// packEntry is the message that carries lines. The last line's end is left out: SQS bills it.
func packEntry(lines []string) types.SendMessageBatchRequestEntry {
	body := strings.TrimSuffix(strings.Join(lines, ""), "\n")
	return types.SendMessageBatchRequestEntry{
		MessageBody:       &body,
		MessageAttributes: map[string]types.MessageAttributeValue{attributeEnvelope: stringAttribute(packEnvelope)},
	}
}

// isPack reports whether a received message is a pack.
func isPack(m *types.Message) bool {
	if _, ok := m.MessageAttributes[attributeVirtualQueue]; ok {
		return false
	}
	return packVersion(attribute(m, attributeEnvelope)) == protocolVersion
}

// packVersion is the version of a pack's envelope; 0 of any other text, and -1 of one whose version cannot be read.
func packVersion(text string) int {
	switch text {
	case packEnvelope:
		return protocolVersion
	case "":
		return 0
	}
	var e struct {
		Kind    string `json:"k"`
		Version int    `json:"v"`
	}
	err := unmarshalExactly(text, &e)
	switch {
	case e.Kind != kindPack:
		return 0
	case err != nil || e.Version == 0:
		return -1
	default:
		return e.Version
	}
}

// unpack reads a pack's body. malformed counts the lines that cannot be read, and those beyond the limit;
// they cost no other.
func unpack(body string) (replies []packed, malformed int) {
	replies = make([]packed, 0, min(maxPackEntries, 1+strings.Count(body, "\n")))
	for line := range strings.Lines(body) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			continue
		}
		reply, ok := unpackLine(line)
		if !ok || len(replies) == maxPackEntries {
			malformed++
			continue
		}
		replies = append(replies, reply)
	}
	return replies, malformed
}

func unpackLine(line string) (p packed, ok bool) {
	if p, ok := unpackPlain(line); ok {
		return p, true
	}
	return unpackAny(line)
}

func unpackAny(line string) (p packed, ok bool) {
	var parts []json.RawMessage
	if json.Unmarshal([]byte(line), &parts) != nil || len(parts) < 3 || len(parts[1]) == 0 || parts[1][0] != '{' {
		return p, false
	}
	if p.id, ok = unquote(parts[0]); !ok || p.id == "" || len(p.id) > maxVirtualNameBytes || !isPrintableASCII(p.id) {
		return packed{}, false
	}
	p.envelope = string(parts[1])
	if p.body, ok = unquote(parts[2]); !ok {
		return packed{}, false
	}
	return p, true
}

// unpackPlain reads a line as most are: in ASCII, with an envelope that says nothing remarkable, and a body without
// other escapes than those of quotes, backslashes and white space.
func unpackPlain(line string) (p packed, ok bool) {
	if line == "" || line[0] != '[' {
		return p, false
	}
	rest := strings.Clone(line)[1:] // what is kept of it would keep all of the pack
	if p.id, rest, ok = asciiText(rest); !ok || p.id == "" || len(p.id) > maxVirtualNameBytes || !isPrintableASCII(p.id) || rest == "" || rest[0] != ',' {
		return packed{}, false
	}
	rest = rest[1:]
	end := strings.IndexByte(rest, '}')
	if end < 0 {
		return packed{}, false
	}
	p.envelope = rest[:end+1]
	if _, ok := plainReplies[p.envelope]; !ok {
		return packed{}, false
	}
	if rest, ok = strings.CutPrefix(rest[end+1:], ","); !ok {
		return packed{}, false
	}
	if p.body, rest, ok = asciiText(rest); !ok || rest != "]" {
		return packed{}, false
	}
	return p, true
}

// asciiText reads a JSON string of ASCII that text begins with.
func asciiText(text string) (s, rest string, ok bool) {
	text, ok = strings.CutPrefix(text, `"`)
	if !ok {
		return "", "", false
	}
	var unescaped []byte // what was read before the latest escape; nil: there was none
	from := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			if unescaped == nil {
				return text[:i], text[i+1:], true
			}
			return string(append(unescaped, text[from:i]...)), text[i+1:], true
		case c < ' ' || c >= utf8.RuneSelf:
			return "", "", false
		case c == '\\':
			if i+1 == len(text) {
				return "", "", false
			}
			e := plainEscapes[text[i+1]]
			if e == 0 {
				return "", "", false
			}
			if unescaped == nil {
				unescaped = make([]byte, 0, len(text))
			}
			unescaped = append(append(unescaped, text[from:i]...), e)
			i++
			from = i + 1
		}
	}
	return "", "", false
}

// plainEscapes are the escapes that packs are written with, but for those of control characters that SQS refuses.
var plainEscapes = [256]byte{'"': '"', '\\': '\\', 'n': '\n', 'r': '\r', 't': '\t'}

// unquote reads a JSON string.
func unquote(raw json.RawMessage) (s string, ok bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	return s, json.Unmarshal(raw, &s) == nil
}

// packKey returns what replies must have in common to share a pack besides the queue: the beginning of
// the call ID, which names the requester's process, since a pack that reaches another process on the same
// queue has to be put back whole. "": the reply goes alone.
func packKey(id string) string {
	if len(id) <= nonceLength {
		return ""
	}
	return id[:nonceLength]
}

// batchBuilder puts messages into the entries of a batch.
type batchBuilder struct {
	room    int // bytes of lines in a pack
	parcels []parcel
	firsts  parcel // the parcels' first messages
	size    int    // of the batch, at most
	packs   [maxBatch]struct {
		key  string // "": nothing may join
		left int    // bytes; -1: the first line is not counted yet
	}
}

// add puts a message into the batch, and reports whether there was room.
func (b *batchBuilder) add(o *outgoing) bool {
	key := keyOf(o.message)
	if key != "" && b.join(o, key) {
		return true
	}
	size := o.message.size()
	if key != "" {
		size = max(size, maxPackBytes) // what it may grow to; ten of them fit in a batch
	}
	n := len(b.parcels)
	if n == maxBatch || (n > 0 && b.size+size > maxSQSBytes) {
		return false
	}
	b.firsts = append(b.firsts, o)
	b.parcels = append(b.parcels, b.firsts[n:n+1:n+1])
	b.size += size
	b.packs[n].key, b.packs[n].left = key, -1
	return true
}

// join adds a message to a pack that was begun.
func (b *batchBuilder) join(o *outgoing, key string) bool {
	for n := range b.parcels {
		p := &b.packs[n]
		if p.key != key {
			continue
		}
		if p.left < 0 {
			p.left = b.room - len(b.parcels[n][0].message.(packableMessage).line())
		}
		size := len(o.message.(packableMessage).line())
		if size > p.left || len(b.parcels[n]) == maxPackEntries {
			continue
		}
		p.left -= size
		b.parcels[n] = append(b.parcels[n], o)
		return true
	}
	return false
}
