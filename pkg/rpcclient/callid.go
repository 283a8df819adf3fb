package rpcclient

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
)

// A call ID is a process nonce of 72 random bits followed by 128 random bits, both in unpadded
// URL-safe base64: 12 and 22 characters. It is the correlation identifier and the name of the virtual
// queue. Knowing it is what entitles a responder to answer, so it is never logged.
const (
	nonceBytes  = 9
	nonceLength = 12
	tokenBytes  = 16
	tokenLength = 22
)

// newNonce returns what the call IDs of one requester start with.
func newNonce() string {
	var b [nonceBytes]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// newCallID returns a fresh identifier under nonce.
func newCallID(nonce string) string {
	var b [tokenBytes]byte
	_, _ = rand.Read(b[:])
	var id [nonceLength + tokenLength]byte
	copy(id[:], nonce)
	base64.RawURLEncoding.Encode(id[nonceLength:], b[:])
	return string(id[:])
}

// newRun returns what tells one execution of a streaming handler from another.
func newRun() string {
	var b [nonceBytes]byte
	_, _ = rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// hasNonce reports whether a call ID was made under nonce.
func hasNonce(id, nonce string) bool {
	return len(id) == nonceLength+tokenLength && id[:nonceLength] == nonce
}

// NewCallID returns an identifier for WithCallID. Whoever knows it can answer the call: keep it as a secret.
func NewCallID() string { return newCallID(newNonce()) }

// maxCallIDBytes leaves room for "-" and the attempt in a deduplication ID of 128 characters.
const maxCallIDBytes = 120

// isCallID reports whether an application's identifier can be used.
func isCallID(id string) bool {
	if len(id) < minCallIDBytes || len(id) > maxCallIDBytes {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// minCallIDBytes is what an identifier that cannot be guessed has at least.
const minCallIDBytes = 16

// hashCallID shortens an identifier to what logs, spans and errors may show.
func hashCallID(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:6])
}
