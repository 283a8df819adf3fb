package rpcclient

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"hash"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// SQS says of every body what its MD5 is. The SDK compares too, with a copy of every body and a map of every batch.

// checksum is one computation of an MD5.
type checksum struct {
	hash hash.Hash
	part [1 << 10]byte // of a body, which hash takes as bytes
	sum  [md5.Size]byte
	want [md5.Size]byte
}

var checksums = sync.Pool{New: func() any { return &checksum{hash: md5.New()} }}

// matches reports whether the MD5 of body is sum, in hexadecimal digits.
func (c *checksum) matches(body, sum string) bool {
	if len(sum) != hex.EncodedLen(md5.Size) {
		return false
	}
	n := copy(c.part[:], sum)
	if _, err := hex.Decode(c.want[:], c.part[:n]); err != nil {
		return false
	}
	c.hash.Reset()
	for len(body) > 0 {
		n := copy(c.part[:], body)
		_, _ = c.hash.Write(c.part[:n]) // never fails (hash.Hash)
		body = body[n:]
	}
	c.hash.Sum(c.sum[:0])
	return c.sum == c.want
}

// verifySent compares what SQS says it took with what was sent.
func verifySent(entries []types.SendMessageBatchRequestEntry, out *sqs.SendMessageBatchOutput) error {
	c := checksums.Get().(*checksum)
	defer checksums.Put(c)
	for i := range out.Successful {
		o := &out.Successful[i]
		n := entryIndex(o.Id, len(entries))
		if n < 0 || entries[n].MessageBody == nil || o.MD5OfMessageBody == nil {
			continue
		}
		if !c.matches(*entries[n].MessageBody, *o.MD5OfMessageBody) {
			return fmt.Errorf("message %s: SQS took another body than was sent, by its checksum", deref(o.MessageId))
		}
	}
	return nil
}

// verifyReceived compares what arrived with what SQS says that it gave out.
func verifyReceived(out *sqs.ReceiveMessageOutput) error {
	c := checksums.Get().(*checksum)
	defer checksums.Put(c)
	for i := range out.Messages {
		m := &out.Messages[i]
		if m.Body == nil || m.MD5OfBody == nil {
			continue
		}
		if !c.matches(*m.Body, *m.MD5OfBody) {
			return fmt.Errorf("message %s: its body is not the one that SQS gave out, by its checksum", deref(m.MessageId))
		}
	}
	return nil
}
