// Package rpcproto is the protobuf codec of package rpcclient, in a package of its own so that programs
// without protobuf do not link it.
//
//	var Sum = rpcproto.NewMethod[*pb.SumRequest, *pb.SumReply]("calculate_sum")
//
// An SQS body is text: protobuf's bytes travel in base64, a third larger than they are.
package rpcproto

import (
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// Codec encodes values whose types are pointers to generated messages. Its name on the wire is "protobuf".
// Messages are encoded deterministically, so that a request made again under the same call ID is
// recognised as the same.
var Codec rpcclient.Codec = codec{}

// NewMethod is rpcclient.NewMethod with this codec, for messages only.
func NewMethod[Req, Rep proto.Message](name string, opts ...rpcclient.MethodOption) rpcclient.Method[Req, Rep] {
	return rpcclient.NewMethod[Req, Rep](name, append([]rpcclient.MethodOption{rpcclient.WithCodec(Codec)}, opts...)...)
}

type codec struct{}

func (codec) Name() string { return "protobuf" }

func (codec) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, notAMessage(v)
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Unmarshal decodes into v, a pointer to a message or, as Method hands it over, to a nil pointer to one.
func (codec) Unmarshal(data []byte, v any) error {
	if m, ok := v.(proto.Message); ok {
		return proto.Unmarshal(data, m)
	}
	target := reflect.ValueOf(v)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return notAMessage(v)
	}
	target = target.Elem()
	typed, ok := target.Interface().(proto.Message)
	if !ok || target.Kind() != reflect.Pointer {
		return notAMessage(v)
	}
	m := typed.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(data, m); err != nil {
		return err
	}
	target.Set(reflect.ValueOf(m))
	return nil
}

func notAMessage(v any) error {
	return fmt.Errorf("the protobuf codec carries pointers to generated messages, not %T", v)
}
