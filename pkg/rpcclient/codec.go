package rpcclient

import (
	"encoding/json"
	"fmt"
)

// Codec turns values into payloads and back. Name travels with the message, so that two sides that
// disagree get a clear error.
type Codec interface {
	// Name identifies the codec on the wire, e.g. "json".
	Name() string
	// Marshal returns the payload of v.
	Marshal(v any) ([]byte, error)
	// Unmarshal decodes data into v, a pointer. It must not keep data.
	Unmarshal(data []byte, v any) error
}

// JSON is the default codec: encoding/json, unknown fields ignored.
var JSON Codec = jsonCodec{}

// Raw passes []byte through, for payloads that the application encodes itself.
var Raw Codec = rawCodec{"raw"}

type jsonCodec struct{}

func (jsonCodec) Name() string                       { return "json" }
func (jsonCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

type rawCodec struct{ name string }

func (c rawCodec) Name() string { return c.name }

func (rawCodec) Marshal(v any) ([]byte, error) {
	switch b := v.(type) {
	case []byte:
		return b, nil
	case *[]byte:
		return *b, nil
	default:
		return nil, fmt.Errorf("the raw codec carries []byte, not %T", v)
	}
}

func (rawCodec) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("the raw codec carries []byte, not %T", v)
	}
	*b = append([]byte(nil), data...)
	return nil
}

// decodeOwned decodes a payload that nobody else has: raw bytes need not be copied.
func decodeOwned[T any](c Codec, payload []byte) (any, error) {
	if _, ok := c.(rawCodec); ok {
		if _, ok := any((*T)(nil)).(*[]byte); ok {
			return payload, nil
		}
	}
	var v T
	err := c.Unmarshal(payload, &v)
	return v, err
}
