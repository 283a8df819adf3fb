package rpcclient

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// SQS's JSON, written and read for the three operations that make up a call. The SDK's own code goes by schemas,
// member by member, with a new buffer that grows for each request and a new string for each member: half of what
// a batch of ten allocates. What is not as plain as calls are is left to it, so that the two never differ in what
// they write or understand.

// awsJSON10 is the protocol that lightProtocol writes and reads.
var awsJSON10 = smithy.ShapeID{Namespace: "aws.protocols", Name: "awsJson1_0"}

// lightProtocol is the SDK's protocol with ways of its own where they are enough.
type lightProtocol struct {
	smithyhttp.ClientProtocol

	mu    sync.RWMutex
	heads map[string]*smithyhttp.Request // by operation; what the SDK sets for it, whatever the input
}

func newLightProtocol(of smithyhttp.ClientProtocol) *lightProtocol {
	return &lightProtocol{ClientProtocol: of, heads: map[string]*smithyhttp.Request{}}
}

// SerializeRequest implements smithyhttp.ClientProtocol.
func (p *lightProtocol) SerializeRequest(ctx context.Context, schema *smithy.OperationSchema, in smithy.Serializable, req *smithyhttp.Request) error {
	var body []byte
	switch in := in.(type) {
	case *sqs.SendMessageBatchInput:
		body = writeSendBatch(in)
	case *sqs.ReceiveMessageInput:
		body = writeReceive(in)
	case *sqs.DeleteMessageBatchInput:
		body = writeDeleteBatch(in)
	}
	if body == nil {
		return p.ClientProtocol.SerializeRequest(ctx, schema, in, req)
	}
	head, err := p.head(ctx, schema, in)
	if err != nil {
		return err
	}
	with, err := req.SetStream(bytes.NewReader(body)) // a copy, so headers come after it
	if err != nil {
		return err
	}
	with.Method = head.Method
	if with.URL.Path == "" {
		with.URL.Path = head.URL.Path
	}
	for name, values := range head.Header {
		with.Header[name] = values[:len(values):len(values)] // what is added to them goes elsewhere
	}
	*req = *with
	return nil
}

// head is what the SDK makes of an operation without input.
func (p *lightProtocol) head(ctx context.Context, schema *smithy.OperationSchema, in smithy.Serializable) (*smithyhttp.Request, error) {
	name := schema.ID().Name
	p.mu.RLock()
	head := p.heads[name]
	p.mu.RUnlock()
	if head != nil {
		return head, nil
	}
	head = smithyhttp.NewStackRequest().(*smithyhttp.Request)
	bare := *schema
	bare.Input = nil
	if err := p.ClientProtocol.SerializeRequest(ctx, &bare, in, head); err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.heads[name] = head
	p.mu.Unlock()
	return head, nil
}

// DeserializeResponse implements smithyhttp.ClientProtocol.
func (p *lightProtocol) DeserializeResponse(ctx context.Context, schema *smithy.OperationSchema, types *smithy.TypeRegistry, resp *smithyhttp.Response, out smithy.Deserializable) error {
	var read func(*jsonText) bool
	switch out := out.(type) {
	case *sqs.SendMessageBatchOutput:
		read = func(t *jsonText) bool { return readSendBatch(t, out) }
	case *sqs.ReceiveMessageOutput:
		read = func(t *jsonText) bool { return readReceive(t, out) }
	case *sqs.DeleteMessageBatchOutput:
		read = func(t *jsonText) bool { return readDeleteBatch(t, out) }
	}
	if read == nil || resp.StatusCode != http.StatusOK {
		return p.ClientProtocol.DeserializeResponse(ctx, schema, types, resp, out)
	}
	text, err := readText(resp.Body)
	if err != nil {
		return &smithy.DeserializationError{Err: err}
	}
	if read(newJSONText(text)) {
		return nil
	}
	resp.Body = rest{strings.NewReader(text), resp.Body}
	return p.ClientProtocol.DeserializeResponse(ctx, schema, types, resp, out)
}

// rest is a body that has been read already.
type rest struct {
	io.Reader
	io.Closer
}

// textBuffers are what answers are read into. Strings are made of them, so they can be used again.
var textBuffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// largestTextBuffer is the largest that is kept.
const largestTextBuffer = 256 << 10

func readText(r io.Reader) (string, error) {
	b := textBuffers.Get().(*bytes.Buffer)
	defer func() {
		if b.Cap() <= largestTextBuffer {
			b.Reset()
			textBuffers.Put(b)
		}
	}()
	if _, err := b.ReadFrom(r); err != nil {
		return "", err
	}
	return b.String(), nil
}
