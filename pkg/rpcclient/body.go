package rpcclient

import (
	"encoding/base64"
	"fmt"
	"unicode/utf8"
)

// Encodings of a message body. SQS takes XML characters only and refuses an empty body, so that not
// every payload can be a body as it is.
const (
	// encodingText: the body is the payload.
	encodingText = "t"
	// encodingEmpty: the payload is empty and the body is "-".
	encodingEmpty = "z"
	// encodingBase64: the body is the payload in standard base64 with padding.
	encodingBase64 = "b"
)

const emptyBody = "-"

// encodeBody turns a payload into a body that SQS accepts, and says how.
func encodeBody(payload []byte) (body, encoding string) {
	switch {
	case len(payload) == 0:
		return emptyBody, encodingEmpty
	case isXMLText(payload):
		return string(payload), encodingText
	default:
		return base64.StdEncoding.EncodeToString(payload), encodingBase64
	}
}

// decodeBody undoes encodeBody. An absent encoding is text, as a message of another program has none.
func decodeBody(body, encoding string) ([]byte, error) {
	switch encoding {
	case encodingText, "":
		return []byte(body), nil
	case encodingEmpty:
		return nil, nil
	case encodingBase64:
		payload, err := base64.StdEncoding.DecodeString(body)
		if err != nil {
			return nil, fmt.Errorf("body is not base64: %w", err)
		}
		return payload, nil
	default:
		return nil, fmt.Errorf("unknown body encoding %q", encoding)
	}
}

// isXMLText reports whether b is valid UTF-8 of the characters SQS accepts:
// #x9 | #xA | #xD | #x20–#xD7FF | #xE000–#xFFFD | #x10000–#x10FFFF (SendMessage, API reference).
func isXMLText[T string | []byte](b T) bool {
	for i := 0; i < len(b); {
		if i += printablePrefix(b[i:]); i == len(b) {
			break
		}
		c := b[i]
		if c < utf8.RuneSelf {
			if c < 0x20 && c != '\t' && c != '\n' && c != '\r' {
				return false
			}
			i++
			continue
		}
		// UTF-8 forms are at most four bytes, so this copies nothing larger.
		r, n := utf8.DecodeRuneInString(string(b[i:min(i+utf8.UTFMax, len(b))]))
		if (r == utf8.RuneError && n == 1) || r == 0xFFFE || r == 0xFFFF {
			return false
		}
		i += n
	}
	return true
}

// printablePrefix is how much of b, in words of eight bytes, is ASCII without control characters, which most of most
// payloads is.
func printablePrefix[T string | []byte](b T) int {
	const (
		ones = 0x0101010101010101
		high = 0x80 * ones
	)
	i := 0
	for ; i+8 <= len(b); i += 8 {
		v := uint64(b[i]) | uint64(b[i+1])<<8 | uint64(b[i+2])<<16 | uint64(b[i+3])<<24 |
			uint64(b[i+4])<<32 | uint64(b[i+5])<<40 | uint64(b[i+6])<<48 | uint64(b[i+7])<<56
		// The first byte below a space has its high bit set by the subtraction; so may later ones, which does no harm.
		if (v|(v-' '*ones))&high != 0 {
			break
		}
	}
	return i
}
