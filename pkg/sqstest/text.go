package sqstest

import (
	"bytes"
	"strconv"
	"unicode/utf8"
)

// badText stands for what is no Unicode: a character that no SQS text may have.
const badText = `\u0001`

// markBadText puts badText in the place of whatever in a JSON document encodes no Unicode character: half a surrogate pair,
// or bytes that are not UTF-8. encoding/json would put U+FFFD there, which SQS takes, and a broken body would be sent on as
// if it were whole. A document with nothing of the kind is returned as it is.
func markBadText(document []byte) []byte {
	if !bytes.Contains(document, []byte(`\u`)) && utf8.Valid(document) {
		return document
	}
	out := make([]byte, 0, len(document))
	for i := 0; i < len(document); {
		n, bad := textUnit(document[i:])
		if bad {
			out = append(out, badText...)
		} else {
			out = append(out, document[i:i+n]...)
		}
		i += n
	}
	return out
}

// textUnit is the length of the character or escape that b begins with, and whether it is no Unicode.
func textUnit(b []byte) (n int, bad bool) {
	if b[0] != '\\' {
		r, n := utf8.DecodeRune(b)
		return n, r == utf8.RuneError && n == 1
	}
	first, ok := escaped(b)
	switch {
	case !ok:
		return min(2, len(b)), false // another escape, or none: the decoder will say so
	case first < 0xD800 || first > 0xDFFF:
		return 6, false
	}
	if second, ok := escaped(b[6:]); ok && first < 0xDC00 && second >= 0xDC00 && second <= 0xDFFF {
		return 12, false
	}
	return 6, true
}

// escaped is the number of the escape \uXXXX that b begins with.
func escaped(b []byte) (uint64, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return n, err == nil
}
